"""The one door between this party and one peer of a job: every envelope is made or taken in here, and recorded once.

Out: a message is recorded when it is made, and what it reveals is spent, before its envelopes are handed to the outbox.
Their bytes may travel several times.
In: an envelope is recorded when it has passed its checks, before anything follows of it. One that is repeated is not
recorded again: a numbered envelope is known by its number, one outside the count by the digest of the last of its kind.
Of an envelope that is refused nothing is counted; its sender hears why (docs/protocols/envelopes.md).
"""

from collections.abc import Sequence
from typing import Protocol

from parties.trust.signer import Signer
from parties.wire.control import LAST_WORDS, NEGOTIATION, Ask, Control, Refusal, encode_control
from parties.wire.envelopes import Bytes, Envelope, Outgoing
from vfl.spec.sections import PartyId

UNCOUNTED = LAST_WORDS | {Ask.__name__}
"""Kinds that stand outside the count of envelopes."""


class Recorder(Protocol):
    """Where the door writes down what passes."""

    def sent(self, message: Sequence[Envelope]) -> None:
        """All parts of one message. Raises BudgetSpent: then nothing of it may leave."""

    def received(self, envelope: Envelope) -> None: ...

    def received_uncounted(self, envelope: Envelope, *, is_late: bool) -> None:
        """Raises MailboxFull: then nothing may follow of it."""

    def is_repeated(self, envelope: Envelope) -> bool: ...


class Door:
    def __init__(self, job: str, job_digest: bytes, me: Signer, peer: PartyId, recorder: Recorder) -> None:
        self._job, self._job_digest, self._me, self._peer = job, job_digest, me, peer
        self._recorder = recorder

    def lane(self, attempt: int) -> Outgoing:
        return Outgoing(self._job, self._job_digest, attempt, self._me, self._peer)

    def make(self, lane: Outgoing, kind: str, body: Bytes) -> list[Envelope]:
        """What leaves. Raises EnvelopeTooLarge, BudgetSpent."""
        envelopes = lane.seal(kind, body)
        self._recorder.sent(envelopes)
        return envelopes

    def last_word(self, word: Control, attempt: int) -> Envelope:
        """How the job ends, outside the count of envelopes; `attempt` is one that this link has not seen."""
        lane = self.lane(NEGOTIATION if isinstance(word, Refusal) else attempt)
        (envelope,) = self.make(lane, word.kind, encode_control(word))
        return envelope

    def question(self) -> Envelope:
        """Does the job still run at the peer? Outside the count of envelopes too."""
        (envelope,) = self.make(self.lane(NEGOTIATION), Ask.__name__, encode_control(Ask()))
        return envelope

    def take(self, envelope: Envelope) -> None:
        """What enters."""
        self._recorder.received(envelope)

    def take_uncounted(self, envelope: Envelope) -> None:
        """The same for what no number tells from a repetition. Raises MailboxFull."""
        if not self._recorder.is_repeated(envelope):
            is_late = envelope.header.kind not in UNCOUNTED
            self._recorder.received_uncounted(envelope, is_late=is_late)
