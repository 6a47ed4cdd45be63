"""Vectors of words modulo 2^W under masks that a seed expands to: ChaCha20 (RFC 8439), one seed, one mask.

Words are worked on in the next wider machine word, which is exact: 2^W divides its modulus. They travel in W / 8 bytes.
ChaCha20 rather than AES: no machine's version of it depends on a table in the cache.
"""

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger]

_CHUNK = 1 << 18
_ZEROS = memoryview(bytes(_CHUNK))
_NONCE = bytes(16)


def machine_word(word_bits: int) -> "np.dtype[np.unsignedinteger]":
    """The unsigned type that holds a word. Raises ValueError unless W is a multiple of 8 up to 64."""
    if word_bits % 8 or not 8 <= word_bits <= 64:
        raise ValueError(f"a word has a multiple of 8 bits, and 64 at most; {word_bits} bits were asked for")
    size = 1 << (word_bits // 8 - 1).bit_length()
    return np.dtype(f"<u{size}")


def add_mask(words: Words, seed: bytes) -> None:
    """Add the seed's mask in place: uniform numbers modulo the machine word, so modulo 2^W as well."""
    _apply(np.add, words, seed)


def subtract_mask(words: Words, seed: bytes) -> None:
    _apply(np.subtract, words, seed)


def _apply(operation: np.ufunc, words: Words, seed: bytes) -> None:
    stream = Cipher(ChaCha20(seed, _NONCE), mode=None).encryptor()
    buffer = bytearray(_CHUNK)
    masks = np.frombuffer(buffer, words.dtype)
    for start in range(0, len(words), len(masks)):
        part = words[start : start + len(masks)]
        stream.update_into(_ZEROS[: part.nbytes], buffer)
        operation(part, masks[: len(part)], out=part)


def pack(words: Words, word_bits: int) -> bytes:
    """The low W bits of every word, little-endian."""
    dtype = machine_word(word_bits)
    octets = words.astype(dtype, copy=False).view(np.uint8).reshape(-1, dtype.itemsize)
    return octets[:, : word_bits // 8].tobytes()


def unpack(body: bytes, word_bits: int) -> Words:
    """Back to machine words; the body's length must be a multiple of W / 8."""
    dtype = machine_word(word_bits)
    octets = np.frombuffer(body, np.uint8).reshape(-1, word_bits // 8)
    wide = np.zeros((len(octets), dtype.itemsize), np.uint8)
    wide[:, : word_bits // 8] = octets
    words: Words = wide.view(dtype).reshape(-1)
    return words


def modulo(words: Words, word_bits: int) -> NDArray[np.uint64]:
    """Words modulo 2^W as uint64."""
    return words.astype(np.uint64) & np.uint64(2**word_bits - 1)
