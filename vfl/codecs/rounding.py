"""From real-valued levels to whole codes: to the nearest, or at random so that the mean is right."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfl.codecs.codec import Floats
from vfl.schedule import philox

AT_ONCE = 1 << 15
"""Values whose intermediate results stay in a core's cache: twice as fast as whole tensors."""


def rounded(levels: Floats, largest: int, seed: bytes | None) -> NDArray[Any]:
    """Codes 0 to `largest` (2^16 - 1 at most) for levels in that range, give or take the arithmetic's own rounding.

    With a seed a level between two codes becomes the upper one as often as it is close to it, and a whole level stays
    what it is (R3.6). Without a seed it becomes the nearest.
    """
    stream = philox(seed, "rounding") if seed is not None else None
    codes = np.empty(len(levels), np.min_scalar_type(largest))
    for start in range(0, len(levels), AT_ONCE):
        part = levels[start : start + AT_ONCE]
        whole = np.floor(part if stream else part + np.float32(0.5))
        if stream:
            # Compared, not added: a sum near 2^8 would lose the last bits, and with them the mean.
            whole += _uniform(stream, len(part)) < part - whole
        codes[start : start + AT_ONCE] = np.clip(whole, 0, largest, out=whole)
    return codes


def _uniform(stream: np.random.Philox, count: int) -> Floats:
    """Multiples of 2^-24 in [0, 1)."""
    words = stream.random_raw(-(-count // 2)).astype("<u8", copy=False).view("<u4")
    return (words[:count] >> 8) * np.float32(2**-24)
