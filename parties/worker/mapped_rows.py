"""Rows in a file that are mapped into memory: they are read when they are looked at, and need not stay."""

import mmap

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def mapped(descriptor: int) -> Floats:
    """The numbers in an open file, to be read only."""
    return np.frombuffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.float64)


def release(numbers: Floats) -> None:
    """Pages of their file that were looked at leave memory; they are read again when they are wanted."""
    base: object = numbers
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
