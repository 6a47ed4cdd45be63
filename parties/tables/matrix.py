"""Numbers of a table, rows x columns, that need no memory of their own: a file without a name, mapped where it is read.

Nobody else can open the file, and it is gone once the last process that holds it has ended, however it ends.
"""

import contextlib
import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from parties.errors import StorageFailed
from parties.worker.mapped_rows import mapped

Floats = NDArray[np.float64]

PART_ROWS = 1 << 16


class NamelessFile:
    """Open until nobody refers to it. Raises StorageFailed where the folder takes no more."""

    def __init__(self, folder: Path) -> None:
        with _storing(), tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            self.descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.descriptor)

    def write(self, data: memoryview) -> None:
        with _storing():
            while data:
                data = data[os.write(self.descriptor, data) :]


class Matrix(NamedTuple):
    numbers: Floats
    """To be read only."""
    file: NamelessFile | None = None
    """That holds them, float64; None where they are in memory, or where there are none."""

    def taken(self, places: NDArray[np.int64], folder: Path | None) -> "Matrix":
        """The rows at these places, in this order."""
        writer = MatrixWriter(self.numbers.shape[1], folder)
        for start in range(0, len(places), PART_ROWS):
            writer.add(self.numbers[places[start : start + PART_ROWS]])
        return writer.finish()


class MatrixWriter:
    """Raises StorageFailed where the folder takes no more."""

    def __init__(self, width: int, folder: Path | None) -> None:
        """Without a folder the numbers stay in memory."""
        self._width, self._rows, self._blocks = width, 0, list[Floats]()
        self._file = NamelessFile(folder) if folder is not None and width else None

    def add(self, block: Floats) -> None:
        """Further rows."""
        self._rows += len(block)
        if self._file is None:
            self._blocks.append(block)
        elif len(block):
            self._file.write(np.ascontiguousarray(block, np.float64).data.cast("B"))

    def finish(self) -> Matrix:
        if self._file is None or not self._rows:
            return Matrix(np.concatenate([np.zeros((0, self._width)), *self._blocks]))
        return Matrix(mapped(self._file.descriptor).reshape(self._rows, self._width), self._file)


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFailed(f"the rows of a job cannot be stored: {error.strerror}") from error
