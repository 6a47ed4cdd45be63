"""The label party's model on its own columns alone: what it scores with when the feature party is away.

It is the training's own top model without an embedding: the same loss, batches, optimiser and limit, in clear, beside
the joint model. So the two differ in nothing but the feature parties' columns. Nothing of it leaves the label party.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfl.models.halves import OF_OWN_COLUMNS
from vfl.models.polynomial import Numbers, Top
from vfl.models.scorer import Shape
from vfl.spec.sections import Optimiser

Floats = NDArray[np.float64]
NUMBERS = Numbers()


class OwnColumnsModel:
    """Learns step by step, as the joint model does; an update that leaves the agreed range is left out there too."""

    def __init__(self, shape: Shape, loss: str, optimiser: Optimiser, private_seed: bytes, weight_limit: float) -> None:
        self._top = Top(shape.without_embedding, loss, optimiser, private_seed, weight_limit)
        self._sums: Floats = np.zeros(1)

    def add(self, own: Floats, targets: Floats, row_weights: Floats | None) -> None:
        """Rows of this step: own columns (rows x columns), targets (rows x outputs), how much each counts."""
        self._sums = self._sums + NUMBERS.sums(self._top.passes(NUMBERS, [], own, targets, row_weights).products)

    def update(self, rows: float) -> None:
        """One step on all rows that were added since the last one; `rows` is their number, or the sum of weights."""
        sums, self._sums = self._sums, np.zeros(1)
        self._top.update(sums, rows)

    def checkpoint(self) -> dict[str, Any]:
        """Between two steps; `go_on_from` takes it."""
        return self._top.checkpoint()

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        self._top.go_on_from(state)

    def scores(self, own: Floats) -> Floats:
        """Rows x outputs, in scaled units."""
        return self._top.scores(np.zeros((len(own), 0)), own)

    def restore(self, tensors: Mapping[str, Floats]) -> None:
        """Take weights as `tensors` gave them, where there are any: not every release has fitted such a model."""
        if any(name.startswith(OF_OWN_COLUMNS) for name in tensors):
            self._top.restore(tensors, OF_OWN_COLUMNS)

    def tensors(self) -> dict[str, Floats]:
        return self._top.tensors(OF_OWN_COLUMNS)
