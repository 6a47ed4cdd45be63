"""64 values share one scale: fast enough to run after every training step (storage = "layers").

Codes stand for equal steps around zero, which is a level itself (with one bit there are two levels, plus and minus).
Encoding what was decoded changes nothing, so weights that are not moved stay where they are, step after step.
"""

import numpy as np
from numpy.typing import NDArray

from vfl.codecs.codec import Body, Codec, Floats, exactly, received, sendable
from vfl.codecs.packing import pack, packed_bytes, unpack
from vfl.codecs.rounding import rounded

BLOCK = 64
UNIT_BYTES, STEP_BYTES = 4, 2


def body_bytes(count: int, bits: int) -> int:
    return UNIT_BYTES + STEP_BYTES * -(-count // BLOCK) + packed_bytes(count, bits)


def encode(values: Floats, bits: int, seed: bytes, *, unbiased: bool) -> bytes:
    """A codec's `encode`: a unit (fp32, a power of two), a step for each block (fp16, times the unit), packed codes.

    Unbiased means rounding at random. A block's step is rounded up, so its largest value is never cut.
    """
    rows = _in_blocks(sendable(values))
    half = _half_span(bits)
    needed = np.maximum(rows.max(axis=1, initial=0), -rows.min(axis=1, initial=0)) / half
    unit = np.float32(2.0) ** np.frexp(needed.max(initial=np.float32(2**-100)))[1]
    steps: NDArray[np.float16] = (needed / unit).astype(np.float16)
    steps = np.where(steps * unit < needed, np.nextafter(steps, np.float16(np.inf)), steps)
    divisors: Floats = np.where(steps > 0, steps * unit, np.float32(1))
    levels = rows / divisors[:, None]
    levels += half
    codes = rounded(levels.reshape(-1)[: len(values)], int(2 * half), seed if unbiased else None)
    return np.array(unit, "<f4").tobytes() + steps.astype("<f2", copy=False).tobytes() + pack(codes, bits)


def decode(body: Body, count: int, bits: int, seed: bytes) -> Floats:  # noqa: ARG001 - the interface of every codec
    """A codec's `decode`."""
    content = exactly(body, body_bytes(count, bits))
    end = UNIT_BYTES + STEP_BYTES * -(-count // BLOCK)
    unit = received(content[:UNIT_BYTES].view("<f4"), "unit")
    steps = received(content[UNIT_BYTES:end].view("<f2"), "scales") * unit
    levels: Floats = unpack(content[end:], count, bits).astype(np.float32)
    levels -= _half_span(bits)
    rows = _in_blocks(levels)
    rows *= steps[:, None]
    return rows.reshape(-1)[:count]


def _half_span(bits: int) -> np.float32:
    """Half the largest code: the code of zero, if there is one."""
    return np.float32(max(1, 2**bits - 2) / 2)


def _in_blocks(values: Floats) -> Floats:
    """(blocks, 64), the last one filled up with zeros."""
    missing = -len(values) % BLOCK
    return (np.pad(values, (0, missing)) if missing else values).reshape(-1, BLOCK)


BLOCKS = Codec(encode, decode, body_bytes, lambda *_: None, range(1, 9))
