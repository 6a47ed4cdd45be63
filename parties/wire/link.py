"""One peer of a job: both directions between it and this party, and whether it is there (`peer_state.py`).

Attempts are numbered for each link alone: 0 is the negotiation, 1 the first run, and every coming back takes a number
higher than any this link has seen, stored before its first byte leaves. So a peer that was away starts afresh without
the others noticing, and nothing of what it said before can be mixed in (ADR 0009).
"""

import functools
import threading
from collections.abc import Callable

from parties.errors import StaleAttempt, TooManyJoins
from parties.trust.signer import Signer
from parties.wire.control import NEGOTIATION, OPENERS, RUN, Control, encode_control
from parties.wire.door import Door, Recorder
from parties.wire.envelopes import Bytes, Envelope, Header, Incoming
from parties.wire.outbox import Outbox
from parties.wire.peer_state import Peer, PeerState
from parties.wire.rate_limit import Quota
from vfl.spec.sections import PartyId

SKIPPED_ATTEMPTS = 1000
"""How far a peer may count ahead of us: numbers may be skipped, but neither side may use them up."""
LANES_KEPT = 2
"""Attempts whose repeated envelopes are still known as such."""
JOINS, JOINS_PER_SECOND = 8, 0.1


class Link:
    """`receiving` is held while an envelope of this peer is looked at; never take it under the supervisor's lock."""

    def __init__(
        self,
        job: str,
        job_digest: bytes,
        me: Signer,
        peer: PartyId,
        outbox: Outbox,
        recorder: Recorder,
        attempt: int = NEGOTIATION,
    ) -> None:
        self._job, self._signer, self._me, self.peer = job, me, me.name, peer
        self._door = Door(job, job_digest, me, peer, recorder)
        self.outbox = outbox
        self.state = PeerState.ASKED
        self.finished = False
        """Whether its role has returned."""
        self.begun = NEGOTIATION
        """The attempt in which its run last began."""
        self.joins = Quota(JOINS, JOINS_PER_SECOND)
        self.newest = attempt
        """The highest attempt this link has seen, in either direction."""
        self.receiving = threading.Lock()
        self._lock = threading.Lock()
        self.attempt = attempt
        """The one this party speaks in."""
        self._outgoing = self._door.lane(attempt)
        self._opening: list[Envelope] = []
        """What it said first in this attempt: without that the peer takes nothing of what follows."""
        self._incoming: dict[int, Incoming] = {}
        self._unacknowledged: list[Envelope] = []
        self._word: Envelope | None = None

    # What the peer says

    def receive(self, envelope: Envelope, check: Callable[[Envelope], None]) -> tuple[int, bytes, Bytes | None]:
        """(the number due next, the digest of the last header, the whole body when its last part has come); a
        repetition has no effect.

        Raises EnvelopeRefused, also what `check` raises for an envelope that is new.
        """
        header, body = envelope.header, None
        lane = self._lane_of(header)
        if lane.is_new(envelope):
            if header.attempt < self.newest:
                raise StaleAttempt(f"attempt {header.attempt} is over, {self.newest} runs")
            check(envelope)
            body = lane.accept(envelope)
            self._door.take(envelope)
            self._incoming[header.attempt] = lane
            for old in sorted(self._incoming)[:-LANES_KEPT]:
                del self._incoming[old]
            with self._lock:
                self.newest = max(self.newest, header.attempt)
        return lane.expected, lane.last_digest, body

    def receive_uncounted(self, envelope: Envelope) -> None:
        """A last word, a question, or what comes when the job is over or goes on without the peer."""
        self._door.take_uncounted(envelope)

    @property
    def begun_bytes(self) -> int:
        """What a message of the peer that is not whole yet will hold at most."""
        lane = self._incoming.get(self.begun)
        return lane.begun_bytes if lane is not None and self.state is PeerState.LIVE else 0

    def check_join(self, header: Header) -> None:
        """Raises StaleAttempt, TooManyJoins."""
        if header.attempt <= self.begun:
            raise StaleAttempt(f"attempt {self.begun} of {self.peer} has begun, {header.attempt} is not newer")
        if not self.joins.take():
            raise TooManyJoins(f"{self.peer} comes back to this job faster than {self._me} takes it")

    def _lane_of(self, header: Header) -> Incoming:
        lane = self._incoming.get(header.attempt)
        if lane is not None:
            return lane
        if header.attempt == self.begun:
            return Incoming()
        if header.kind not in OPENERS or header.sequence:
            raise StaleAttempt(f"attempt {header.attempt} has not begun")
        if header.attempt > self.newest + SKIPPED_ATTEMPTS:
            raise StaleAttempt(f"attempt {header.attempt} is too far ahead of {self.newest}")
        return Incoming()

    # What this party says

    def say(self, control: Control, attempt: int | None = None) -> None:
        """A word about the job, in a newer attempt if one is named."""
        with self._lock:
            self._say(control, attempt)

    def send_until_acknowledged(self, control: Control, attempt: int | None = None) -> None:
        """The same, with a word that `retransmit` repeats while the peer is out of reach, with those before it."""
        with self._lock:
            self._unacknowledged = [*self._unacknowledged, *self._say(control, attempt)]

    def retransmit(self) -> None:
        # What a key has signed that counts no more is refused, also as a repetition; most of it was received long ago.
        signed = [each for each in self._unacknowledged if self._signer.counts(each.header.key)]
        self.outbox.put_again(signed)

    def take_up(self, sent: list[Envelope], received: list[Envelope]) -> None:
        """Both directions of the negotiation go on where they were when this server went away."""
        with self._lock:
            if sent:
                self._outgoing.go_on_after(sent[-1])
            self._opening, self._unacknowledged = sent[:1], sent
            lane = self._incoming.setdefault(NEGOTIATION, Incoming())
            for envelope in received:
                lane.accept(envelope)

    def word(self, control: Control) -> Envelope:
        """A last word of this party about the job, to be stored before it is handed to `owe`."""
        with self._lock:
            self._word = self._door.last_word(control, max(RUN, self.newest + 1))
            return self._word

    def owe(self, word: Envelope, *, until_answered: bool) -> None:
        """Say a last word that is stored."""
        self.outbox.owe(word, until_answered=until_answered)

    def remind(self) -> None:
        """Say it once more: the peer speaks as if it had not heard."""
        with self._lock:
            if (word := self._word) is not None:
                self.outbox.remind(self._job, lambda: word)

    def watch(self) -> None:
        """The peer must stay within reach and know of the job; the question is made when it is first asked, and again
        when another key signs it."""
        signed_with = functools.cache(lambda _key: self._door.question())
        self.outbox.watch(self._job, lambda: signed_with(self._signer.for_peer(self.peer).key.raw))

    def send(self, kind: str, body: Bytes, holds: Callable[[], bool]) -> None:
        """A message of the role; dropped while the peer is not there, or if `holds` no longer does.

        Raises BudgetSpent where it would reveal more than the job may.
        """
        with self._lock:
            if self.state is PeerState.LIVE and holds():
                self.outbox.put(self._door.make(self._outgoing, kind, body))

    # Where the peer stands

    def begin(self, word: Control | None) -> None:
        """Its run begins, in the attempt it was agreed in, with this word before any message of the role.

        A Detach that crossed the peer's Join has opened this attempt, and `leave` may have dropped it. Whether it
        arrived cannot be known, so the same bytes go ahead of the word: who has them takes them for a repetition.
        """
        with self._lock:
            self._renew(max(RUN, self.newest))
            if word is not None:
                self.outbox.put_again(self._opening)
                self._say(word, None)
            self.state, self.begun, self.finished = PeerState.LIVE, self.attempt, False

    def is_running(self, attempt: int) -> bool:
        return self.state is PeerState.LIVE and attempt == self.begun

    def is_about_to_run(self, attempt: int) -> bool:
        """The peer has begun this attempt, and here its worker is still prepared."""
        return self.state is PeerState.AGREED and attempt == self.newest > self.begun

    def view(self) -> Peer:
        """As it stands now."""
        return Peer(self.peer, self.state, self.finished, self.attempt, self.begun, self.newest)

    def leave(self, presence: PeerState) -> None:
        """Nothing more is sent in this attempt, and what still lies in the outbox is dropped."""
        with self._lock:
            self.state, self._unacknowledged = presence, []
            self.outbox.forget(self._job)
        for lane in list(self._incoming.values()):
            lane.drop_parts()

    def _say(self, control: Control, attempt: int | None) -> list[Envelope]:
        if attempt is not None:
            self._renew(attempt)
        envelopes = self._door.make(self._outgoing, control.kind, encode_control(control))
        self._opening = self._opening or envelopes
        self.outbox.put(envelopes)
        return envelopes

    def _renew(self, attempt: int) -> None:
        if attempt != self.attempt:
            self.attempt, self._outgoing, self._opening = attempt, self._door.lane(attempt), []
            self.newest = max(self.newest, attempt)
