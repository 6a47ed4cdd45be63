"""What parties say around a job; what they learn from each other stands in `vfl.messages`.

    coordinator                                  another party
    Proposal(spec, commitment to its share) -->  own policy, table and grants
                                            <--  Waiting: its operator must approve the job first
                                            <--  Acceptance(share) or Refusal(reason)
    Waiting                                 -->  to a party that has agreed: another one's operator must approve it
    Begin(shares)                           -->  opens the commitment; all sides derive the joint seed
                       ... the job's own messages, both ways ...
                                            <--  Finish: the role returned and its result is stored
    Finish                                  -->  everybody's role has: the job is done
    Abort(reason)                           <->  the job is over; from a party that has said Finish, a request
    Ask                                     <->  does this job still run at your side? (with a heartbeat)

    where the job can do without the other party:
    Detach(reason)                           <->  envelope 0 of the next attempt: this one is over, it may join again
                                            <--  Join(share), envelope 0 of the attempt after
    Begin(shares)                           -->  its role starts afresh in that attempt

    where the job goes on from a checkpoint, the same between the coordinator and every party it needs:
    Detach(reason)                           <->  somebody's run is over, so all are
                                            <--  Join(share, checkpoints)
    Begin(shares, checkpoint)               -->  once all have joined: the roles go on from the newest common checkpoint

Refusal, Finish and Abort are last words: they stand outside the count of envelopes, so that they need nothing of what
was said before, mean the same however often they come, and are said again until they are received. The coordinator
alone decides how a job ends once a party has said Finish (docs/protocols/job.md).

Proposal, Acceptance and Join carry the sender's signature over the specification, and Begin those of all that have
agreed: each side stores them before its worker starts (parties/trust/contract.py).

Proposal to Refusal are attempt 0; Begin comes first in attempt 1, or answers Join. The coordinator commits to its share
of the joint seed before it sees another, and the others see that share only after they gave their own, so nobody
chooses the seed alone. A party the job can do without may have answered too late for its share to enter;
it cannot tell a coordinator with a short timeout from one that left it out on purpose.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeAlias

import msgspec

from parties.disclosure import redacted_for_peer
from parties.errors import Failure, known_codes, printable
from parties.trust.contract import Signed
from parties.wire.envelopes import UNREADABLE
from vfl.errors import PeerAborted, RemoteProtocolError
from vfl.message import Grain, Reveals
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

SHARE_BYTES = 32
WORDS = 1000
"""Letters of a peer's reason that are kept."""
REDACTED = "of what depends on a table only that it happened is told"


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message about a job. Its class name is the envelope's kind.

    What it reveals is no value of a table or a model, so the table "what each side could see" has no line for it.
    """

    reveals: ClassVar[Reveals]

    @property
    def kind(self) -> str:
        return type(self).__name__


Share: TypeAlias = Annotated[bytes, msgspec.Meta(min_length=SHARE_BYTES, max_length=SHARE_BYTES)]
"""Of the joint seed, or the commitment to one: these bytes, and no other number of them."""


class Proposal(Control, frozen=True):
    reveals = Reveals("the specification, and that the coordinator would run it with these parties", Grain.NOTHING)
    spec: bytes
    """Canonical bytes; their digest is in the envelope's header."""
    commitment: Share
    signed: Signed


class Waiting(Control, frozen=True):
    reveals = Reveals("that no grant covers the job, and an operator has yet to approve it", Grain.NOTHING)


class Acceptance(Control, frozen=True):
    reveals = Reveals("that this party agrees, and its share of the joint seed", Grain.NOTHING)
    share: Share
    signed: Signed


class Refusal(Control, frozen=True):
    reveals = Reveals("that this party does not agree, and why", Grain.NOTHING, REDACTED)
    code: str
    message: str
    fix: str

    @classmethod
    def of(cls, failure: Failure) -> "Refusal":
        reason = redacted_for_peer(failure)
        return cls(reason.code, reason.message, reason.fix)


