"""A training that an operator has paused: who may pause and resume it, and what is said of that.

A pause needs no word of its own: it is a Detach with the code `paused`, and it is over when its party joins or begins
again. It outlives the server in the events that tell of it.
"""

from collections.abc import Collection

from parties.errors import Failure
from parties.jobs.actions import Actions, Record
from parties.jobs.standing import Standing
from parties.pause_errors import AlreadyPaused, CannotPause, JobPaused, NotPaused, PausedByPeer
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId


def check_may_pause(spec: JobSpec, standing: Standing, me: PartyId) -> None:
    """Raises CannotPause, AlreadyPaused, PausedByPeer."""
    if not spec.resumes:
        raise CannotPause("the job could not go on after a pause: it has no checkpoints")
    if not standing.begun:
        raise CannotPause("the job has not begun")
    if standing.returned:
        raise CannotPause(f"{me} has done its part of the job, and waits for the other parties to end it")
    if me in standing.paused:
        raise AlreadyPaused(f"the operator of {me} has paused the job already")
    _check_peers(standing)


def check_may_resume(standing: Standing, me: PartyId) -> None:
    """Raises PausedByPeer, NotPaused."""
    if me not in standing.paused:
        _check_peers(standing)
        raise NotPaused("the job is not paused")


def pause_of(party: PartyId) -> Failure:
    """Why a run ends."""
    return Failure.of(JobPaused(f"the operator of {party} paused the job"), party)


def paused(standing: Standing, party: PartyId, attempt: int | None = None) -> Actions:
    """Nothing new where it is said again."""
    if party in standing.paused:
        return []
    text, data = pause_of(party).message, {"peer": party}
    return [Record("paused", text, data, attempt, waits_for=to_resume(standing.paused | {party}))]


def resumed(standing: Standing, party: PartyId, otherwise: str) -> Record:
    """Who is waited for `otherwise` if nobody else has paused the job."""
    waits_for = to_resume(standing.paused - {party}) or otherwise
    return Record("resumed", f"the operator of {party} resumed the job", {"peer": party}, waits_for=waits_for)


def to_resume(parties: Collection[PartyId]) -> str:
    return f"{' and '.join(sorted(parties))}, whose operator paused the job, to resume it" if parties else ""


def _check_peers(standing: Standing) -> None:
    if standing.paused:
        who = " and ".join(sorted(standing.paused))
        raise PausedByPeer(f"the operator of {who} has paused the job, and alone may resume it")
