"""What can go wrong when a party's operator asks a scoring session."""

from vfl.errors import JobError

NOTHING_ASKED = "No peer was asked anything."


class NoSession(JobError):
    """No scoring session of that model is open at this party, or it is not the label party."""

    code = "no_session"
    safe = NOTHING_ASKED
    fix = (
        "At the label party `vfl predict MODEL --data NAME --session MINUTES` starts one; it is open once the other "
        "party has agreed, and `vfl job list` shows it as running."
    )


class OwnValuesUnfit(JobError):
    """Values that come with a request cannot take the place of the own columns of a row."""

    code = "own_values_unfit"
    safe = NOTHING_ASKED


class ScoresLate(JobError):
    """A scoring session did not answer in time."""

    code = "scores_late"
    safe = "What was opened stays with the session, and is not opened again."
    fix = "Ask again; `vfl job show` tells whether the session still runs."
