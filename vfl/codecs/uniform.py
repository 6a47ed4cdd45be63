"""Equal steps between the least and the largest value of a tensor: the plainest quantiser, and the usual baseline."""

import numpy as np

from vfl.codecs.codec import Body, Codec, Floats, exactly, received, sendable
from vfl.codecs.packing import pack, packed_bytes, unpack
from vfl.codecs.rounding import rounded

SCALE_BYTES = 8


def body_bytes(count: int, bits: int) -> int:
    return SCALE_BYTES + packed_bytes(count, bits)


def encode(values: Floats, bits: int, seed: bytes, *, unbiased: bool) -> bytes:
    """A codec's `encode`: least value and step (fp32), then packed codes. Unbiased means rounding at random."""
    sendable(values)
    largest = 2**bits - 1
    low = values.min() if len(values) else np.float32(0)
    step = np.float32((values.max(initial=low) - low) / largest)
    levels = values - low
    levels /= max(step, np.float32(1e-45))  # nothing above the least value: all levels are 0
    codes = rounded(levels, largest, seed if unbiased else None)
    return np.array([low, step], "<f4").tobytes() + pack(codes, bits)


def decode(body: Body, count: int, bits: int, seed: bytes) -> Floats:  # noqa: ARG001 - the interface of every codec
    """A codec's `decode`."""
    content = exactly(body, body_bytes(count, bits))
    low, step = received(content[:SCALE_BYTES].view("<f4"), "scales")
    return unpack(content[SCALE_BYTES:], count, bits) * np.float32(step) + np.float32(low)


UNIFORM = Codec(encode, decode, body_bytes, lambda *_: None, range(1, 9))
