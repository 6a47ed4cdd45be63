"""Random rotations by signs and Walsh-Hadamard transforms, as chains of small matrix products.

A transform of 2^k values is the Kronecker product of transforms of at most 32: each of its factors is one product with
a matrix of ones and minus ones, which a BLAS does several times faster than butterflies in numpy (codecs.md).
"""

import math
from functools import cache

import numpy as np

from vfl.codecs.codec import Floats

LARGEST_FACTOR = 5
"""log2 of the largest matrix of a chain."""


@cache
def _matrix(order: int) -> Floats:
    matrix = np.ones((1, 1), np.float32)
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return np.ascontiguousarray(matrix)


def transform(values: Floats) -> Floats:
    """The Walsh-Hadamard transform of 2^k values, not normalised: applied twice it multiplies by 2^k."""
    exponent = len(values).bit_length() - 1
    done, left = 1, len(values)
    for factor in range(links := -(-exponent // LARGEST_FACTOR)):
        order = 1 << ((exponent + factor) // links)  # the exponents of the chain add up to the whole one
        left //= order
        if left == 1:
            values = values.reshape(done, order) @ _matrix(order)
        else:
            values = _matrix(order) @ values.reshape(done, order, left)
        done *= order
    return values.reshape(-1)


_bits = np.arange(256)[:, None] >> np.arange(8) & 1
_SIGNS_OF_BYTE = (1 - 2 * _bits).astype(np.float32)


def signs(stream: np.random.Philox, count: int) -> Floats:
    """The next `count` signs of a stream; it moves on by whole words of 64."""
    words = stream.random_raw(-(-count // 64)).astype("<u8", copy=False)
    return np.take(_SIGNS_OF_BYTE, words.view(np.uint8), axis=0).reshape(-1)[:count]


def rotate(values: Floats, stream: np.random.Philox) -> Floats:
    """One rotation of the whole vector, of any length, without padding.

    With 2^k the largest power of two that fits, the first and the last 2^k values are transformed in turn, twice; where
    2^k is the length, once. Norms are kept.
    """
    values = values.copy()
    for part, flips in _passes(len(values), stream):
        values[part] = transform(values[part] * flips)
    return values


def rotate_back(values: Floats, stream: np.random.Philox) -> Floats:
    """The inverse of `rotate` with a stream that stands where that one stood."""
    values = values.copy()
    for part, flips in reversed(_passes(len(values), stream)):
        values[part] = transform(values[part]) * flips
    return values


def _passes(count: int, stream: np.random.Philox) -> list[tuple[slice, Floats]]:
    """Which values each pass transforms, and its signs, normalised."""
    if count == 0:
        return []
    length = 1 << (count.bit_length() - 1)
    front, back = slice(0, length), slice(count - length, count)
    parts = [front] if length == count else [front, back, front, back]
    return [(part, signs(stream, length) / np.float32(math.sqrt(length))) for part in parts]
