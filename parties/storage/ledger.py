"""What has left this party and what has entered it: each envelope is recorded once, whatever becomes of its job.

The counters live in memory first. They reach the database with the next event of the job, in the same commit, and
otherwise within `TRAFFIC_SECONDS`: that is what a server which is killed may lose. The last words of a job are stored
with the counters that hold them, so a word that is said again after a restart has been recorded already.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from parties.errors import StorageFailed
from parties.storage.database import Store
from parties.storage.traffic import Count, Counts, TrafficKey
from parties.wire.envelopes import Envelope

TRAFFIC_SECONDS = 0.5

_LOG = logging.getLogger("parties")


class Ledger:
    """Safe for several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counts: dict[TrafficKey, Count] = {}
        self._on_their_way: dict[TrafficKey, Count] = {}
        """To the database."""
        self._lock = threading.Lock()
        self._storing = threading.Lock()
        """Held while something is stored, so that the newest digest is stored last."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="ledger", daemon=True)
        self._thread.start()

    def sent(self, envelope: Envelope) -> None:
        """It is on its way to the outbox."""
        self._record(_line("sent", envelope.header.receiver, envelope), envelope)

    def received(self, envelope: Envelope) -> None:
        self._record(_line("received", envelope.header.sender, envelope), envelope)

    def is_repeated(self, envelope: Envelope) -> bool:
        """Whether it is the same as the last of its kind that came from its sender about its job."""
        line = _line("received", envelope.header.sender, envelope)
        with self._lock:
            count = self._counts.get(line) or self._on_their_way.get(line)
        return (self._store.last_received(line) if count is None else count.last) == envelope.digest

    @contextmanager
    def storing(self, job: str | None = None) -> Iterator[Counts]:
        """What is not stored yet, of one job or of all; it is, when the block has ended without an error."""
        with self._storing:
            with self._lock:
                taken = {line: count for line, count in self._counts.items() if job in {None, line.job}}
                self._on_their_way = taken
                self._counts = {line: count for line, count in self._counts.items() if line not in taken}
            is_stored = False
            try:
                yield taken
                is_stored = True
            finally:
                with self._lock:
                    self._on_their_way = {}
                    for line, count in taken.items() if not is_stored else ():
                        if (later := self._counts.get(line)) is not None:
                            count.add(later)
                        self._counts[line] = count

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._store_all()

    def _record(self, line: TrafficKey, envelope: Envelope) -> None:
        header = envelope.header
        with self._lock:
            whole = int(header.part == header.parts)  # a message in parts counts when its last part is here
            self._counts.setdefault(line, Count()).add(
                Count(whole, header.body_bytes - header.salt_bytes, envelope.digest)
            )

    def _keep(self) -> None:
        """Store what has come, a few times a second."""
        while not self._closing.wait(TRAFFIC_SECONDS):
            self._store_all()

    def _store_all(self) -> None:
        if not self._counts:
            return
        try:
            with self.storing() as counts:
                self._store.add_traffic(counts)
        except StorageFailed as error:  # the next event of a job fails as well, and tells its operator
            _LOG.warning("what has travelled is not stored yet: %s", error)


def _line(direction: str, peer: str, envelope: Envelope) -> TrafficKey:
    return TrafficKey(envelope.header.job, direction, peer, envelope.header.kind)
