"""Values as they are: fp32 (`none`) and bf16 (`half`)."""

import numpy as np

from vfl.codecs.codec import Body, Codec, Floats, exactly, received, sendable
from vfl.schedule import philox

NEAREST_ERROR = 2**-14 / 12
"""Mean squared error of rounding to 8 significant bits where all values lie just above a power of two: a bound."""


def _encode_none(values: Floats, bits: int, seed: bytes, *, unbiased: bool) -> bytes:  # noqa: ARG001 - the interface
    return sendable(values).astype("<f4", copy=False).tobytes()


def _decode_none(body: Body, count: int, bits: int, seed: bytes) -> Floats:  # noqa: ARG001 - the interface
    return received(exactly(body, 4 * count).view("<f4"), "values").astype(np.float32)


def _encode_half(values: Floats, bits: int, seed: bytes, *, unbiased: bool) -> bytes:  # noqa: ARG001 - the interface
    words = sendable(values).view(np.uint32)
    if unbiased:
        noise = philox(seed, "half").random_raw(-(-len(words) // 4)).astype("<u8", copy=False)
        words = words + noise.view("<u2")[: len(words)]
    else:
        words = words + (0x7FFF + (words >> 16 & 1))  # to nearest, ties to even
    return (words >> 16).astype("<u2").tobytes()


def _decode_half(body: Body, count: int, bits: int, seed: bytes) -> Floats:  # noqa: ARG001 - the interface
    words = exactly(body, 2 * count).view("<u2").astype(np.uint32) << 16
    return received(words.view(np.float32), "values")


NONE = Codec(_encode_none, _decode_none, lambda count, _: 4 * count, lambda *_: 0.0, range(1, 33))
HALF = Codec(
    _encode_half,
    _decode_half,
    lambda count, _: 2 * count,
    # Rounding at random doubles the mean squared error of rounding to nearest.
    lambda _, unbiased: NEAREST_ERROR * (2 if unbiased else 1),
    range(1, 33),
)
