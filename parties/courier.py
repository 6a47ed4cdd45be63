"""Carries what this party says to one peer: in order, the same bytes again until they are received or time is up."""

import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from parties.channel import ENVELOPES_LIMIT, UNREADABLE, WIRE_VERSION, Envelope
from parties.errors import JobOver, PeerMisnamed, PeerUnreachable, PeerWireVersion, StaleAttempt, TooManyJobs
from parties.mailbox import LIMIT_BYTES
from parties.transport import Transport, TransportFailedError
from vfl.errors import JobError, PeerAborted, PeerTimeout, RemoteProtocolError
from vfl.terms import PartyId

FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.05, 1.0
HEARTBEATS_PER_PATIENCE = 3
"""How often a peer we wait for, without sending anything, is asked whether it is there."""
FAREWELL_SECONDS = 2.0
DETAIL_LIMIT = 400


class Receipt(msgspec.Struct, frozen=True):
    """How far the receiver has come in one direction of one attempt of one job."""

    job: str
    attempt: int
    next: int


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every answer to a POST of envelopes; `code` and `detail` stand in a refusal."""

    party: PartyId
    wire_version: int
    receipts: tuple[Receipt, ...] = ()
    code: str = ""
    detail: str = ""
    expected: int | None = None


class Courier:
    """One peer's outbox and the thread that empties it."""

    def __init__(
        self,
        peer: PartyId,
        transport: Transport,
        patience_seconds: float,
        on_failure: Callable[[str, int | None, JobError], None],
    ) -> None:
        """`on_failure` hears of a job, the attempt it was in if that matters, and what went wrong."""
        self._peer, self._transport, self._patience, self._on_failure = peer, transport, patience_seconds, on_failure
        self._outbox: deque[Envelope] = deque()
        self._held = 0
        self._watched: set[str] = set()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._carry, name=f"courier to {peer}", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Ask the peer once, now. Raises PeerUnreachable, PeerWireVersion or PeerMisnamed."""
        try:
            answer = self._transport.post([])
            reply = msgspec.json.decode(answer.body, type=Reply)
        except TransportFailedError as error:
            raise PeerUnreachable(
                f"{self._peer}'s server cannot be reached: {error}", safe="Nothing was sent."
            ) from error
        except UNREADABLE as error:
            raise PeerUnreachable(
                f"what answers at {self._peer}'s url is not a party", safe="Nothing was sent."
            ) from error
        self._check_version(reply.wire_version)
        if reply.party != self._peer:
            raise PeerMisnamed(f"{reply.party!r} answers at {self._peer}'s url", safe="Nothing was sent.")

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

    def watch(self, job: str) -> None:
        """While a job runs the peer must stay within reach, also when we only wait for it."""
        with self._changed:
            self._watched.add(job)
            self._changed.notify_all()

    def unwatch(self, job: str) -> None:
        with self._changed:
            self._watched.discard(job)

    def forget(self, job: str) -> None:
        """Drop what a job still had to say and stop watching for it."""
        with self._changed:
            self._watched.discard(job)
            self._keep(lambda envelope: envelope.header.job != job)

    def close(self) -> None:
        """Last words are tried for two seconds."""
        with self._changed:
            self._closing = True
            self._watched.clear()
            self._changed.notify_all()
        self._thread.join(FAREWELL_SECONDS)
        self._transport.close()

    def _carry(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._deliver(batch)

    def _next_batch(self) -> list[Envelope] | None:
        """The oldest envelopes of one attempt; none for a heartbeat; None when closed and empty."""
        with self._changed:
            while not self._outbox:
                if self._closing:
                    return None
                if (
                    not self._changed.wait(self._patience / HEARTBEATS_PER_PATIENCE if self._watched else None)
                    and self._watched
                ):
                    return []
            first = self._outbox[0].header
            batch: list[Envelope] = []
            for envelope in self._outbox:
                same = (envelope.header.job, envelope.header.attempt) == (first.job, first.attempt)
                if len(batch) == ENVELOPES_LIMIT or not same:
                    break
                batch.append(envelope)
            return batch

    def _deliver(self, batch: list[Envelope]) -> None:
        pieces = [piece for envelope in batch for piece in envelope.pieces()]
        began, delay = time.monotonic(), FIRST_DELAY_SECONDS
        while True:
            try:
                answer = self._transport.post(pieces)
                if answer.status < 500 and answer.status != 429:
                    self._settle(batch, answer.status, msgspec.json.decode(answer.body, type=Reply))
                    return
                trouble = f"it answers {answer.status}"
                if answer.status == 429:  # alive, and its worker is behind: the job's deadline bounds this
                    began = time.monotonic()
            except TransportFailedError as error:
                trouble = str(error)
            except UNREADABLE:
                trouble = "what answers at its url is not a party"
            if time.monotonic() - began > self._patience or self._closing:
                self._give_up(batch, trouble)
                return
            with self._changed:
                self._changed.wait_for(lambda: self._closing or not self._wants(batch), delay)
                if not self._wants(batch):
                    return
            delay = min(2 * delay, LONGEST_DELAY_SECONDS)

    def _settle(self, batch: list[Envelope], status: int, reply: Reply) -> None:
        """Take off what was received; a refusal ends the job it was about."""
        if not batch:
            return
        header = batch[0].header
        received = {(receipt.job, receipt.attempt): receipt.next for receipt in reply.receipts}
        if reply.code == "sequence_gap" and reply.expected is not None:
            received[header.job, header.attempt] = reply.expected
        with self._changed:
            before = len(self._outbox)
            if status == 202:
                delivered = {id(envelope) for envelope in batch}
                self._keep(lambda envelope: id(envelope) not in delivered)
                return
            self._keep(lambda e: e.header.sequence >= received.get((e.header.job, e.header.attempt), 0))
            if reply.code == "sequence_gap" and len(self._outbox) < before:
                return
        self._take_off(batch)
        self._on_failure(header.job, header.attempt, self._refusal(reply))

    def _take_off(self, batch: list[Envelope]) -> None:
        """A refused envelope is never tried again."""
        refused = {id(envelope) for envelope in batch}
        with self._changed:
            self._keep(lambda envelope: id(envelope) not in refused)

    def _refusal(self, reply: Reply) -> JobError:
        if reply.code == PeerWireVersion.code:
            try:
                self._check_version(reply.wire_version)
            except PeerWireVersion as error:
                return error
        if reply.code == TooManyJobs.code:
            return TooManyJobs(f"{self._peer} takes no further job of ours now: {reply.detail[:DETAIL_LIMIT]}")
        if reply.code == "no_such_job":
            return PeerAborted(f"{self._peer} does not run this job (any more)")
        if reply.code == JobOver.code:
            return JobOver(f"{self._peer} cannot take this party back: {reply.detail[:DETAIL_LIMIT]}")
        if reply.code == StaleAttempt.code:
            return StaleAttempt(f"{self._peer} has begun another attempt: {reply.detail[:DETAIL_LIMIT]}")
        return RemoteProtocolError(f"{self._peer} refused an envelope of this job: {reply.code}: {reply.detail}"[:500])

    def _check_version(self, version: int) -> None:
        if version != WIRE_VERSION:
            raise PeerWireVersion(f"{self._peer} speaks wire version {version}, this party {WIRE_VERSION}")

    def _give_up(self, batch: list[Envelope], trouble: str) -> None:
        with self._changed:
            jobs = self._watched | {envelope.header.job for envelope in batch}
        self._take_off(batch)
        text = f"{self._peer} stopped answering for {self._patience:g} s: {trouble}"
        for job in jobs:
            self._on_failure(job, None, PeerTimeout(text))

    def _wants(self, batch: list[Envelope]) -> bool:
        if not batch:
            return bool(self._watched)
        return bool(self._outbox) and self._outbox[0] is batch[0]

    def _keep(self, wanted: Callable[[Envelope], bool]) -> None:
        self._outbox = deque(envelope for envelope in self._outbox if wanted(envelope))
        self._held = sum(envelope.size for envelope in self._outbox)
        self._changed.notify_all()
