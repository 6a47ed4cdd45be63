"""Random rotation, then a Lloyd-Max quantiser: the error does not depend on what the values look like (codecs.md).

After signs and a Walsh-Hadamard transform the values of a block are close to normal, whatever they were, so one table
fits all and one scale per block corrects the length (EDEN, Vargaftik et al. 2022; DRIVE, 2021).
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from vfl.codecs.centroids import DISTORTION, centroids
from vfl.codecs.codec import Body, Bytes, Codec, Floats, exactly, received, sendable
from vfl.codecs.hadamard import signs, transform
from vfl.codecs.packing import pack, packed_bytes, unpack
from vfl.schedule import philox

LARGEST_BLOCK, SMALLEST_BLOCK = 1 << 16, 1 << 7
SCALE_BYTES = 4
CELLS = 8192
"""At half as many the boundaries inside cells would cost 1 % at 8 bits."""


def blocks(count: int) -> list[int]:
    """Lengths of the blocks, the largest that fits first; what is left over is shorter than the smallest block."""
    lengths = [LARGEST_BLOCK] * (count // LARGEST_BLOCK)
    length = LARGEST_BLOCK // 2
    while length >= SMALLEST_BLOCK:
        lengths += [length] * ((count & length) != 0)
        length //= 2
    return lengths


def body_bytes(count: int, bits: int) -> int:
    """R3.3: packed codes and one scale for each block, and four bytes for each value left over."""
    coded = sum(packed_bytes(length, bits) + SCALE_BYTES for length in blocks(count))
    return coded + 4 * (count % SMALLEST_BLOCK)


def stated_error(bits: int, unbiased: bool) -> float:  # noqa: FBT001 - the interface of every codec
    distortion = DISTORTION[bits]
    return distortion / (1 - distortion) if unbiased else distortion


def encode(values: Floats, bits: int, seed: bytes, *, unbiased: bool) -> bytes:
    """A codec's `encode`: for each block its scale (fp32) and its packed codes, then the values left over (fp32)."""
    sendable(values)
    stream = philox(seed, "rotation")
    parts, start = [], 0
    for length in blocks(len(values)):
        block = values[start : start + length]
        scale, codes = _quantise(block, signs(stream, length), bits, unbiased=unbiased)
        parts += [np.array(scale, "<f4").tobytes(), pack(codes, bits)]
        start += length
    return b"".join([*parts, values[start:].astype("<f4", copy=False).tobytes()])


def decode(body: Body, count: int, bits: int, seed: bytes) -> Floats:
    """A codec's `decode`."""
    content = exactly(body, body_bytes(count, bits))
    stream = philox(seed, "rotation")
    values = np.empty(count, np.float32)
    start = at = 0
    for length in blocks(count):
        scale = received(content[at : at + SCALE_BYTES].view("<f4"), "scales")
        at += SCALE_BYTES
        end = at + packed_bytes(length, bits)
        rotated = transform(np.take(centroids(bits), unpack(content[at:end], length, bits)))
        rotated *= scale / np.float32(math.sqrt(length))
        np.multiply(rotated, signs(stream, length), out=values[start : start + length])
        start, at = start + length, end
    values[start:] = received(content[at:].view("<f4"), "values")
    return values


class _Cells(NamedTuple):
    """A fine grid over the normal distribution, looked up instead of a search among boundaries (codecs.md)."""

    per_unit: float
    codes: Bytes
    centroids: Floats


@cache
def _cells(bits: int) -> _Cells:
    table = centroids(bits)
    boundaries = (table[1:] + table[:-1]) / 2
    reach = max(float(boundaries[-1]), 4.0)  # nearly all values: cutting an index at the ends costs time
    per_unit = (CELLS / 2 - 1) / reach  # both ends of the grid lie beyond the last boundary
    middles = (np.arange(CELLS) + 0.5 - CELLS / 2) / per_unit
    codes = np.searchsorted(boundaries, middles).astype(np.uint8)
    return _Cells(per_unit, codes, table[codes])


def _quantise(block: Floats, flips: Floats, bits: int, *, unbiased: bool) -> tuple[float, Bytes]:
    """(scale, codes): S = |x|^2 / <y, q> or <y, q> / <q, q> with y the rotated block, q its centroids."""
    norm = float(np.linalg.norm(block.astype(np.float64)))
    length, cells = len(block), _cells(bits)
    normal = transform(block * flips)
    normal *= 1 / norm if norm > 1e-30 else 0.0  # shorter than that it is sent as zeros
    index = (normal * cells.per_unit + CELLS // 2).astype(np.intp)
    chosen = np.take(cells.centroids, index, mode="clip")
    along = float(np.dot(normal, chosen))
    if along == 0:
        scale = 0.0
    elif unbiased:
        scale = norm * math.sqrt(length) / along
    else:
        scale = norm / math.sqrt(length) * along / float(np.dot(chosen, chosen))
    return scale, np.take(cells.codes, index, mode="clip")


ROTATION = Codec(encode, decode, body_bytes, stated_error, range(1, 9))
