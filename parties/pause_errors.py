"""What can go wrong when an operator pauses or resumes a training."""

from vfl.errors import JobError

NOTHING_CHANGED = "Nothing was changed."


class JobPaused(JobError):
    """Why a run ended: an operator has paused the training."""

    code = "paused"
    fix = "The operator who paused the job resumes it with `vfl job resume JOB`."


class CannotPause(JobError):
    """The job does not run, or could not go on from a checkpoint."""

    code = "cannot_pause"
    safe = NOTHING_CHANGED
    fix = "Trainings in clear or under CKKS can be paused while they run; `vfl job cancel JOB` ends any job."


class AlreadyPaused(JobError):
    """This party's operator has paused the job before."""

    code = "already_paused"
    safe = NOTHING_CHANGED
    fix = "`vfl job resume JOB` lets it go on."


class PausedByPeer(JobError):
    """A peer's operator has paused the job."""

    code = "paused_by_peer"
    safe = NOTHING_CHANGED
    fix = "Ask that operator to resume the job; `vfl job cancel JOB` ends it."


class NotPaused(JobError):
    """The job is not paused."""

    code = "not_paused"
    safe = NOTHING_CHANGED
    fix = "`vfl job show JOB` tells how the job stands, and whom it waits for."
