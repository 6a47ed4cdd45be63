"""What sums over rows cost on this machine: a block and an answer by each party, for each polynomial that it takes."""

import statistics
from collections.abc import Callable, Iterator

import numpy as np

from crypto.moments import ColumnsKey, EncryptedColumns, RunningSums
from crypto.moments_parameters import MOST_BLOCK_ROWS, MomentsScale

COLUMNS, TIMES = 16, 5
"""Of each party; the check column is one more."""


def costs(clock: Callable[[], float]) -> Iterator[tuple[str, float]]:
    """`clock` tells processor seconds of this process."""

    def seconds(action: Callable[[], object]) -> float:
        times = []
        for _ in range(TIMES):
            start = clock()
            action()
            times.append(clock() - start)
        return statistics.median(times)

    scale, rows = MomentsScale(MOST_BLOCK_ROWS), np.ones((MOST_BLOCK_ROWS, COLUMNS), np.int64)
    key = ColumnsKey(COLUMNS, scale)
    encrypted = key.encrypt(1, rows)
    columns = EncryptedColumns(key.public, COLUMNS, COLUMNS, scale)
    sums = RunningSums(columns)
    sums.add(columns.block(1, encrypted, rows))
    answer = sums.answer()
    yield "encrypted column", seconds(lambda: key.encrypt(2, rows)) / (COLUMNS + 1)
    yield "multiplied column", seconds(lambda: columns.block(1, encrypted, rows)) / COLUMNS
    yield "answered column", seconds(sums.answer) / COLUMNS
    yield "opened column", seconds(lambda: key.open(answer, COLUMNS)) / COLUMNS
