"""Sums over rows on their way out of CKKS: not yet packed, packed, and under a mask."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crypto.ciphertexts import read_integers
from crypto.ckks_parameters import RING_DEGREE
from crypto.packing import Group, groups_for
from crypto.ring import centred

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Mask:
    """What only the evaluator can take off opened values again."""

    numbers: list[int] = field(repr=False)
    units: list[float]
    modulus: int

    def remove(self, opened: bytes) -> Floats:
        """The released values; NaN for one too near the modulus. Raises InvalidCiphertext for another number of them.

        Whether a value fits depends on what only the evaluator knows, so it is not an error: an error ends the job, and
        the key owner, who can shift what it opens, would read a bit of the value out of that.
        """
        values = read_integers(opened, len(self.numbers), self.modulus)
        bare = [
            centred((value - number) % self.modulus, self.modulus)
            for value, number in zip(values, self.numbers, strict=True)
        ]
        limit = self.modulus // 4
        return np.array(
            [value / unit if abs(value) <= limit else np.nan for value, unit in zip(bare, self.units, strict=True)]
        )


class EncryptedSums:
    """Sums of row products over the blocks of a step, not yet summed over slots; its size does not grow with rows."""

    def __init__(self, count: int) -> None:
        self.groups = groups_for(count)
        self.widths = [group.width for group in self.groups for _ in range(group.values)]
        self.ciphertexts: list[Any] = [None] * count
        self.times = 1


@dataclass(frozen=True)
class PackedSums:
    """Sums in few ciphertexts of two polynomials modulo the first prime."""

    groups: Sequence[Group]
    usual_unit: float
    """Of a value that nothing was added to."""
    units: list[float]
    """Of each value, for `Mask`; 0 where nothing was added."""
    words: list[Words] = field(repr=False)
    """Of each group: 2 x ring degree."""

    def encoded(self) -> bytes:
        """For another process of this party."""
        return np.array([self.usual_unit, *self.units]).tobytes() + b"".join(words.tobytes() for words in self.words)

    @classmethod
    def decoded(cls, data: bytes | memoryview, count: int) -> "PackedSums":
        """Of so many values."""
        groups = groups_for(count)
        usual, *units = np.frombuffer(data, np.float64, 1 + count).tolist()
        words = np.frombuffer(data, "<u8", offset=8 * (1 + count)).reshape(len(groups), 2, RING_DEGREE)
        return cls(groups, usual, units, list(words))


@dataclass(frozen=True)
class UnpackedSums:
    """Sums of some blocks of a step. Those of several processes add up exactly."""

    usual_unit: float
    units: list[float]
    """As of PackedSums; alike in all blocks of a step."""
    words: list[Words] = field(repr=False)
    """Of each value: polynomials x ring degree modulo the first prime; empty where nothing was added."""

    def plus(self, other: "UnpackedSums", modulus: int) -> "UnpackedSums":
        words = [
            added(one, more, modulus) if one.size and more.size else (one if one.size else more)
            for one, more in zip(self.words, other.words, strict=True)
        ]
        units = [one or more for one, more in zip(self.units, other.units, strict=True)]
        return UnpackedSums(self.usual_unit, units, words)

    def encoded(self) -> bytes:
        """For another process of this party."""
        return np.array([self.usual_unit, *self.units]).tobytes() + encoded_words(self.words)

    @classmethod
    def decoded(cls, data: bytes | memoryview, count: int) -> "UnpackedSums":
        """Of so many values."""
        usual, *units = np.frombuffer(data, np.float64, 1 + count).tolist()
        return cls(usual, units, decoded_words(memoryview(data)[8 * (1 + count) :], count))


def added(one: Words, more: Words, modulus: int) -> Words:
    """Modulo the modulus, below which both are, and which is below 2^63: what is not above it wraps when it is
    subtracted. Much faster than a remainder."""
    total = one + more
    reduced: Words = np.minimum(total, total - np.uint64(modulus))
    return reduced


def encoded_words(several: Sequence[Words]) -> bytes:
    """Ciphertexts at the last level, each of so many polynomials, for another process of this party."""
    counts = np.array([len(words) for words in several], np.uint8)
    return counts.tobytes() + b"".join(words.tobytes() for words in several)


def decoded_words(data: bytes | memoryview, count: int) -> list[Words]:
    """Of so many ciphertexts, each polynomials x ring degree."""
    counts = np.frombuffer(data, np.uint8, count)
    polynomials = np.frombuffer(data, "<u8", offset=count).reshape(-1, RING_DEGREE)
    return np.split(polynomials, np.cumsum(counts)[:-1])
