"""X25519 keys (RFC 7748) that the members of one sum make for it, and what pairs derive from them by HKDF (RFC 5869).

Every derived key is bound to the whole list of keys and to the sum's terms: who was shown another list derives other
keys, so nothing that was made for one list opens or cancels under another. The list is not signed.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crypto.errors import InvalidKey

KEY_BYTES = 32
_PROBE = X25519PrivateKey.from_private_bytes(bytes(KEY_BYTES))
"""No secret: every scalar is a multiple of 8, so any one finds the points of small order."""


class PublicPair(NamedTuple):
    """One member's two public keys: masks and sealed shares never hang on the same secret."""

    masking: bytes
    sealing: bytes


@dataclass(frozen=True)
class KeyList:
    """The keys of all members, in the order that gives each member its index, and a digest of everything agreed."""

    keys: Mapping[str, PublicPair]
    digest: bytes

    @property
    def members(self) -> tuple[str, ...]:
        return tuple(self.keys)

    def index(self, member: str) -> int:
        """From 1: the index of the shares that this member holds."""
        return 1 + self.members.index(member)


def fresh_private_key() -> bytes:
    """32 bytes of the operating system's entropy."""
    return os.urandom(KEY_BYTES)


def public_key(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def refuse_unusable(public: bytes) -> None:
    """Raises InvalidKey for a wrong length and for points of small order, whose secret anybody knows."""
    _exchange(_PROBE, public)


def key_list(terms: bytes, keys: Mapping[str, PublicPair]) -> KeyList:
    """The list all derived keys are bound to. Raises InvalidKey, naming the member, for keys unusable or used twice."""
    member_of_key: dict[bytes, str] = {}
    for member, pair in keys.items():
        for key in pair:
            try:
                refuse_unusable(key)
            except InvalidKey as error:
                raise InvalidKey(f"a key of {member} cannot be used: {error}") from error
            if key in member_of_key:
                raise InvalidKey(f"{member} and {member_of_key[key]} have the same key")
            member_of_key[key] = member
    parts = (part for member, pair in keys.items() for part in (member.encode(), *pair))
    return KeyList(dict(keys), digest(b"keys of a sum", terms, *parts))


def mask_seed(private: bytes, keys: KeyList, me: str, peer: str) -> bytes:
    """The seed of the mask that two members share, the same from either side; 32 bytes."""
    first, second = sorted((me, peer), key=keys.members.index)
    return _derive(private, keys.keys[peer].masking, keys, (b"mask", first.encode(), second.encode()))


def sealing_key(private: bytes, keys: KeyList, sender: str, receiver: str, me: str) -> bytes:
    """The key of the one box that `sender` sends `receiver` in this sum, for whichever of them `me` is."""
    peer = receiver if me == sender else sender
    return _derive(private, keys.keys[peer].sealing, keys, (b"seal", sender.encode(), receiver.encode()))


def digest(*parts: bytes) -> bytes:
    """SHA-256 of the parts with their lengths, 32 bytes."""
    return hashlib.sha256(_framed(parts)).digest()


def _framed(parts: Iterable[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def _derive(private: bytes, public: bytes, keys: KeyList, purpose: tuple[bytes, ...]) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=keys.digest, info=_framed(purpose)).derive(
        _exchange(X25519PrivateKey.from_private_bytes(private), public)
    )


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:  # of `exchange`: the secret would be zero
        length = f"the key has {len(public)} bytes, and {KEY_BYTES} are due"
        raise InvalidKey("the key is a point of small order" if len(public) == KEY_BYTES else length) from error
