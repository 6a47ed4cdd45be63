"""A leaf of the audit log: one thing that happened at this party. This format alone in the log is the project's own.

A leaf is a MessagePack map of all its fields in the order of the class, `detail` sorted by name; decoding and encoding
again gives the same bytes. It holds facts and digests, never a value of a table. docs/protocols/audit_log.md explains
fields and events; `verifier.py` reads leaves with code of its own.
"""

import re
from enum import StrEnum

import msgspec

from parties.trust.errors import MalformedLeaf

LEAF_LIMIT = 16 << 10
SIGNATURE_BYTES = 64
LATE = "late"
"""In the detail of a received envelope that came when its job was over, or went on without its sender: its number need
not follow the one before."""
_DETAIL_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


class Event(StrEnum):
    SENT = "sent"
    """An envelope was made, and leaves after this leaf is stored."""
    RECEIVED = "received"
    """An envelope passed its checks, and is acknowledged after this leaf is stored."""
    REFUSED = "refused"
    """An envelope or a request of a peer did not pass a check; the detail names the error code."""
    PEER_ADDED = "peer_added"
    """Operators of both sides confirmed each other's key."""
    PEER_REMOVED = "peer_removed"
    """From here on nothing of this peer is taken."""
    KEY_ROTATED = "key_rotated"
    """A party, this one or a peer, has a new identity key."""
    GRANT_CREATED = "grant_created"
    """This party allows a peer to use a data set for a purpose."""
    GRANT_REVOKED = "grant_revoked"
    JOB_AGREED = "job_agreed"
    """All parties have signed the specification; the detail names its digest and what it may reveal."""
    JOB_APPROVED = "job_approved"
    """This party's operator, or a standing grant, agreed to a job."""
    JOB_REJECTED = "job_rejected"
    JOB_ENDED = "job_ended"
    """The detail says how."""
    MODEL_IMPORTED = "model_imported"
    """A half of a model that this party had exported is held here again."""
    EXPORTED = "exported"
    """A bundle of this log was written."""
    RESTORED = "restored"
    """The database was put back from a backup; the detail says what the peers' heads show to be missing."""


ENVELOPE_EVENTS = frozenset({Event.SENT, Event.RECEIVED})


class Leaf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int = 1
    time_ms: int
    """Unix milliseconds, by this party's clock."""
    event: Event
    job: str = ""
    peer: str = ""
    """The other party, where one is concerned."""
    header: bytes = b""
    """Of an envelope, as it travelled."""
    signature: bytes = b""
    """By the envelope's sender, over the header."""
    detail: dict[str, str | int] = {}


def encode(leaf: Leaf) -> bytes:
    """Raises MalformedLeaf, so that nothing enters a log that its verifier would refuse."""
    encoded = _ENCODER.encode(leaf)
    decode(encoded)
    return encoded


def decode(encoded: bytes) -> Leaf:
    """Raises MalformedLeaf."""
    try:
        leaf = _DECODER.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedLeaf(f"a leaf of the audit log cannot be read: {error}") from error
    has_envelope = len(leaf.signature) == SIGNATURE_BYTES and leaf.header and leaf.job and leaf.peer
    if leaf.event in ENVELOPE_EVENTS:
        is_whole = bool(has_envelope)
    else:
        is_whole = not (leaf.header or leaf.signature) or (leaf.event is Event.REFUSED and bool(has_envelope))
    if not is_whole:
        raise MalformedLeaf(f"a leaf of event {leaf.event} does not carry the envelope that it should, or one too much")
    if leaf.version != 1 or leaf.time_ms < 0 or not all(map(_DETAIL_NAME.fullmatch, leaf.detail)):
        raise MalformedLeaf("a leaf has an unknown version, a negative time, or a detail of an odd name")
    if len(encoded) > LEAF_LIMIT or _ENCODER.encode(leaf) != encoded:
        raise MalformedLeaf("a leaf is too long, or is not encoded as it should be")
    return leaf


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(Leaf)
