"""What has left this party and what has entered it: each envelope is recorded once, whatever becomes of its job.

An envelope counts in the traffic of its job and is a leaf of the audit log (docs/protocols/audit_log.md); so is what
else the log tells of. What a message reveals is spent with its leaves (docs/grants.md). All of it lives in memory
first, and reaches the database in one commit: with the next event of the job, when somebody waits for it (`flush`), and
otherwise within `STORE_SECONDS`. An envelope leaves, and is acknowledged, only after a flush; one commit serves all
that wait. The last words of a job are stored with the counters that hold them, so a word that is said again after a
restart has been recorded already.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from parties.errors import MailboxFull, StorageFailed
from parties.storage.database import Store
from parties.storage.lifetime import Balance, BudgetKey
from parties.storage.negotiated import Negotiated
from parties.storage.passed import Passed
from parties.storage.traffic import Count, TrafficKey
from parties.trust.budget import reveals
from parties.trust.bundle import SignedReceipt
from parties.trust.leaves import LATE, Event, Leaf, encode
from parties.wire.control import CONTROLS, Ask
from parties.wire.envelopes import Envelope
from parties.wire.rate_limit import Quota

STORE_SECONDS = 0.5
WORDS = CONTROLS.keys() - {Ask.__name__}
"""About a job; those of one that has not begun are kept."""
REFUSALS, REFUSALS_PER_SECOND = 30, 0.5
"""How many refused envelopes of one peer become leaves."""
UNCOUNTED_AT_ONCE, UNCOUNTED_PER_SECOND = 512, 2.0
"""How many envelopes of one peer that stand outside the count become leaves: more than lie in the outbox of a party
whose jobs all end."""

_LOG = logging.getLogger("parties")


class Ledger:
    """Safe for several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._new = Passed()
        self._on_its_way = Passed()
        """To the database."""
        self._recorded = self._stored = 0
        """Leaves since this process began."""
        self._failures = 0
        self._failure: StorageFailed | None = None
        """What the last attempt to store failed with."""
        self._balances: dict[BudgetKey, Balance] = {}
        """Of the budgets from which something is spent that is not stored yet."""
        self._refusals: dict[str, Quota] = {}
        self._uncounted: dict[str, Quota] = {}
        self._lock = threading.Lock()
        self._storing = threading.Lock()
        """Held while something is stored, so that it is stored in order."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="ledger", daemon=True)
        self._thread.start()

    def sent(self, message: Sequence[Envelope]) -> None:
        """All parts of it are on their way to the outbox. Raises BudgetSpent: then nothing of it may leave."""
        header = message[0].header
        with self._lock:
            self._spend(BudgetKey(header.job, header.receiver, header.kind), sum(map(_payload_bytes, message)))
            for envelope in message:
                self._record(_line("sent", header.receiver, envelope), envelope, {})

    def received(self, envelope: Envelope) -> None:
        with self._lock:
            self._record(_line("received", envelope.header.sender, envelope), envelope, {})

    def received_uncounted(self, envelope: Envelope, *, is_late: bool) -> None:
        """What stands outside the count of envelopes; `is_late`: its number need not follow the one before.

        Nothing else bounds how many of these a peer can sign. Raises MailboxFull: of so many some come again later.
        """
        peer = envelope.header.sender
        with self._lock:
            if not self._uncounted.setdefault(peer, Quota(UNCOUNTED_AT_ONCE, UNCOUNTED_PER_SECOND)).take():
                raise MailboxFull(f"{peer} says more about jobs than can be logged at once")
            self._record(_line("received", peer, envelope), envelope, {LATE: 1} if is_late else {})

    def refused_envelope(self, envelope: Envelope, code: str) -> bool:
        """A peer has signed this envelope, and it did not pass a check; of very many not all are told.

        False for one that names no job: a leaf has no place for it.
        """
        if is_told := bool(envelope.header.job):
            self._refuse(_leaf(Event.REFUSED, envelope.header.sender, envelope, {"code": code}))
        return is_told

    def refused(self, peer: str, code: str, **detail: str) -> None:
        """The same for what a peer asked for otherwise."""
        self._refuse(Leaf(time_ms=_now_ms(), event=Event.REFUSED, peer=peer, detail={"code": code, **detail}))

    def tell(self, event: Event, job: str = "", peer: str = "", **detail: str | int) -> None:
        """Something else has happened."""
        with self._lock:
            self._append(Leaf(time_ms=_now_ms(), event=event, job=job, peer=peer, detail=detail))

    def acknowledged(self, receipt: SignedReceipt) -> None:
        """A peer has signed for what this party sent."""
        with self._lock:
            self._new.take_receipt(receipt)

    def is_repeated(self, envelope: Envelope) -> bool:
        """Whether it is the same as the last of its kind that came from its sender about its job."""
        line = _line("received", envelope.header.sender, envelope)
        with self._lock:
            count = self._new.counts.get(line) or self._on_its_way.counts.get(line)
        return (self._store.last_received(line) if count is None else count.last) == envelope.digest

    def flush(self) -> None:
        """All that was recorded before is stored now. Raises StorageFailed."""
        with self._lock:
            due = self._recorded
        if self._stored < due:
            with self._in_turn():
                if self._stored < due:  # nobody has stored it with what they had
                    self._store_new()

    @contextmanager
    def storing(self) -> Iterator[Passed]:
        """What is not stored yet; it is, when the block has ended without an error."""
        with self._in_turn(), self._taken() as passed:
            yield passed

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._store_quietly()

    def _record(self, line: TrafficKey, envelope: Envelope, detail: dict[str, str | int]) -> None:
        header = envelope.header
        whole = int(header.part == header.parts)  # a message in parts counts when its last part is here
        self._new.counts.setdefault(line, Count()).add(Count(whole, _payload_bytes(envelope), envelope.digest))
        if header.kind in WORDS:
            self._new.words.append(Negotiated(line.job, line.direction, line.peer, envelope.as_sent()))
        self._append(_leaf(Event(line.direction), line.peer, envelope, detail))

    def _spend(self, key: BudgetKey, payload_bytes: int) -> None:
        if reveals(key.message):
            before = self._balances.get(key) or self._store.balance(key)
            self._balances[key] = before.after(payload_bytes)
            self._new.spent[key] += 1

    def _refuse(self, leaf: Leaf) -> None:
        with self._lock:
            if self._refusals.setdefault(leaf.peer, Quota(REFUSALS, REFUSALS_PER_SECOND)).take():
                self._append(leaf)

    def _append(self, leaf: Leaf) -> None:
        self._new.leaves.append(encode(leaf))
        self._recorded += 1

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Whoever waited behind an attempt that failed fails with it: the database has had its time."""
        failures = self._failures
        with self._storing:
            if self._failures > failures and self._failure is not None:
                raise type(self._failure)(str(self._failure)) from self._failure
            yield

    @contextmanager
    def _taken(self) -> Iterator[Passed]:
        with self._lock:
            taken, self._new = self._new, Passed()
            self._on_its_way = taken
        is_stored = False
        try:
            yield taken
            is_stored = True
        except StorageFailed as error:
            self._failures, self._failure = self._failures + 1, error
            raise
        finally:
            with self._lock:
                self._on_its_way = Passed()
                if is_stored:
                    self._stored += len(taken.leaves)
                    self._balances = {key: self._balances[key] for key in self._new.spent}
                else:
                    taken.add(self._new)
                    self._new = taken

    def _store_new(self) -> None:
        with self._taken() as passed:
            self._store.add_passed(passed)

    def _keep(self) -> None:
        """Store what nobody waits for, a few times a second."""
        while not self._closing.wait(STORE_SECONDS):
            self._store_quietly()

    def _store_quietly(self) -> None:
        try:
            with self._in_turn():
                if self._new:
                    self._store_new()
        except StorageFailed as error:  # the next event of a job fails as well, and tells its operator
            _LOG.warning("what has travelled is not stored yet: %s", error)


def _line(direction: str, peer: str, envelope: Envelope) -> TrafficKey:
    return TrafficKey(envelope.header.job, direction, peer, envelope.header.kind)


def _payload_bytes(envelope: Envelope) -> int:
    return envelope.header.body_bytes - envelope.header.salt_bytes


def _leaf(event: Event, peer: str, envelope: Envelope, detail: dict[str, str | int]) -> Leaf:
    return Leaf(
        time_ms=_now_ms(),
        event=event,
        job=envelope.header.job,
        peer=peer,
        header=bytes(envelope.encoded),
        signature=envelope.signature,
        detail=detail,
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
