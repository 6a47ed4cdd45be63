"""What a party has signed for others that do not exchange a message with it: the coordinator of a job hands it on.

    vouched   "vfl-handed-on-v1", zero, MessagePack of job, party, kind of message and statement; the signature, and
              the statements of new keys that lead from the key of the specification to the one that signed

Every party has signed the specification, and with it whose key is whose. So a coordinator that puts a word of its own
in a party's place is found by whoever receives it (docs/protocols/secure_sum.md).
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from parties.trust.errors import RotationRefused
from parties.trust.identity import Domain, Identity, IdentityKey
from parties.trust.rotation import MOST_ROTATIONS, Signature, SignedRotation, new_rotations
from vfl.message import HandedOn
from vfl.spec.sections import PartyId


class _Vouched(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    signature: Signature
    rotations: Annotated[list[SignedRotation], msgspec.Meta(max_length=MOST_ROTATIONS)] = []


def vouch(me: Identity, rotations: Sequence[SignedRotation], job: str, word: HandedOn) -> bytes:
    """By this party's present key; `rotations` lead to it from the key that the specification names."""
    signature = me.sign(Domain.HANDED_ON, _message(job, word))
    return msgspec.msgpack.encode(_Vouched(signature, list(rotations)))


def has_vouched(named: bytes, job: str, word: HandedOn) -> bool:
    """Whether the party whose key the specification names has signed this, or one of its keys that followed."""
    try:
        vouched = msgspec.msgpack.decode(word.signature, type=_Vouched)
        key = _present_key(word.party, named, vouched.rotations)
    except (msgspec.DecodeError, RotationRefused, ValueError):
        return False
    return key.verifies(Domain.HANDED_ON, _message(job, word), vouched.signature)


def _present_key(party: PartyId, named: bytes, rotations: list[SignedRotation]) -> IdentityKey:
    """Raises RotationRefused, ValueError."""
    followed = new_rotations(party, named, {}, rotations) if rotations else []
    return IdentityKey(followed[-1].read().new if followed else named)


def _message(job: str, word: HandedOn) -> bytes:
    return msgspec.msgpack.encode([job, word.party, word.kind, word.statement])
