"""A party as what signs for it knows it: it may have had several identity keys, of which peers pin one or another."""

from collections.abc import Sequence
from typing import Protocol

from parties.trust.identity import Identity
from parties.trust.rotation import SignedRotation


class Signer(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def current(self) -> Identity:
        """Its present key."""

    def for_peer(self, peer: str) -> Identity:
        """The key that this peer pins, or else the present one."""

    def with_key(self, key: bytes) -> Identity | None:
        """The identity of this key, while the party still signs with it."""

    def rotations_since(self, key: bytes) -> Sequence[SignedRotation]:
        """What leads from this key to the present one, the oldest first."""

    def counts(self, digest: bytes) -> bool:
        """Whether peers may still take what the key of this digest has signed."""
