"""Bytes to envelopes and back, and every check an envelope passes (envelopes.md; its numbers are the comments here).

    envelope = u16 length, header, signature, body          a POST carries up to 16 of them, each checked alone

The header is a closed MessagePack struct. It names the body by its SHA-256 and the envelope before it by the SHA-256 of
that header as sent, so one number stands for all that was said before. Each direction of a link counts from 0 in every
attempt. Bodies above 4 MiB travel as parts; a message of less than 1 KiB travels with 16 random bytes behind it, so
that nobody who reads its digest in an audit log can find the body by guessing. The signature is made with the sender's
identity key over the header as it travels: nothing is encoded again to be verified.
"""

import hashlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from parties.errors import (
    BrokenChain,
    EnvelopeTooLarge,
    EnvelopeWireVersion,
    Equivocation,
    MailboxFull,
    MalformedEnvelope,
    SequenceGap,
    TamperedBody,
    UnknownSender,
)
from parties.trust.identity import SIGNATURE_BYTES, Domain
from parties.trust.signer import Signer
from vfl.spec.sections import PartyId

WIRE_VERSION = 7
HEADER_LIMIT = 4 << 10
PART_LIMIT = 4 << 20
PARTS_LIMIT = 256
ENVELOPES_LIMIT = 16
CONTROL_LIMIT = 64 << 10
POST_LIMIT = 80 << 20
"""Sixteen full parts and room for their headers."""
UNASKED_BYTES = 2 + HEADER_LIMIT + SIGNATURE_BYTES + CONTROL_LIMIT
"""What is read of a POST before its sender is known to have more to say: a proposal."""
DIGEST_BYTES = 32
SALTED_BELOW, SALT_BYTES = 1 << 10, 16
NO_ENVELOPE = bytes(DIGEST_BYTES)

LAST_NUMBER = (1 << 53) - 1
"""Of attempts and of envelopes: every reader of a receipt and of a leaf can count further."""
LATEST_TIME = 1e11
"""Of `sent_at`: in the year 5138."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding an unknown sender's bytes can raise: the second for text that is not UTF-8."""

Bytes: TypeAlias = bytes | memoryview


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an envelope says about itself; encoded once, and checked as the bytes that travelled."""

    wire_version: int
    job: str
    job_digest: bytes
    """SHA-256 of the job's specification."""
    attempt: int
    """0 is the negotiation, a run counts from 1."""
    sender: PartyId
    receiver: PartyId
    key: bytes
    """SHA-256 of the sender's identity key."""
    kind: str
    sequence: int
    previous: bytes
    part: int
    """From 1 to `parts`."""
    parts: int
    body_bytes: int
    """As it travels, with its salt."""
    salt_bytes: int
    """0 or 16: random bytes at the end of the body that are no part of the message."""
    body_digest: bytes
    sent_at: float
    """Unix seconds; informative."""


class _Version(msgspec.Struct, frozen=True):
    """The one field that every wire version has, read before the rest."""

    wire_version: int


@dataclass(frozen=True, slots=True)
class Envelope:
    header: Header
    encoded: Bytes
    """The header as it travels."""
    signature: bytes
    """64 bytes."""
    digest: bytes
    """SHA-256 of the header as it travels: the next envelope names it."""
    body: Bytes

    @property
    def size(self) -> int:
        return 2 + len(self.encoded) + SIGNATURE_BYTES + len(self.body)

    @property
    def message(self) -> Bytes:
        """The body without its salt."""
        return self.body[: self.header.body_bytes - self.header.salt_bytes]

    def as_sent(self) -> bytes:
        return b"".join(self.pieces())

    def pieces(self) -> tuple[Bytes, ...]:
        return len(self.encoded).to_bytes(2, "big"), self.encoded, self.signature, self.body


