"""Authenticated boxes for what a third party relays: ChaCha20-Poly1305 (RFC 8439).

A key seals one box and is bound to sender, receiver and purpose when it is derived, so the nonce may be zero and a box
that was moved, replayed or changed does not open.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from crypto.errors import InvalidBox

TAG_BYTES = 16
_NONCE = bytes(12)


def seal(key: bytes, content: bytes) -> bytes:
    """16 bytes longer than the content. A key must never seal twice."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, content, None)


def unseal(key: bytes, box: bytes) -> bytes:
    """Raises InvalidBox."""
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, box, None)
    except InvalidTag as error:
        raise InvalidBox(
            "the box does not open: it was made for another sender, receiver or purpose, or it was changed on its way"
        ) from error
