"""A party's own columns in a training job, prepared as the specification says, row by row as they are asked for."""

import numpy as np
from numpy.typing import NDArray

from vfl.models.preparation import PART_ROWS, Preparation
from vfl.models.rare_values import RareValues
from vfl.notices import Notice
from vfl.schedule import blocks
from vfl.setup import J, Setup

Floats = NDArray[np.float64]


class PreparedColumns:
    """Fitted on the training rows when it is made, unless a model that the job starts from brings how it was done; rows
    are prepared when they are needed, so that no copy is kept."""

    def __init__(self, setup: Setup[J], fitted: Preparation | None = None) -> None:
        own, table = setup.spec.data[setup.me], setup.table
        training = setup.training_rows
        self._table = table
        self._preparation = fitted or Preparation.fit(
            own.columns, own.steps, table.columns, training, table.words, table.labels
        )
        self.notices: tuple[Notice, ...] = () if fitted else tuple(self._preparation.notices())

    def rows(self, rows: NDArray[np.int64]) -> Floats:
        """rows x width of these rows, within +-INPUT_BOUND."""
        return self._preparation.apply(self._table.numbers(rows), self._table.words)

    def without_rare_values(
        self, rows: NDArray[np.int64], least_rows: int
    ) -> tuple[NDArray[np.bool_], tuple[Notice, ...]]:
        """Which of the prepared columns tell no fewer of these rows from all others, and what the owner hears of it."""
        rare = RareValues(self._preparation, least_rows)
        for part in blocks(rows, PART_ROWS):
            rare.count(self._table.numbers(part), self._table.words)
        return rare.usable(), tuple(rare.notices())

    @property
    def stored(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._preparation.encode(), np.uint8)
