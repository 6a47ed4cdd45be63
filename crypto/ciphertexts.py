"""The wire form of ciphertexts and keys, and the gate every one of them passes before SEAL sees it (threat_model.md).

On the wire go coefficient words only, each in as many whole bytes as its prime needs: no SEAL header, scale, level or
compression. Seeded polynomials are one polynomial and a 64-byte seed; the second is expanded by the receiver, so the
sender cannot choose it. What a reader builds therefore follows from the agreed preset and from checked words alone.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crypto.errors import InvalidCiphertext
from crypto.seal_stream import SEED_BYTES

Words = NDArray[np.uint64]


class Seeded(NamedTuple):
    """A ciphertext or key half: its first polynomial, primes x N, and the seed of the second."""

    words: Words
    seed: bytes


def word_bytes(modulus: int) -> int:
    return (modulus.bit_length() + 7) // 8


def seeded_bytes(moduli: Sequence[int], degree: int) -> int:
    """Wire size of one seeded ciphertext."""
    return degree * sum(map(word_bytes, moduli)) + SEED_BYTES


def write_words(words: Words, moduli: Sequence[int]) -> bytes:
    """primes x N, prime by prime, little-endian."""
    parts = []
    for row, modulus in zip(words, moduli, strict=True):
        octets = np.ascontiguousarray(row, "<u8").view(np.uint8).reshape(-1, 8)
        parts.append(octets[:, : word_bytes(modulus)].tobytes())
    return b"".join(parts)


def read_words(data: memoryview, moduli: Sequence[int], degree: int) -> Words:
    """The inverse of `write_words`. Raises InvalidCiphertext for a word at or above its prime."""
    words = np.zeros((len(moduli), degree), np.uint64)
    at = 0
    for row, modulus in zip(words, moduli, strict=True):
        width = word_bytes(modulus)
        octets = np.frombuffer(data, np.uint8, degree * width, at).reshape(degree, width)
        row.view(np.uint8).reshape(degree, 8)[:, :width] = octets
        at += degree * width
        if (row >= modulus).any():
            raise InvalidCiphertext("a word is not below its prime")
    return words


def write_seeded(batch: Iterable[Seeded], moduli: Sequence[int]) -> bytes:
    return b"".join(part for words, seed in batch for part in (write_words(words, moduli), seed))


def read_seeded(
    data: bytes | memoryview, count: int, moduli: Sequence[int], degree: int, seeds: set[bytes]
) -> list[Seeded]:
    """`count` seeded ciphertexts, checked: exact length, words below their primes, no seed used before.

    `seeds` holds every seed seen under this key and grows by the new ones: two ciphertexts with one key and one seed
    would give away the difference of their plaintexts.
    """
    size, view, batch = seeded_bytes(moduli, degree), memoryview(data), []
    for number, seed in enumerate(new_seeds(data, count, moduli, degree, seeds)):
        start = number * size
        words = read_words(view[start : start + size - SEED_BYTES], moduli, degree)
        if not words.any(axis=1).all():
            raise InvalidCiphertext("a polynomial is zero under one of its primes")
        batch.append(Seeded(words, seed))
    return batch


def new_seeds(
    data: bytes | memoryview, count: int, moduli: Sequence[int], degree: int, seeds: set[bytes]
) -> list[bytes]:
    """The seeds alone, which `seeds` then holds. Raises InvalidCiphertext for another length, and for a known seed."""
    size = seeded_bytes(moduli, degree)
    if len(data) != count * size:
        raise InvalidCiphertext(f"{count} ciphertexts of {size} bytes were due, and {len(data)} bytes came")
    new = [bytes(data[end - SEED_BYTES : end]) for end in range(size, len(data) + 1, size)]
    if len(set(new)) < count or seeds.intersection(new):
        raise InvalidCiphertext("a seed is used twice under one key")
    seeds.update(new)
    return new


def write_integers(values: Iterable[int]) -> bytes:
    """Integers below 2^64, eight bytes each."""
    return np.fromiter(values, "<u8").tobytes()


def read_integers(data: bytes, count: int, modulus: int) -> list[int]:
    """`count` integers below `modulus`. Raises InvalidCiphertext for another length or a larger value."""
    if len(data) != 8 * count:
        raise InvalidCiphertext(f"{count} integers of 8 bytes were due, and {len(data)} bytes came")
    values = np.frombuffer(data, "<u8")
    if (values >= modulus).any():
        raise InvalidCiphertext("an integer is not below the modulus")
    return [int(value) for value in values]
