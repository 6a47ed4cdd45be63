"""Codes on one shared grid, which add: for sums of which nobody sees a single term (codecs.md).

All clients of a round rotate with the round's seed and round at random, each with its own seed, to 2^b levels of one
public range. Codes add modulo 2^W; the sum of codes is the code of the sum, exactly, and one rotation back decodes it.
"""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vfl.codecs.codec import Body, Codec, Floats, exactly, received, sendable
from vfl.codecs.hadamard import rotate, rotate_back
from vfl.codecs.packing import pack, packed_bytes, unpack
from vfl.codecs.rounding import rounded
from vfl.errors import SpecConflict
from vfl.schedule import philox

Words = NDArray[np.unsignedinteger]

KAPPA = 3.5
"""Half the range, in standard deviations of a rotated value of a vector of norm C: beyond it values are cut."""
LONGEST_WORD = 64
CLIP_BYTES = 4


def word_bits(bits: int, cohort: int) -> int:
    """W: the least multiple of 8 that holds the sum of `cohort` codes."""
    return -(-_sum_bits(bits, cohort) // 8) * 8


def refuse_wrap(bits: int, cohort: int, word: int = LONGEST_WORD) -> None:
    """Raises SpecConflict if the sum of `cohort` codes could wrap in words of `word` bits (X3)."""
    if (needed := _sum_bits(bits, cohort)) <= word:
        return
    spare, room = word - bits, word - _sum_bits(0, cohort)
    ways = [f"at most {2**spare} clients per round with {bits} bits"] if spare >= 0 else []
    ways += [f"at most {room} bits with {cohort} clients"] if room >= 1 else []
    raise SpecConflict(
        f"the sum of {cohort} clients' codes of {bits} bits needs {needed} bits, and words of {word} bits would wrap",
        fix=f"Choose {' or '.join([*ways, f'words of {word_bits(bits, cohort)} bits'])}.",
    )


def _sum_bits(bits: int, cohort: int) -> int:
    return bits + (cohort - 1).bit_length()


def to_codes(values: Floats, clip: float, bits: int, shared_seed: bytes, own_seed: bytes | None) -> NDArray[np.uint32]:
    """One client's codes, 0 to 2^bits - 1: the vector cut to norm `clip`, rotated, rounded at random with `own_seed`.

    Without a seed of its own it rounds to the nearest, for a single message. Raises Diverged if a value is not finite.
    """
    norm = float(np.linalg.norm(sendable(values).astype(np.float64)))
    factor = min(1.0, clip / norm) if norm else 0.0
    rotated = rotate(values * np.float32(factor), philox(shared_seed, "grid"))
    reach, step = _range(len(values), clip, bits)
    levels = (rotated + np.float32(reach)) / np.float32(step or 1)
    return rounded(levels, 2**bits - 1, own_seed).astype(np.uint32)


def from_sum(sum_of_codes: Words, number: int, clip: float, bits: int, shared_seed: bytes) -> Floats:
    """The sum of `number` clients' vectors, from the sum of their codes."""
    reach, step = _range(len(sum_of_codes), clip, bits)
    rotated = sum_of_codes.astype(np.float64) * step - number * reach
    return rotate_back(rotated.astype(np.float32), philox(shared_seed, "grid"))


def _range(count: int, clip: float, bits: int) -> tuple[float, float]:
    """(half the range, step)."""
    reach = KAPPA * clip / math.sqrt(max(count, 1))
    return reach, 2 * reach / (2**bits - 1)


# -- one message, by the interface of every codec


def body_bytes(count: int, bits: int) -> int:
    return CLIP_BYTES + packed_bytes(count, bits)


@cache
def stated_error(bits: int, unbiased: bool) -> float:  # noqa: FBT001 - the interface of every codec
    """Of normal values: about (2 kappa)^2 / (6 (2^b - 1)^2), half of it to the nearest, and 5.6e-5 for cut tails."""
    _, step = _range(1, 1.0, bits)
    values = np.linspace(-8, 8, 1 << 16)
    clipped = np.clip(values, -KAPPA, KAPPA)
    part = (clipped + KAPPA) / step % 1
    rounding = part * (1 - part) if unbiased else np.minimum(part, 1 - part) ** 2
    weights = np.exp(-(values**2) / 2)
    return float(np.average(step**2 * rounding + (values - clipped) ** 2, weights=weights))


def encode(values: Floats, bits: int, seed: bytes, *, unbiased: bool) -> bytes:
    """A codec's `encode`: the vector's norm as its own range (fp32), then packed codes."""
    norm = sendable(np.array([np.linalg.norm(sendable(values).astype(np.float64))], "<f4"))
    codes = to_codes(values, float(norm[0]), bits, seed, b"own" + seed if unbiased else None)
    return norm.tobytes() + pack(codes.astype(np.uint8), bits)


def decode(body: Body, count: int, bits: int, seed: bytes) -> Floats:
    """A codec's `decode`."""
    content = exactly(body, body_bytes(count, bits))
    clip = received(content[:CLIP_BYTES].view("<f4"), "range")
    return from_sum(unpack(content[CLIP_BYTES:], count, bits), 1, abs(float(clip[0])), bits, seed)


GRID = Codec(encode, decode, body_bytes, stated_error, range(1, 9))