class CheckpointName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a checkpoint, on the link between two parties: both mean the same one where all of it is equal."""

    step: int
    attempt: int
    """In which the step was taken."""
    transcript: Share
    """SHA-256 over all that the two roles have said to each other up to it."""


OFFERED_CHECKPOINTS = 8


class Begin(Control, frozen=True):
    reveals = Reveals("which parties had agreed when the run began, and their shares of the joint seed", Grain.NOTHING)
    shares: dict[PartyId, Share]
    """Of the parties that had agreed when the run began: the same for all, whenever they come."""
    signed: dict[PartyId, Signed]
    """Of all parties that have agreed by now."""
    checkpoint: CheckpointName | None = None
    """From which the role goes on; None begins with the first step."""


class Detach(Control, frozen=True):
    """The receiver was out of reach too long, or the sender had to leave, or somebody that the job cannot go on without
    has; nobody is at fault."""

    reveals = Reveals("that the sender has left or the receiver was out of reach, and why", Grain.NOTHING, REDACTED)

    code: str
    message: str

    @classmethod
    def of(cls, failure: Failure) -> "Detach":
        reason = redacted_for_peer(failure)
        return cls(reason.code, reason.message)


class Join(Control, frozen=True):
    reveals = Reveals("that this party comes back, and its share of the joint seed", Grain.NOTHING)
    share: Share
    """As in Acceptance, which may never have arrived; so is the signature."""
    signed: Signed
    checkpoints: Annotated[tuple[CheckpointName, ...], msgspec.Meta(max_length=OFFERED_CHECKPOINTS)] = ()
    """From which its role can go on."""


class Finish(Control, frozen=True):
    """From a party that was asked: its role has returned. From the coordinator: the job is done."""

    reveals = Reveals("that the role has returned, or that the job is done", Grain.NOTHING)


class Ask(Control, frozen=True):
    """Whoever has no such job refuses it; whoever knows it to be over says how it ended once more."""

    reveals = Reveals("that the job still runs at the sender", Grain.NOTHING)


class Abort(Control, frozen=True):
    reveals = Reveals("that the job is over at the sender, and why", Grain.NOTHING, REDACTED)
    code: str
    message: str

    @classmethod
    def of(cls, failure: Failure) -> "Abort":
        reason = redacted_for_peer(failure)
        return cls(reason.code, reason.message)


NEGOTIATION, RUN = 0, 1
"""Attempt numbers: a run is 1, or more at a link over which a party came back."""


CONTROLS: dict[str, type[Control]] = {
    word.__name__: word for word in (Proposal, Waiting, Acceptance, Refusal, Begin, Finish, Abort, Ask, Detach, Join)
}
"""By the envelope's kind. Which may be said when is in `parties/jobs/state_table.py`."""

OPENERS = frozenset({"Begin", "Detach", "Join"})
"""What may come first in an attempt."""
LAST_WORDS = frozenset({"Refusal", "Finish", "Abort"})

Body: TypeAlias = bytes | memoryview


def encode_control(control: Control) -> bytes:
    return msgspec.msgpack.encode(control)


def decode_control(sender: PartyId, kind: str, body: Body) -> Control:
    """Raises RemoteProtocolError."""
    try:
        control: Control = msgspec.msgpack.decode(body, type=CONTROLS[kind])
    except UNREADABLE as error:
        raise RemoteProtocolError(f"the {kind} of {sender} cannot be read: {error}") from error
    return control


class Agreement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a party drew for a job and was promised; with it a party that was away takes the job up again. Its operator
    is not shown it, and it goes when the job is over."""

    share: bytes
    commitment: bytes
    """To the coordinator's share."""
    private_seed: bytes
    signed: Signed
    """This party's signature under the contract."""
    begun: dict[PartyId, bytes] = {}
    """The shares with which the run began, once it has."""
    contract: dict[PartyId, Signed] = {}
    """Then the signatures of all parties."""

    def once_begun(self, shares: Mapping[PartyId, bytes], signed: Mapping[PartyId, Signed]) -> bytes:
        """As it is stored from then on."""
        begun = msgspec.structs.replace(self, begun=dict(shares), contract=dict(signed))
        return msgspec.msgpack.encode(begun)


def job_id(spec_digest: bytes, commitment: bytes) -> str:
    """The same at every party: the specification, and the commitment of this proposal of it."""
    return f"{spec_digest.hex()[:16]}-{commitment.hex()[:8]}"


def commitment_to(share: bytes) -> bytes:
    return hashlib.sha256(b"vfl seed commitment" + share).digest()


def check_shares(shares: Mapping[PartyId, bytes], spec: JobSpec, commitment: bytes, me: PartyId, own: bytes) -> None:
    """Another party's view of Begin. Raises RemoteProtocolError when the coordinator changed its mind."""
    coordinator, sharers = spec.coordinator, set(shares)
    if not spec.required_parties <= sharers <= set(spec.parties) or len(sharers) < spec.minimum_parties:
        raise RemoteProtocolError(f"{coordinator} began the job without a share of the seed from every party it needs")
    if shares.get(me, own) != own or commitment_to(shares[coordinator]) != commitment:
        raise RemoteProtocolError(f"{coordinator} opened another share of the seed than it had committed to")


def joint_seed(spec: JobSpec, shares: Mapping[PartyId, bytes]) -> bytes:
    """32 bytes that no party chose alone, or the seed all policies let the specification fix."""
    if isinstance(spec.job.seed, int):
        return hashlib.sha256(f"vfl fixed seed {spec.job.seed}".encode()).digest()
    in_order = [shares[party] for party in spec.parties if party in shares]
    return hashlib.sha256(b"vfl joint seed" + b"".join(in_order)).digest()


def fixed_private_seed(text: str) -> bytes:
    """What a party whose `acceptance.private_seed` is this text draws its private values from."""
    return hashlib.sha256(f"vfl private seed {text}".encode()).digest()


def failure_at(peer: PartyId, did: str, code: str, message: str, fix: str = "") -> Failure:
    """A peer's reason, as text that is safe to show: its words are bounded and carry no control characters.

    A code that this release does not know is the peer's own word, and no name of an error.
    """
    named_code = code if code in known_codes() else PeerAborted.code
    reason, peer_fix = printable(message[:WORDS]), printable(fix[:WORDS])
    return Failure(named_code, f"{peer} {did} the job: {reason}", "Nothing was stored.", peer_fix or _PEER_FIX, peer)


_PEER_FIX = "The peer's operator sees the cause in `vfl job show`."
