"""What this party's operator sees of one job: events, the last step, and what travelled. Cheap while the job runs."""

import logging
import threading
import time
from typing import Any

from parties.errors import StorageFailed
from parties.registry import Registry
from parties.store import Count, Store
from vfl.errors import LocalProtocolError
from vfl.reports import EpochDone, Fact, Progress, StepDone
from vfl.terms import PartyId

STEP_EVENT_SECONDS = 0.1
TRAFFIC_SECONDS = 0.5
TEXT_LIMIT = 500
CLOSE_AGAIN_SECONDS = 2.0

_LOG = logging.getLogger("parties")


class Journal:
    """Counters live in memory and reach the database a few times a second, with the role's facts."""

    def __init__(self, job: str, store: Store, registry: Registry) -> None:
        self._job, self._store, self._registry = job, store, registry
        self._counts: dict[tuple[str, str, str], Count] = {}
        self._counting = threading.Lock()
        self._step = self._epoch = 0
        self._step_stored_at = self._traffic_stored_at = 0.0

    def sent(self, peer: PartyId, kind: str, payload_bytes: int) -> None:
        self._count(("sent", peer, kind), payload_bytes)

    def received(self, peer: PartyId, kind: str, payload_bytes: int) -> None:
        self._count(("received", peer, kind), payload_bytes)

    def note(self, fact: Fact) -> None:
        """A fact of the role. Raises LocalProtocolError for an epoch out of turn, StorageFailed for a full disk."""
        clock = time.monotonic()
        match fact:
            case StepDone(step, steps, epoch):
                self._step = step
                if clock - self._step_stored_at >= STEP_EVENT_SECONDS or step == steps:
                    self._step_stored_at = clock
                    data = {"step": step, "steps": steps, "epoch": epoch}
                    self._store.record(self._job, "step", f"step {step} of {steps}, epoch {epoch}", data, step=step)
            case EpochDone(epoch, epochs, state):
                if epoch != self._epoch + 1:
                    raise LocalProtocolError(f"the role reports epoch {epoch} after epoch {self._epoch}")
                self._epoch = epoch
                self._registry.keep_epoch(self._job, epoch, state)
                text, data = f"epoch {epoch} of {epochs} done", {"epoch": epoch, "epochs": epochs}
                self._store.record(self._job, "epoch", text, data, epoch=epoch, step=self._step)
            case Progress(text):
                self._store.record(self._job, "progress", text[:TEXT_LIMIT])
        if clock - self._traffic_stored_at >= TRAFFIC_SECONDS:
            self._traffic_stored_at = clock
            self._keep_traffic()

    def record(self, kind: str, text: str, data: dict[str, Any] | None = None, **values: Any) -> None:
        """An event with the columns of the job that change with it."""
        self._store.record(self._job, kind, text, data, **values)

    def close(self, kind: str, text: str, data: dict[str, Any] | None, values: dict[str, Any]) -> None:
        """The last event, with the last counters before it.

        A job that ended because the disk is full cannot store even that: it is tried again until there is room.
        """
        try:
            self._keep_traffic()
            self._store.record(self._job, kind, text, data, step=self._step, worker_pid=None, **values)
        except StorageFailed as error:
            _LOG.warning("job %s: its end is not stored yet: %s", self._job, error)
            again = threading.Timer(CLOSE_AGAIN_SECONDS, self.close, (kind, text, data, values))
            again.daemon = True
            again.start()

    def _count(self, key: tuple[str, str, str], payload_bytes: int) -> None:
        with self._counting:
            count = self._counts.setdefault(key, Count())
            count.messages += 1
            count.payload_bytes += payload_bytes

    def _keep_traffic(self) -> None:
        with self._counting:
            counts = {key: Count(count.messages, count.payload_bytes) for key, count in self._counts.items()}
        self._store.keep_traffic(self._job, counts)
