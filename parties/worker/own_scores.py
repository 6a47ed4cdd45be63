"""Rows scored by the label party's own columns alone, in a process of their own, `own_scores_main.py`."""

from parties.errors import WorkerVanished
from parties.worker.frames import Failed, Finished, Frame, RawTable
from parties.worker.one_question import ask
from vfl.errors import ModelUnfit
from vfl.reports import Outcome
from vfl.spec.sections import PartyId


class OwnRows(Frame, frozen=True):
    """To the process, once."""

    spec: bytes
    me: PartyId
    table: RawTable
    model: bytes


def own_scores(asked: OwnRows) -> Outcome:
    """Raises ModelUnfit, WorkerVanished."""
    files = [asked.table.columns] if isinstance(asked.table.columns, int) else []
    match ask("parties.worker.own_scores_main", asked, Finished, files):
        case Finished(outcome):
            return outcome
        case Failed(code, message, safe, fix) if code == ModelUnfit.code:
            raise ModelUnfit(message, safe=safe, fix=fix)
    raise WorkerVanished(
        "the process that scores has ended without an answer",
        safe="Nothing was stored or sent.",
        fix="See the server's log; with many rows look at the memory of the machine.",
    )
