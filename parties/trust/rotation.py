"""A party's identity key is followed by another one: what both keys sign, and what a peer makes of it (docs/trust.md).

    rotation    party, old key, new key, new cosigning key, time; signed by the old key and by the new one

The old key says who follows it, and the new one that it knows: nobody can name a key that is not its own. A peer that
pins the old key pins the new one from then on, and takes the old one until 24 hours after the statement was made.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Annotated, Self

import msgspec

from parties.trust.errors import RotationRefused
from parties.trust.identity import KEY_BYTES, SIGNATURE_BYTES, Domain, Identity, IdentityKey
from vfl.spec.sections import PartyId

OVERLAP_SECONDS = 24 * 3600.0
"""For so long after a rotation the old key counts beside the new one."""
MOST_ROTATIONS = 64
"""A peer that was away hears of all that it has missed at once."""

Key = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Signature = Annotated[bytes, msgspec.Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    party: PartyId
    old: Key
    new: Key
    cosigning: Key
    """With which the party signs the heads of its peers' logs from now on."""
    made_at: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    """Unix seconds."""


class SignedRotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    encoded: bytes
    """The rotation in its one encoding: what both keys have signed."""
    by_old: Signature
    by_new: Signature

    @classmethod
    def of(cls, old: Identity, new: Identity, made_at: int) -> Self:
        cosigning = new.cosigning.public_key().public_bytes_raw()
        encoded = msgspec.msgpack.encode(Rotation(old.name, old.key.raw, new.key.raw, cosigning, made_at))
        return cls(encoded, old.sign(Domain.ROTATION, encoded), new.sign(Domain.ROTATION, encoded))

    def read(self) -> Rotation:
        """Raises RotationRefused unless both keys have signed it."""
        try:
            rotation = msgspec.msgpack.decode(self.encoded, type=Rotation)
            signed = ((IdentityKey(rotation.old), self.by_old), (IdentityKey(rotation.new), self.by_new))
            IdentityKey(rotation.cosigning)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise RotationRefused("the statement about a new key cannot be read", "unreadable") from error
        if msgspec.msgpack.encode(rotation) != self.encoded or rotation.old == rotation.new:
            raise RotationRefused("the statement about a new key is not written as it should be", "unreadable")
        if not all(key.verifies(Domain.ROTATION, self.encoded, signature) for key, signature in signed):
            raise RotationRefused("the old and the new key have not both signed that one follows the other", "unsigned")
        return rotation

    def detail(self) -> dict[str, str | int]:
        """The whole statement, for the audit log."""
        rotation = self.read()
        named = {"old": rotation.old, "key": rotation.new, "cosigning": rotation.cosigning}
        values = named | {"by_old": self.by_old, "by_key": self.by_new}
        return {name: base64.b64encode(value).decode() for name, value in values.items()} | {
            "made_at": rotation.made_at
        }


def new_rotations(
    party: PartyId, pinned: bytes, believed: Mapping[bytes, SignedRotation], rotations: Sequence[SignedRotation]
) -> list[SignedRotation]:
    """Those of a peer's statements that lead on from the key that is pinned; `known` are older ones by their old key.

    Raises RotationRefused: then nothing of it counts.
    """
    new: list[SignedRotation] = []
    if not rotations:
        raise RotationRefused("no statement about a new key came", "unreadable")
    for signed in rotations:
        rotation = signed.read()
        if rotation.party != party:
            raise RotationRefused(f"{party} brings a statement about a key of another party", "foreign")
        if rotation.old == pinned:
            pinned = rotation.new
            new.append(signed)
        elif rotation.old not in believed:
            raise RotationRefused(f"the old key of the statement is not the one that is pinned of {party}", "foreign")
        elif believed[rotation.old].encoded != signed.encoded:
            raise RotationRefused(f"another key follows that key of {party} already", "forked")
    if rotation.new != pinned:
        raise RotationRefused(f"the statement is older than the key that is pinned of {party}", "older")
    return new
