"""Gaussian noise for protections that stay in a value, fresh unless the same noise must come again."""

import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FRESH: Callable[[int], bytes] = os.urandom
"""So many bytes that never come again."""
_FRACTION_BITS = 53


def gaussian(shape: tuple[int, ...], deviation: float, draw: Callable[[int], bytes] = FRESH) -> NDArray[np.float64]:
    """Independent normal numbers with mean 0 and this standard deviation (Box and Muller, 1958), from so many bytes as
    `draw` is asked for."""
    count = int(np.prod(shape))
    if not deviation:
        return np.zeros(shape)
    words = np.frombuffer(draw(16 * count), "<u8").reshape(2, count) >> np.uint64(64 - _FRACTION_BITS)
    radius, angle = (words + 0.5) / 2.0**_FRACTION_BITS
    values: NDArray[np.float64] = np.sqrt(-2 * np.log(radius)) * np.cos(2 * np.pi * angle)
    return deviation * values.reshape(shape)


def complex_gaussian(
    shape: tuple[int, ...], deviation: float, draw: Callable[[int], bytes] = FRESH
) -> NDArray[np.complex128]:
    """The same in real and in imaginary parts."""
    return gaussian(shape, deviation, draw) + 1j * gaussian(shape, deviation, draw)
