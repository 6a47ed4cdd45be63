"""What parties say around a job; what they learn from each other stands in `vfl.messages`.

    label party                                  feature party
    Proposal(spec, commitment to its share) -->  own policy and table
                                            <--  Acceptance(share) or Refusal(reason)
    Begin(all shares)                       -->  opens the commitment; both sides derive the joint seed
                       ... the job's own messages, both ways ...
    Finish                                  <->  the role returned and its result is stored
    Abort(reason)                           <->  envelope 0 of the next attempt: it needs nothing of a broken one

Proposal to Refusal are attempt 0; Begin is envelope 0 of attempt 1. The label party commits to its share of the joint
seed before it sees the feature party's, and the feature party sees that share only after it gave its own, so neither
chooses the batches (trust.md 8). With several feature parties the label party relays their shares.
"""

import enum
import hashlib
import re
from typing import NamedTuple, TypeAlias

import msgspec

from parties.channel import UNREADABLE
from parties.errors import Failure, printable
from vfl.errors import RemoteProtocolError
from vfl.job import JobSpec
from vfl.terms import PartyId

SHARE_BYTES = 32
WORDS = 1000
"""Letters of a peer's reason that are kept."""


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message about a job. Its class name is the envelope's kind."""

    @property
    def kind(self) -> str:
        return type(self).__name__


class Proposal(Control, frozen=True):
    spec: bytes
    """Canonical bytes; their digest is in the envelope's header."""
    commitment: bytes


class Acceptance(Control, frozen=True):
    share: bytes


class Refusal(Control, frozen=True):
    code: str
    message: str
    fix: str


class Begin(Control, frozen=True):
    shares: dict[PartyId, bytes]


class Finish(Control, frozen=True):
    pass


class Abort(Control, frozen=True):
    code: str
    message: str


NEGOTIATION, RUN = 0, 1
"""Attempt numbers: there is one run of a job so far."""


class Side(enum.Enum):
    """Who speaks about a job: the party that proposed it, or one of the others."""

    COORDINATOR = "coordinator"
    OTHER = "other"


class ControlRoute(NamedTuple):
    """Who may send a control message, and in which attempt; None is any."""

    control: type[Control]
    sender: Side | None
    attempt: int | None


CONTROLS: dict[str, ControlRoute] = {
    "Proposal": ControlRoute(Proposal, Side.COORDINATOR, NEGOTIATION),
    "Acceptance": ControlRoute(Acceptance, Side.OTHER, NEGOTIATION),
    "Refusal": ControlRoute(Refusal, Side.OTHER, NEGOTIATION),
    "Begin": ControlRoute(Begin, Side.COORDINATOR, RUN),
    "Finish": ControlRoute(Finish, None, RUN),
    "Abort": ControlRoute(Abort, None, None),
}

Body: TypeAlias = bytes | memoryview


def encode_control(control: Control) -> bytes:
    return msgspec.msgpack.encode(control)


def decode_control(kind: str, body: Body) -> Control:
    """Raises RemoteProtocolError."""
    try:
        control: Control = msgspec.msgpack.decode(body, type=CONTROLS[kind].control)
    except UNREADABLE as error:
        raise RemoteProtocolError(f"the peer's {kind} cannot be read: {error}") from error
    return control


def job_id(spec_digest: bytes, commitment: bytes) -> str:
    """The same at every party: the specification, and the commitment of this proposal of it."""
    return f"{spec_digest.hex()[:16]}-{commitment.hex()[:8]}"


def commitment_to(share: bytes) -> bytes:
    return hashlib.sha256(b"vfl seed commitment" + share).digest()


def check_shares(shares: dict[PartyId, bytes], spec: JobSpec, commitment: bytes, me: PartyId, own: bytes) -> None:
    """A feature party's view of Begin. Raises RemoteProtocolError when the label party changed its mind."""
    coordinator = spec.coordinator
    if set(shares) != set(spec.parties) or {len(share) for share in shares.values()} != {SHARE_BYTES}:
        raise RemoteProtocolError(f"{coordinator} began the job without a share of the seed from every party")
    if shares[me] != own or commitment_to(shares[coordinator]) != commitment:
        raise RemoteProtocolError(f"{coordinator} opened another share of the seed than it had committed to")


def joint_seed(spec: JobSpec, shares: dict[PartyId, bytes]) -> bytes:
    """32 bytes that no party chose alone, or the seed both policies let the specification fix."""
    if isinstance(spec.job.seed, int):
        return hashlib.sha256(f"vfl fixed seed {spec.job.seed}".encode()).digest()
    return hashlib.sha256(b"vfl joint seed" + b"".join(shares[party] for party in spec.parties)).digest()


def failure_at(peer: PartyId, did: str, code: str, message: str, fix: str = "") -> Failure:
    """A peer's reason, as text that is safe to show: its words are bounded and carry no control characters."""
    known = code if re.fullmatch(r"[a-z_]{1,64}", code) else "peer_aborted"
    said, cure = printable(message[:WORDS]), printable(fix[:WORDS])
    return Failure(known, f"{peer} {did} the job: {said}", "Nothing was stored.", cure or _PEER_FIX, peer)


_PEER_FIX = "The peer's operator sees the cause in `vfl job show`."