class Outgoing:
    """One direction of a link in one attempt, at its sender. Used by one thread at a time."""

    def __init__(self, job: str, job_digest: bytes, attempt: int, sender: Signer, receiver: PartyId) -> None:
        self._job, self._job_digest, self._attempt = job, job_digest, attempt
        self._sender, self._receiver = sender, receiver
        self._sequence = 0
        self._previous = NO_ENVELOPE

    def go_on_after(self, last: Envelope) -> None:
        """What was said before, up to this one, was said by an earlier process."""
        self._sequence, self._previous = last.header.sequence + 1, last.digest

    def seal(self, kind: str, body: Bytes) -> list[Envelope]:
        """One message as numbered envelopes. Raises EnvelopeTooLarge."""
        salt = secrets.token_bytes(SALT_BYTES) if len(body) < SALTED_BELOW else b""
        body = b"".join((body, salt)) if salt else body
        parts = [body] if len(body) <= PART_LIMIT else split(memoryview(body), PART_LIMIT)
        if len(parts) > PARTS_LIMIT:
            raise EnvelopeTooLarge(f"{kind} has {len(body)} bytes, more than {PARTS_LIMIT} parts of {PART_LIMIT}")
        return [self._envelope(kind, number, len(parts), part, len(salt)) for number, part in enumerate(parts, 1)]

    def _envelope(self, kind: str, part: int, parts: int, body: Bytes, salt_bytes: int) -> Envelope:
        sender = self._sender.for_peer(self._receiver)
        header = Header(
            wire_version=WIRE_VERSION,
            job=self._job,
            job_digest=self._job_digest,
            attempt=self._attempt,
            sender=sender.name,
            receiver=self._receiver,
            key=sender.key.digest,
            kind=kind,
            sequence=self._sequence,
            previous=self._previous,
            part=part,
            parts=parts,
            body_bytes=len(body),
            salt_bytes=salt_bytes,
            body_digest=hashlib.sha256(body).digest(),
            sent_at=time.time(),
        )
        encoded = _ENCODER.encode(header)
        self._sequence += 1
        self._previous = hashlib.sha256(encoded).digest()
        return Envelope(header, encoded, sender.sign(Domain.ENVELOPE, encoded), self._previous, body)


class Incoming:
    """One direction of a link in one attempt, at its receiver. Used by one thread at a time."""

    def __init__(self) -> None:
        self._seen = bytearray()  # digests of accepted headers, 32 bytes each
        self._parts: list[Bytes] = []
        self._last: Header | None = None

    @property
    def begun_bytes(self) -> int:
        """What a message that is not whole yet will hold at most."""
        return self._last.parts * PART_LIMIT if self._parts and self._last else 0

    def drop_parts(self) -> None:
        """Nothing more of this attempt counts."""
        self._parts = []

    @property
    def expected(self) -> int:
        return len(self._seen) // DIGEST_BYTES

    @property
    def last_digest(self) -> bytes:
        """Of the header that was accepted last."""
        return self._digest(self.expected - 1)

    def is_new(self, envelope: Envelope) -> bool:
        """False for a repetition of what was accepted before.

        Raises SequenceGap, Equivocation, BrokenChain, MalformedEnvelope.
        """
        header, expected = envelope.header, self.expected
        # (7) sequence: expected, seen before, or a gap
        if header.sequence > expected:
            gap = SequenceGap(f"envelope {header.sequence} came where {expected} was due")
            gap.expected = expected
            raise gap
        if header.sequence < expected:
            if self._digest(header.sequence) != envelope.digest:
                raise Equivocation(f"{header.sender} sent two different envelopes of number {header.sequence}")
            return False
        if header.previous != self._digest(expected - 1):
            raise BrokenChain(f"envelope {header.sequence} does not name the one before it")
        begun = self._last if self._parts else None
        follows = (begun.kind, begun.part + 1, begun.parts) if begun else (header.kind, 1, header.parts)
        if (header.kind, header.part, header.parts) != follows:
            raise MalformedEnvelope(f"part {header.part} of {header.parts} of {header.kind} does not follow")
        return True

    def accept(self, envelope: Envelope) -> Bytes | None:
        """Advance; answers the whole body when its last part is here."""
        # (10) the position: from here on a repetition has no effect
        self._seen += envelope.digest
        self._last = envelope.header
        self._parts.append(envelope.message)
        if envelope.header.part < envelope.header.parts:
            return None
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        return body

    def _digest(self, sequence: int) -> bytes:
        at = sequence * DIGEST_BYTES
        return bytes(self._seen[at : at + DIGEST_BYTES]) if sequence >= 0 else NO_ENVELOPE


