"""Carries what this party says to one peer: in order, the same bytes again until they are received or time is up.

How a job ends is sent apart from the rest (`owe`): it outlives the peer's timeout, and is sent again until the peer has
received it.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

import msgspec

from parties.errors import (
    EndingUnknown,
    JobOver,
    NoSuchJob,
    PeerMisnamed,
    PeerStorageFailed,
    PeerUnreachable,
    PeerWireVersion,
    ProposalOutOfTime,
    SequenceGap,
    StaleAttempt,
    StorageFailed,
    TooManyJobs,
    UnknownSender,
)
from parties.trust.bundle import SignedReceipt
from parties.wire.envelopes import ENVELOPES_LIMIT, UNREADABLE, WIRE_VERSION, Envelope
from parties.wire.last_words import WORD_DAYS, LastWords, Word
from parties.wire.receipts import Receipt, Reply
from parties.wire.transport import Transport, TransportFailedError
from parties.worker.mailbox import LIMIT_BYTES
from vfl.errors import JobError, PeerAborted, PeerTimeout, RemoteProtocolError
from vfl.spec.sections import PartyId

FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.05, 1.0
HEARTBEATS_PER_TIMEOUT, LONGEST_SILENCE_SECONDS = 3, 15.0
"""How often a peer we wait for, without sending anything, is asked whether it is there and runs our jobs. Proxies cut
connections that are silent for longer."""
FAREWELL_SECONDS = 2.0
DETAIL_LIMIT = 400
ACCEPTED = 202


class Books(Protocol):
    """Where this party writes down what leaves, and what peers have signed for."""

    def flush(self) -> None:
        """All that was recorded before is stored now. Raises StorageFailed."""

    def acknowledged(self, receipt: SignedReceipt) -> None: ...


_Posted: TypeAlias = tuple[int, Reply] | str | StorageFailed
"""The status and the reply, or what went wrong: on the way, or here before anything left."""


@dataclass
class _Trouble:
    """The envelopes on top could not be brought: since when, and when they are tried again."""

    first: Envelope | None
    since: float
    again_at: float = 0.0
    delay: float = FIRST_DELAY_SECONDS


class Outbox:
    """One peer's outbox and the thread that empties it."""

    def __init__(
        self,
        peer: PartyId,
        transport: Transport,
        timeout_seconds: float,
        on_failure: Callable[[str, int | None, JobError], None],
        on_received: Callable[[str], None] = lambda _job: None,
        is_receipt: Callable[[Receipt], bool] = lambda _receipt: True,
        books: Books | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_failure` hears of a job, the attempt it was in if that matters, and what went wrong; `on_received` hears
        of a job whose ending the peer has received. `is_receipt` says whether the peer has signed it. Nothing leaves
        before it stands in the `books`. `clock` counts the seconds in which this process could run."""
        self._peer, self._transport, self._timeout, self._on_failure = peer, transport, timeout_seconds, on_failure
        self._on_received, self._is_receipt, self._books, self._clock = on_received, is_receipt, books, clock
        self._silence = min(timeout_seconds / HEARTBEATS_PER_TIMEOUT, LONGEST_SILENCE_SECONDS)
        self._outbox: deque[Envelope] = deque()
        self._held = 0
        self._watched: dict[str, Callable[[], Envelope]] = {}
        self._words = LastWords()
        self._trouble: _Trouble | None = None
        self._heard_at = clock()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._carry, name=f"outbox to {peer}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Ask the peer once, now. Raises PeerUnreachable, PeerWireVersion or PeerMisnamed."""
        answer = self._post([])
        if not isinstance(answer, tuple):
            raise PeerUnreachable(f"{self._peer}'s server cannot be reached: {answer}", safe="Nothing was sent.")
        _, reply = answer
        if reply.wire_version != WIRE_VERSION:
            raise _other_version(self._peer, reply.wire_version)
        if reply.party != self._peer:
            raise PeerMisnamed(f"{reply.party!r} answers at {self._peer}'s address", safe="Nothing was sent.")

    def put(self, envelopes: list[Envelope]) -> None:
        """Never waits; a sender of bodies asks `wait_for_room` first."""
        with self._changed:
            self._outbox.extend(envelopes)
            self._held += sum(envelope.size for envelope in envelopes)
            self._changed.notify_all()

    def put_again(self, envelopes: list[Envelope]) -> None:
        """Those of them that no longer lie here."""
        with self._changed:
            waiting = {id(envelope) for envelope in self._outbox}
            self.put([envelope for envelope in envelopes if id(envelope) not in waiting])

    @property
    def has_room(self) -> bool:
        return self._held < LIMIT_BYTES

    def wait_for_room(self) -> None:
        """Wait while the peer has 64 MiB to receive."""
        with self._changed:
            self._changed.wait_for(lambda: self.has_room or self._closing)

    def watch(self, job: str, question: Callable[[], Envelope]) -> None:
        """While a job runs the peer must stay within reach and know of it, also when we only wait for it."""
        with self._changed:
            self._watched[job] = question
            self._heard_at = self._clock()  # what the peer has to hear before it can be asked may be on its way
            self._changed.notify_all()

    def unwatch(self, job: str) -> None:
        with self._changed:
            self._watched.pop(job, None)

    def forget(self, job: str) -> None:
        """Drop what a job still had to say and stop watching for it; a word that is owed stays."""
        with self._changed:
            self._watched.pop(job, None)
            self._keep(lambda envelope: envelope.header.job != job)

    def owe(self, word: Envelope, *, until_answered: bool = False, since: float | None = None) -> None:
        """Say how a job ends until the peer has received it; or, a question, until `settle` is called."""
        with self._changed:
            self._words.owe(word, since or time.time(), until_answered=until_answered)
            self._changed.notify_all()

    def say_anew(self, word: Envelope) -> None:
        """In place of the same word, signed with another key."""
        with self._changed:
            self._words.replace(word)
            self._changed.notify_all()

    def remind(self, job: str, make: Callable[[], Envelope]) -> None:
        """The peer asks how a job ended: say at once what it is owed, or else what `make` makes."""
        with self._changed:
            self._words.remind(job, make, time.time())
            self._changed.notify_all()

    def settle(self, job: str) -> None:
        """The peer need not hear any more how a job ends."""
        with self._changed:
            self._words.settle(job)

    def close(self) -> None:
        """Last words are tried for two seconds."""
        with self._changed:
            self._closing = True
            self._watched.clear()
            self._changed.notify_all()
        self._thread.join(FAREWELL_SECONDS)
        self._transport.close()

    # What comes next

    def _carry(self) -> None:
        while (due := self._next()) is not None:
            if isinstance(due, Word):
                self._tell(due)
            else:
                self._deliver(due)

    def _next(self) -> Word | list[Envelope] | None:
        """What is due, waited for: a word, the oldest envelopes of one attempt, or questions. None when closed."""
        with self._changed:
            while True:
                self._give_up_old_words()
                now, busy = self._clock(), {envelope.header.job for envelope in self._outbox}
                word = self._words.due(now, busy, closing=self._closing)
                if word is not None:
                    return word
                top = self._outbox[0] if self._outbox else None
                if self._closing and top is None:
                    return None
                due_at = self._words.next_at(busy)
                if top is not None or self._watched:
                    at = self._again_at(top)
                    if at <= now:
                        return self._questions() if top is None else self._batch()
                    due_at.append(at)
                self._changed.wait(max(0.0, min(due_at) - now) if due_at else None)

    def _again_at(self, top: Envelope | None) -> float:
        """When the peer is tried next with what lies on top, or asked about its jobs."""
        if self._trouble is not None and self._trouble.first is not top:
            self._trouble = None if self._trouble.first is not None else _Trouble(top, self._trouble.since)
        if self._trouble is not None and not self._closing:
            return self._trouble.again_at
        return 0.0 if top is not None else self._heard_at + self._silence

    def _batch(self) -> list[Envelope]:
        first = self._outbox[0].header
        batch: list[Envelope] = []
        for envelope in self._outbox:
            same = (envelope.header.job, envelope.header.attempt) == (first.job, first.attempt)
            if len(batch) == ENVELOPES_LIMIT or not same:
                break
            batch.append(envelope)
        return batch

    def _questions(self) -> list[Envelope]:
        """About the jobs not asked about for longest."""
        jobs = list(self._watched)[:ENVELOPES_LIMIT]
        for job in jobs:
            self._watched[job] = self._watched.pop(job)
        return [self._watched[job]() for job in jobs]

    def _give_up_old_words(self) -> None:
        for word in self._words.drop_old():
            error = EndingUnknown(f"{self._peer} did not say within {WORD_DAYS} days how the job ended")
            lost = partial(self._on_failure, word.job, None, error) if word.until_answered else None
            threading.Thread(target=lost or partial(self._on_received, word.job), daemon=True).start()

    # One POST

    def _post(self, envelopes: list[Envelope]) -> _Posted:
        try:
            if self._books is not None and envelopes:
                self._books.flush()
            answer = self._transport.post([piece for envelope in envelopes for piece in envelope.pieces()])
            reply = msgspec.json.decode(answer.body, type=Reply)
        except StorageFailed as error:
            return error
        except TransportFailedError as error:
            return str(error)
        except UNREADABLE:
            if answer.status == UnknownSender.status:
                return "it does not trust this party, or no longer does"
            return "what answers at its address is not a party"
        if not all(map(self._is_receipt, reply.receipts)):
            return "its receipts are not signed with its key"
        self._keep_receipts(envelopes, reply)
        return answer.status, reply

    def _keep_receipts(self, envelopes: list[Envelope], reply: Reply) -> None:
        """Those that are for one of these envelopes: a peer may sign for what nobody has sent it."""
        own = {(e.header.job, e.header.attempt, e.header.sequence + 1, e.digest) for e in envelopes}
        for receipt in reply.receipts:
            if self._books is not None and (receipt.job, receipt.attempt, receipt.next, receipt.last) in own:
                self._books.acknowledged(SignedReceipt(receiver=self._peer, **msgspec.structs.asdict(receipt)))

    def _tell(self, word: Word) -> None:
        answer = self._post([word.envelope])
        unknown = isinstance(answer, tuple) and answer[1].code in {NoSuchJob.code, JobOver.code}
        with self._changed:
            now = self._clock()
            if not isinstance(answer, tuple) or not (answer[0] == ACCEPTED or unknown):
                self._words.put_off(now)
                return
            self._heard_at, again_at = now, now + self._silence
            settled = self._words.received(word, again_at, answered=unknown)
        if settled and word.until_answered:
            self._on_failure(word.job, None, self._refusal(answer[1]))
        elif settled:
            self._on_received(word.job)

    def _deliver(self, batch: list[Envelope]) -> None:
        began = self._clock()
        answer = self._post(batch)
        if isinstance(answer, StorageFailed):  # its own time is over: nothing of these jobs can leave
            self._trouble = None
            self._give_up(batch, answer)
            return
        if isinstance(answer, tuple):
            status, reply = answer
            full = status == StorageFailed.status and batch[0].header.kind == "Proposal"
            if full or (status < 500 and status != 429):
                self._trouble, self._heard_at = None, self._clock()
                self._settle(batch, status, reply)
                return
        self._put_off(batch, began, answer)

    def _put_off(self, batch: list[Envelope], began: float, answer: _Posted) -> None:
        """Try again later; give up where the peer has had its time."""
        top = self._outbox[0] if self._outbox else None
        if batch[0] is not top and (batch[0].header.job not in self._watched or top is not None):
            return  # nobody wants it any more
        before = self._trouble or _Trouble(top, began)
        if isinstance(answer, tuple) and answer[0] == 429:  # alive, and its worker is behind: the deadline bounds this
            before.since = self._clock()
        if self._clock() - before.since > self._timeout or self._closing:
            self._trouble = None
            self._give_up(batch, answer)
            return
        again_at = self._clock() + before.delay
        self._trouble = _Trouble(top, before.since, again_at, min(2 * before.delay, LONGEST_DELAY_SECONDS))

    def _settle(self, batch: list[Envelope], status: int, reply: Reply) -> None:
        """Take off what was received; a refusal ends the job it was about."""
        header = batch[0].header
        received = {(receipt.job, receipt.attempt): receipt.next for receipt in reply.receipts}
        if reply.code == SequenceGap.code and reply.expected is not None:
            received[header.job, header.attempt] = reply.expected
        asked = [envelope.header.job for envelope in batch] if header.kind == "Ask" else []
        with self._changed:
            before = len(self._outbox)
            if status == ACCEPTED:
                self._take_off(batch)
                return
            self._keep(lambda e: e.header.sequence >= received.get((e.header.job, e.header.attempt), 0))
            if reply.code == SequenceGap.code and len(self._outbox) < before:
                return
            self._take_off(batch)
        if asked:
            answered = {job for job, _ in received}
            refused = next((job for job in asked if job not in answered), asked[-1])
            self.unwatch(refused)
            self._on_failure(refused, None, self._refusal(reply))
        else:
            self._on_failure(header.job, header.attempt, self._refusal(reply))

    def _take_off(self, batch: list[Envelope]) -> None:
        """Received, or refused: then it is never tried again."""
        gone = {id(envelope) for envelope in batch}
        with self._changed:
            self._keep(lambda envelope: id(envelope) not in gone)

    def _refusal(self, reply: Reply) -> JobError:
        detail = reply.detail[:DETAIL_LIMIT]
        if reply.code == PeerWireVersion.code and reply.wire_version != WIRE_VERSION:
            return _other_version(self._peer, reply.wire_version)
        by_code: dict[str, JobError] = {
            TooManyJobs.code: TooManyJobs(f"{self._peer} takes no further job of ours now: {detail}"),
            ProposalOutOfTime.code: ProposalOutOfTime(f"{self._peer} does not take the proposal: {detail}"),
            StorageFailed.code: PeerStorageFailed(
                f"{self._peer} cannot store anything now: its disk is full, or its database is locked"
            ),
            NoSuchJob.code: PeerAborted(f"{self._peer} does not run this job (any more)"),
            JobOver.code: JobOver(f"{self._peer} cannot take this party back: {detail}"),
            StaleAttempt.code: StaleAttempt(f"{self._peer} has begun another attempt: {detail}"),
        }
        return by_code.get(reply.code) or RemoteProtocolError(
            f"{self._peer} refused an envelope of this job: {reply.code}: {reply.detail}"[:500]
        )

    def _give_up(self, batch: list[Envelope], answer: _Posted) -> None:
        """Each job decides whether it goes on without the peer; what it does not drop is tried again."""
        with self._changed:
            jobs = {*self._watched, *(envelope.header.job for envelope in batch)}
            if self._closing:
                self._take_off(batch)
        error: JobError
        if isinstance(answer, StorageFailed):
            error = answer
        elif isinstance(answer, str):
            error = PeerTimeout(f"{self._peer} stopped answering for {self._timeout:g} s: {answer}")
        elif answer[1].code == StorageFailed.code:
            error = self._refusal(answer[1])
        else:
            error = PeerTimeout(f"{self._peer} answered {answer[0]} for {self._timeout:g} s, and took nothing")
        for job in jobs:
            self._on_failure(job, None, error)

    def _keep(self, wanted: Callable[[Envelope], bool]) -> None:
        self._outbox = deque(envelope for envelope in self._outbox if wanted(envelope))
        self._held = sum(envelope.size for envelope in self._outbox)
        self._changed.notify_all()


def _other_version(peer: PartyId, version: int) -> PeerWireVersion:
    return PeerWireVersion(f"{peer} speaks wire version {version}, this party {WIRE_VERSION}")
