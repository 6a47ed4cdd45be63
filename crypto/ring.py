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
    inverse_root = pow(primitive_root(modulus, degree), -(degree // count), modulus)
    # Block sums come in bit-reversed order, which is just what decimation in time starts from.
    values, half = np.array(sums, object), 1
    while half < count:
        pairs = values.reshape(-1, 2, half)
        even, odd = pairs[:, 0], pairs[:, 1] * _powers(pow(inverse_root, count // half, modulus), half, modulus)
        values = np.concatenate([even + odd, even - odd], axis=1).reshape(-1) % modulus
        half *= 2
    twisted = values * _powers(inverse_root, count, modulus) * pow(degree, -1, modulus) % modulus
    coefficients: list[int] = twisted.tolist()
    return coefficients


@functools.cache
def _powers(root: int, count: int, modulus: int) -> NDArray[np.object_]:
    powers = [1]
    for _ in range(count - 1):
        powers.append(powers[-1] * root % modulus)
    return np.array(powers, object)


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
