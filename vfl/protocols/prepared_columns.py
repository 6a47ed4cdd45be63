"""A party's own columns in a training job, prepared as the specification says, row by row as they are asked for."""

import numpy as np
from numpy.typing import NDArray

from vfl.models.preparation import Preparation
from vfl.notices import Notice
from vfl.setup import Setup
from vfl.spec.training import TrainingSpec

Floats = NDArray[np.float64]


class PreparedColumns:
    """Fitted on the training rows when it is made, unless a model that the job starts from brings how it was done; rows
    are prepared when they are needed, so that no copy is kept."""

    def __init__(self, setup: Setup[TrainingSpec], fitted: Preparation | None = None) -> None:
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

    @property
    def stored(self) -> NDArray[np.uint8]:
        return np.frombuffer(self._preparation.encode(), np.uint8)
