"""Momentum that outlives a round, at 8 bits per value (R3.7)."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfl.codecs import CODECS

CODEC, BITS = CODECS["block"], 8


def pack(momentum: NDArray[Any], seed: bytes) -> bytes:
    """Rounded at random, so that small changes are not lost for good. Raises Diverged where it is not finite."""
    return CODEC.encode(momentum.reshape(-1), BITS, seed, unbiased=True)


def unpack(body: bytes, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Raises InvalidBody."""
    return CODEC.decode(body, math.prod(shape), BITS, b"").reshape(shape)
