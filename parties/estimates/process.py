"""The process that counts and measures for an estimate, as the server sees it: started for one, and waited for."""

from pathlib import Path

from parties.errors import WorkerVanished
from parties.worker.frames import Failed, Frame
from parties.worker.one_question import ask
from vfl.errors import ImpossibleJob
from vfl.planning.work import Turn
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId


class AskedWork(Frame, frozen=True):
    """To the process, once."""

    spec: bytes
    rows: dict[PartyId, dict[str, int]]
    costs: dict[str, float]
    """Those that are known."""
    folder: str


class Counted(Frame, frozen=True):
    """From the process."""

    turns: tuple[Turn, ...]
    costs: dict[str, float]
    """Those that were not."""


def counted(spec: JobSpec, rows: dict[PartyId, dict[str, int]], costs: dict[str, float], folder: Path) -> Counted:
    """Raises ImpossibleJob, WorkerVanished."""
    match ask("parties.estimates.main", AskedWork(spec.encoded(), rows, costs, str(folder)), Counted):
        case Counted() as answer:
            return answer
        case Failed(code, message, safe, fix) if code:
            raise ImpossibleJob(message, safe=safe, fix=fix)
    raise WorkerVanished(
        "the process that estimates has ended without an answer",
        safe="Nothing was stored or sent.",
        fix="See the server's log.",
    )
