"""Arithmetic in Z_q[X] / (X^N + 1) beside SEAL: the parts of gradient release that are exact integers modulo q.

SEAL stores polynomials in NTT form, bit-reversed: word i is the value at psi^(2 rev(i) + 1), psi the smallest primitive
2N-th root of unity modulo q. The coefficients at multiples of N/m depend on m sums of consecutive blocks of N/m words
alone, because psi^(N/m) takes m values; so a release of m packed numbers costs m sums and a transform of m points.
"""

import functools
import os

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_LIMB = 20
_LIMB_MASK = np.uint64((1 << _LIMB) - 1)
_HALF = np.uint64(32)
_HALF_MASK = np.uint64((1 << 32) - 1)


@functools.cache
def primitive_root(modulus: int, degree: int) -> int:
    """The smallest primitive root of unity of order 2 `degree` modulo a prime = 1 mod 2 `degree`."""
    exponent = (modulus - 1) // (2 * degree)
    root = next(r for g in range(2, modulus) if pow(r := pow(g, exponent, modulus), degree, modulus) == modulus - 1)
    square, smallest = root * root % modulus, root
    for _ in range(degree):
        root = root * square % modulus
        smallest = min(smallest, root)
    return smallest


def block_sums(words: Words, blocks: int, modulus: int) -> list[int]:
    """Sums of `blocks` equal consecutive blocks of words (N), modulo `modulus`."""
    rows = words.reshape(blocks, -1)
    low = (rows & _HALF_MASK).sum(axis=1, dtype=np.uint64).tolist()
    high = (rows >> _HALF).sum(axis=1, dtype=np.uint64).tolist()
    return [(a + (b << 32)) % modulus for a, b in zip(low, high, strict=True)]


def block_inner_products(left: Words, right: Words, blocks: int, modulus: int) -> list[int]:
    """Inner products of `blocks` consecutive blocks of two word vectors (N) below 2^60, modulo `modulus`."""
    # 20-bit limbs: products of 40 bits, and at most 2^13 of them per sum, stay below 2^64.
    a, b = (
        np.stack([(words >> np.uint64(_LIMB * i)) & _LIMB_MASK for i in range(3)]).reshape(3, blocks, -1)
        for words in (left, right)
    )
    totals = [0] * blocks
    for i in range(3):
        for j in range(3):
            partial = (a[i] * b[j]).sum(axis=1, dtype=np.uint64).tolist()
            totals = [total + (value << (_LIMB * (i + j))) for total, value in zip(totals, partial, strict=True)]
    return [total % modulus for total in totals]


def block_coefficients(sums: list[int], degree: int, modulus: int) -> list[int]:
    """The coefficients at multiples of N/m, from the m block sums of a polynomial's NTT words; m a power of two."""
    count = len(sums)
    bits = count.bit_length() - 1
    natural = [sums[_reversed(i, bits)] for i in range(count)]
    inverse_root = pow(primitive_root(modulus, degree), -(degree // count), modulus)
    spectrum = _transform(np.array(natural, object), inverse_root * inverse_root % modulus, modulus)
    twist, coefficients = pow(degree, -1, modulus), []
    for value in spectrum.tolist():
        coefficients.append(value * twist % modulus)
        twist = twist * inverse_root % modulus
    return coefficients


def _transform(values: NDArray[np.object_], root: int, modulus: int) -> NDArray[np.object_]:
    """sum_i values[i] root^(i k) for every k: the usual splitting into even and odd, exact on Python integers."""
    count = len(values)
    if count == 1:
        return values
    even = _transform(values[0::2], root * root % modulus, modulus)
    odd = _transform(values[1::2], root * root % modulus, modulus) * _powers(root, count // 2, modulus)
    return np.concatenate([even + odd, even - odd]) % modulus


@functools.cache
def _powers(root: int, count: int, modulus: int) -> NDArray[np.object_]:
    powers = [1]
    for _ in range(count - 1):
        powers.append(powers[-1] * root % modulus)
    return np.array(powers, object)


def _reversed(value: int, bits: int) -> int:
    return int(f"{value:0{bits}b}"[::-1], 2) if bits else 0


def centred(value: int, modulus: int) -> int:
    """The representative of least absolute value."""
    return value - modulus if value > modulus // 2 else value


def uniform_words(count: int, modulus: int) -> list[int]:
    """Independent uniform integers below `modulus` (< 2^64) from the operating system's generator, by rejection."""
    mask = np.uint64((1 << modulus.bit_length()) - 1)
    words: list[int] = []
    while len(words) < count:
        draws = np.frombuffer(os.urandom(8 * (count - len(words) + 4)), "<u8") & mask
        words += draws[draws < modulus].tolist()
    return words[:count]
