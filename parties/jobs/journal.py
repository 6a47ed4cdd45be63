"""What this party's operator sees of one job: events and the last step. Cheap while the job runs.

Each event is stored with what has travelled before it (`parties/storage/ledger.py`).
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from parties.errors import StorageFailed, printable
from parties.storage.checkpoints import Checkpoint
from parties.storage.database import Job, Store, now
from parties.storage.kept_words import Words
from parties.storage.ledger import Ledger
from parties.storage.models import ModelStore
from parties.trust.leaves import Event
from vfl.errors import LocalProtocolError
from vfl.notices import Notice
from vfl.reports import EpochDone, Fact, Outcome, Refused, Remark, RoundDone, StepDone, Warned
from vfl.spec.sections import PartyId

STEP_EVENT_SECONDS = 0.1
TEXT_LIMIT = 500
CLOSE_AGAIN_SECONDS = 2.0
PAUSES = ("paused", "resumed")
"""Kinds of events that tell of a pause and of its end; `peer` in their data is the party whose operator it was."""

_LOG = logging.getLogger("parties")


class StoredEnd(NamedTuple):
    """What is stored of a job at its end."""

    state: str
    text: str
    error: dict[str, str] | None
    words: Words
    values: dict[str, Any]
    audited: dict[str, str] = {}  # noqa: RUF012 - never changed
    """What the audit log tells of it beside the state."""


class Journal:
    def __init__(self, job: Job, store: Store, registry: ModelStore, ledger: Ledger) -> None:
        """A job that was taken up again counts on from where it is stored."""
        self._job, self._store, self._models, self._ledger = job.id, store, registry, ledger
        self._spec_digest, self._end_told = job.spec_digest, False
        self._step, self._epoch = job.step, job.epoch
        self._step_stored_at = 0.0
        self.paused: frozenset[PartyId] = frozenset()
        """Whose operators have paused the job: as the events tell, so that it outlives the server with them."""
        for event in store.events(job.id, 0, 0.0, PAUSES):
            self._note_pause(event.kind, event.data or {})

    def go_back_to(self, checkpoint: Checkpoint | None) -> None:
        """The role takes the steps after it again, or all."""
        self._step, self._epoch = (checkpoint.step, checkpoint.epoch) if checkpoint else (0, 0)

    def begin(self, back: PartyId, step: int, values: dict[str, Any]) -> None:
        """A run begins; where another run was before, `back` is this party, which goes on after this step."""
        values |= {"state": "running", "waits_for": ""}
        if back:
            text = f"{back} is back" + (f" and goes on after step {step}" if step else "")
            self.record("joined", text, {"peer": back}, **values)
        else:
            self.record("started", "started", started_at=now(), **values)

    def note(self, fact: Fact) -> None:
        """A fact of the role. Raises LocalProtocolError for an epoch out of turn, StorageFailed for a full disk."""
        clock = time.monotonic()
        match fact:
            case StepDone(step, steps, epoch, dropped):
                self._step = step
                if clock - self._step_stored_at >= STEP_EVENT_SECONDS or step == steps:
                    self._step_stored_at = clock
                    data = {"step": step, "steps": steps, "epoch": epoch, "dropped": dropped}
                    text = f"step {step} of {steps}, epoch {epoch}"
                    text += f"; {dropped} updates left out, out of range" if dropped else ""
                    self.record("step", text, data, step=step)
            case EpochDone(epoch, epochs, state, measures):
                if epoch != self._epoch + 1:
                    raise LocalProtocolError(f"the role reports epoch {epoch} after epoch {self._epoch}")
                self._epoch = epoch
                self._models.keep_epoch(self._job, epoch, state)
                text = f"epoch {epoch} of {epochs} done"
                reached: dict[str, Any] = {"epoch": epoch, "epochs": epochs, "measures": finite(measures)}
                self.record("epoch", text, reached, epoch=epoch, step=self._step)
            case RoundDone(number, rounds, state, measures):
                # A party takes part in some rounds only, and twice in one that is repeated.
                if number < self._epoch:
                    raise LocalProtocolError(f"the role reports round {number} after round {self._epoch}")
                self._epoch = self._step = number
                self._models.keep_round(self._job, number, state)
                text = f"round {number} of {rounds} done"
                measured: dict[str, Any] = {"round": number, "rounds": rounds, "measures": finite(measures)}
                self.record("round", text, measured, epoch=number, step=number)
            case Refused() | Warned() | Remark():
                self._remark(fact)

    def note_request(self, text: str, data: dict[str, int], step: int) -> None:
        """What this party's operator asked of a session, before it is answered."""
        self._step = step
        self.record("request", text, data, step=step)

    def record(
        self, kind: str, text: str, data: dict[str, Any] | None = None, words: Words | None = None, **values: Any
    ) -> None:
        """An event with the columns of the job that change with it, and what peers are owed from now on."""
        if kind == "started":
            self._ledger.tell(Event.JOB_AGREED, self._job, specification=self._spec_digest)
        with self._ledger.storing() as passed:
            self._store.record(self._job, kind, text, data, words=words, passed=passed, **values)
        self._note_pause(kind, data or {})

    def keep_words(self, words: Words) -> None:
        """What peers are owed while the job goes on."""
        with self._ledger.storing() as passed:
            self._store.keep_words(self._job, words, passed)

    def tell(self, notices: Iterable[Notice]) -> list[Notice]:
        """Notices of the role, stored with the job; answers all the job has."""
        return self._store.tell(self._job, notices)

    def reveals(self) -> list[dict[str, Any]]:
        """What each side can see of the job, as it was planned."""
        job = self._store.job(self._job)
        return [] if job is None else job.reveals

    def update(self, **values: Any) -> None:
        """Columns of the job that no event tells of."""
        self._store.update(self._job, **values)

    def close(self, ending: StoredEnd) -> None:
        """The last event. Raises StorageFailed."""
        values: dict[str, Any] = {"finished_at": now(), "agreement": None, "step": self._step, "worker_pid": None}
        if not self._end_told:  # a full disk makes it come again
            self._ledger.tell(Event.JOB_ENDED, self._job, state=ending.state, **ending.audited)
            self._end_told = True
        values |= {"state": ending.state, "waits_for": "", "error": ending.error, **ending.values}
        self.record(ending.state, ending.text, ending.error, ending.words, **values)

    def close_in_time(self, ending: StoredEnd, closed: Callable[[], None]) -> None:
        """The same for a job that ended because the disk is full: it is tried again until there is room."""
        try:
            self.close(ending)
        except StorageFailed as error:
            _LOG.warning("job %s: its end is not stored yet: %s", self._job, error)
            again = threading.Timer(CLOSE_AGAIN_SECONDS, self.close_in_time, (ending, closed))
            again.daemon = True
            again.start()
        else:
            closed()

    def _note_pause(self, kind: str, data: Mapping[str, Any]) -> None:
        if kind in PAUSES:
            party = frozenset({data["peer"]})
            self.paused = self.paused | party if kind == "paused" else self.paused - party

    def _remark(self, fact: Refused | Warned | Remark) -> None:
        match fact:
            case Refused(peer, text):
                text = printable(text[:TEXT_LIMIT])
                self.record("refused", f"{peer} was left out: {text}", {"peer": peer})
            case Warned(notice):
                self.record("notice", printable(str(notice)), {"code": notice.code})
                self.tell([notice])
            case Remark(text):
                self.record("progress", text[:TEXT_LIMIT])


def result_of(outcome: Outcome) -> dict[str, Any]:
    """What a role returned, beside its state, as it is stored and shown."""
    return {
        "metrics": {name: value for name, value in finite(outcome.metrics).items() if value is not None},
        "result_digest": outcome.result_digest,
        "operations": outcome.operations,
        "series": {name: [_finite(value) for value in values] for name, values in outcome.series.items()},
    }


def finite(measures: Mapping[str, float]) -> dict[str, float | None]:
    """As JSON can hold them."""
    return {name: _finite(value) for name, value in measures.items()}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