class EnvelopeReader:
    """The envelopes of one POST as its bytes come in, one after the other, so that those before a broken one count.

    What it raises: MalformedEnvelope, EnvelopeWireVersion, UnknownSender, EnvelopeTooLarge.
    """

    def __init__(self, me: PartyId) -> None:
        self._me = me
        self._bytes = bytearray()
        self._taken = 0
        self._head: Envelope | None = None
        self._dropped_of_body: int | None = None
        """Bytes of the body that were let go; None where it is kept."""

    def add(self, piece: Bytes) -> None:
        if self._head is not None and self._dropped_of_body is not None:
            dropped = min(len(piece), self._head.header.body_bytes - self._dropped_of_body)
            self._dropped_of_body += dropped
            piece = piece[dropped:]
        self._bytes += piece

    @property
    def is_due(self) -> bool:
        """Whether so much is here that the next step should be made before more comes."""
        is_kept = self._head is not None and self._dropped_of_body is None
        return len(self._bytes) >= (self._head.header.body_bytes if is_kept and self._head else UNASKED_BYTES)

    def head(self) -> Envelope | None:
        """The next envelope without its body, once its header is here."""
        length = int.from_bytes(self._bytes[:2], "big")
        if self._head is not None or len(self._bytes) < 2:
            return self._head
        # (1) header frame
        if not 0 < length <= HEADER_LIMIT:
            raise MalformedEnvelope(f"a header of {length} bytes does not fit")
        if len(self._bytes) < 2 + length + SIGNATURE_BYTES:
            return None
        if self._taken == ENVELOPES_LIMIT:
            raise MalformedEnvelope(f"a POST carries at most {ENVELOPES_LIMIT} envelopes")
        encoded = bytes(self._bytes[2 : 2 + length])
        header = _read_header(encoded, self._me)
        if not 0 <= header.body_bytes <= PART_LIMIT:
            raise EnvelopeTooLarge(f"a body of {header.body_bytes} bytes is more than the {PART_LIMIT} of one part")
        signature = bytes(self._bytes[2 + length : 2 + length + SIGNATURE_BYTES])
        del self._bytes[: 2 + length + SIGNATURE_BYTES]
        self._dropped_of_body = None
        self._head = Envelope(header, encoded, signature, hashlib.sha256(encoded).digest(), b"")
        return self._head

    def drop_body(self) -> None:
        """The next envelope's body is not worth keeping."""
        assert self._head is not None  # noqa: S101 - asked for after `head`
        self._dropped_of_body = min(len(self._bytes), self._head.header.body_bytes)
        del self._bytes[: self._dropped_of_body]

    def take(self) -> Envelope | None:
        """The next envelope, once all of it has come; without its body where that was dropped."""
        if (head := self.head()) is None:
            return None
        size, dropped = head.header.body_bytes, self._dropped_of_body
        if (len(self._bytes) if dropped is None else dropped) < size:
            return None
        self._head, self._taken = None, self._taken + 1
        if dropped is not None:
            return head
        body = bytes(self._bytes[:size])
        del self._bytes[:size]
        return Envelope(head.header, head.encoded, head.signature, head.digest, body)

    def end(self) -> None:
        """Nothing more comes."""
        if self._head is not None:
            raise MalformedEnvelope("the body is shorter than its header says")
        if self._bytes:
            raise MalformedEnvelope("the header is shorter than its frame says")


def read_post(post: bytes, me: PartyId) -> Iterator[Envelope]:
    """The envelopes of a POST that is here as a whole. Raises what EnvelopeReader raises."""
    reader = EnvelopeReader(me)
    reader.add(post)
    while (envelope := reader.take()) is not None:
        yield envelope
    reader.end()


def _read_header(encoded: bytes, me: PartyId) -> Header:
    try:
        # (3) before (2): another version's header may have another shape
        version = _VERSION_DECODER.decode(encoded).wire_version
        if version != WIRE_VERSION:
            raise EnvelopeWireVersion(f"{me} speaks wire version {WIRE_VERSION}, the envelope is of version {version}")
        # (2) header decodes
        header = _DECODER.decode(encoded)
        is_canonical = _ENCODER.encode(header) == encoded
    except UNREADABLE as error:
        raise MalformedEnvelope(f"the header cannot be read: {error}") from error
    if not is_canonical:  # what nobody can read in another way is what an audit log may hold
        raise MalformedEnvelope("the header is not written as it should be")
    # (3) receiver is me
    if header.receiver != me:
        raise UnknownSender(f"this is {me}, not {header.receiver!r}")
    numbers = (header.attempt, header.sequence, header.part - 1, header.parts - header.part, PARTS_LIMIT - header.parts)
    digests = (header.previous, header.body_digest, header.job_digest, header.key)
    salt_fits = header.salt_bytes == 0 or (header.salt_bytes == SALT_BYTES <= header.body_bytes and header.parts == 1)
    is_countable = max(header.attempt, header.sequence) < LAST_NUMBER and 0 <= header.sent_at <= LATEST_TIME
    if min(numbers) < 0 or {len(digest) for digest in digests} != {DIGEST_BYTES} or not (salt_fits and is_countable):
        raise MalformedEnvelope("the header contradicts itself")
    return header


def check_body(envelope: Envelope, limit_bytes: int = PART_LIMIT) -> None:
    """Raises EnvelopeTooLarge, TamperedBody; MailboxFull where the body was let go and is wanted after all."""
    # (8) length and SHA-256 of the body; the frame it came in has the length its header says
    if envelope.header.body_bytes - envelope.header.salt_bytes > limit_bytes:
        raise EnvelopeTooLarge(f"{envelope.header.kind} has more than {limit_bytes} bytes")
    if len(envelope.body) < envelope.header.body_bytes:
        raise MailboxFull("there was no place for the body when it came")
    if hashlib.sha256(envelope.body).digest() != envelope.header.body_digest:
        raise TamperedBody(f"the body of envelope {envelope.header.sequence} is not what its header names")


def split(body: memoryview, size: int) -> list[Bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Header)
_VERSION_DECODER = msgspec.msgpack.Decoder(_Version)
