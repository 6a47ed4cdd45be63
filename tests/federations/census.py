"""Which large blocks of numbers are alive: for tests that nothing keeps a model at full precision (R3.1)."""

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

LARGE = 4 * 1024
"""Bytes of the smallest tensor that is compressed, at full precision (R3.2)."""

Census = Callable[[], list[int]]
"""Sizes in bytes, ascending, of what has come up since the census began and is still alive."""


@contextmanager
def census() -> Iterator[Census]:
    """Counts blocks of torch and of numpy; plain bytes, such as messages and packed codes, are not counted.

    A tensor of torch is known to the garbage collector whoever refers to it. An array is not, but numpy tells
    tracemalloc of each block it takes. Collecting first, freezing what is there keeps the count quick.
    """
    gc.collect()
    gc.freeze()
    tracemalloc.start()
    try:
        yield _alive
    finally:
        tracemalloc.stop()
        gc.unfreeze()


def _alive() -> list[int]:
    gc.collect()
    tensors = [one.untyped_storage() for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    # What a tensor shares with an array cannot be resized, and is counted as the array's.
    storages = {storage.data_ptr(): storage.nbytes() for storage in tensors if storage.resizable()}
    arrays = tracemalloc.take_snapshot().filter_traces(
        [tracemalloc.DomainFilter(inclusive=True, domain=np.lib.tracemalloc_domain)]
    )
    return sorted(size for size in [*storages.values(), *(trace.size for trace in arrays.traces)] if size >= LARGE)
