"""From real-valued levels to whole codes: to the nearest, or at random so that the mean is right."""

import numpy as np

from vfl.codecs.codec import Bytes, Floats
from vfl.schedule import philox


def rounded(levels: Floats, largest: int, seed: bytes | None) -> Bytes:
    """Codes 0 to `largest` (at most 255) for levels in that range, give or take the arithmetic's own rounding.

    With a seed a level between two codes becomes the upper one as often as it is close to it, and a whole level stays
    what it is (R3.6). Without a seed it becomes the nearest.
    """
    if seed is None:
        whole: Floats = np.floor(levels + np.float32(0.5))
    else:
        words = philox(seed, "rounding").random_raw(-(-len(levels) // 2)).astype("<u8", copy=False).view("<u4")
        uniform = (words[: len(levels)] >> 8) * np.float32(2**-24)
        whole = np.floor(levels)
        # Compared, not added: a sum near 2^8 would lose the last bits, and with them the mean.
        whole += uniform < levels - whole
    codes: Bytes = np.clip(whole, 0, largest, out=whole).astype(np.uint8)
    return codes
