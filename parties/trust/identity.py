"""Who a party is: one Ed25519 key. It signs what the party says, and issues the certificates of its server.

Each kind of statement is signed with a domain of its own in front (RFC 8032), so that a signature for one purpose means
nothing for another. Peers pin this key and nothing else (docs/trust.md).
"""

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES, SIGNATURE_BYTES = 32, 64


class Domain(Enum):
    """What a signature is for; its value stands before the signed bytes."""

    ENVELOPE = b"vfl-envelope-v1\0"
    RECEIPT = b"vfl-receipt-v1\0"
    ENROLMENT = b"vfl-enrolment-v1\0"
    SPECIFICATION = b"vfl-specification-v1\0"
    GRANT = b"vfl-grant-v1\0"
    CHECK = b"vfl-check-v1\0"
    ROTATION = b"vfl-key-rotation-v1\0"
    HANDED_ON = b"vfl-handed-on-v1\0"
    SERVER_CERTIFICATE = b"vfl-server-certificate-v1\0"


@dataclass(frozen=True)
class IdentityKey:
    """The public half, as a peer pins it."""

    raw: bytes
    """32 bytes (RFC 8032)."""

    def __post_init__(self) -> None:
        Ed25519PublicKey.from_public_bytes(self.raw)  # raises ValueError

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the raw key: how envelopes and certificates name it."""
        return hashlib.sha256(self.raw).digest()

    @property
    def fingerprint(self) -> str:
        """The first 16 bytes of the digest, for people to compare."""
        text = self.digest.hex()[:32]
        return " ".join(text[at : at + 4] for at in range(0, 32, 4))

    @property
    def public(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.raw)

    def verifies(self, domain: Domain, message: bytes, signature: bytes) -> bool:
        """Whether the holder of the private half signed this message for this purpose."""
        try:
            self._loaded.verify(signature, domain.value + message)
        except InvalidSignature:
            return False
        return True

    @cached_property
    def _loaded(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.raw)


@dataclass(frozen=True, eq=False)
class Identity:
    """A party's name and private key. Stays in the server process; workers never have it."""

    name: str
    private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, name: str) -> Self:
        return cls(name, Ed25519PrivateKey.generate())

    # As a `Signer` (signer.py) that has had this one key alone.

    @property
    def current(self) -> Self:
        return self

    def for_peer(self, peer: str) -> Self:  # noqa: ARG002 - every peer pins this one
        return self

    def counts(self, digest: bytes) -> bool:
        return digest == self.key.digest

    def with_key(self, key: bytes) -> Self | None:
        return self if key == self.key.raw else None

    def rotations_since(self, key: bytes) -> tuple[()]:  # noqa: ARG002 - there were none
        return ()

    @cached_property
    def key(self) -> IdentityKey:
        return IdentityKey(self.private.public_key().public_bytes_raw())

    @cached_property
    def cosigning(self) -> Ed25519PrivateKey:
        """Signs the tree heads of peers, and nothing else (C2SP tlog-cosignature); derived, so one key file is all."""
        seed = HKDF(SHA256(), KEY_BYTES, salt=None, info=b"vfl cosigning key").derive(self.private.private_bytes_raw())
        return Ed25519PrivateKey.from_private_bytes(seed)

    @cached_property
    def counting_key(self) -> bytes:
        """Under which rows are marked that were scored, so that what is counted shows no id; derived as well."""
        info = b"vfl counts of scored rows"
        return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(self.private.private_bytes_raw())

    def sign(self, domain: Domain, message: bytes) -> bytes:
        """64 bytes (RFC 8032)."""
        return self.private.sign(domain.value + message)
