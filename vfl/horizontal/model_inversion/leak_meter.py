"""How much a model, or rows found in it, tell of the rows it was trained on (R2.7)."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

FLAGGED_BELOW = 0.5
ROWS_AT_ONCE = 256


class Nearness(NamedTuple):
    """Distances of found rows to the nearest training row, in units of what is usual between rows of this data."""

    lowest: float
    """5th percentile."""
    median: float

    @property
    def flagged(self) -> bool:
        """One found row in twenty lies much closer to a training row than other rows do."""
        return self.lowest < FLAGGED_BELOW


def nearness(inverted_rows: Floats, training: Floats, held_out: Floats | None = None) -> Nearness:
    """Of inverted rows (rows, ...) to training rows; 1 is the median distance of held-out rows to training rows.

    Without held-out rows each training row is held out in turn. Rows that all lie in one place give infinite ratios, or
    0 for those that lie there too.
    """
    rows = _flat(training)
    usual = _nearest(rows, rows, itself=True) if held_out is None else _nearest(_flat(held_out), rows)
    unit = float(np.median(usual)) if len(usual) else 0.0
    distances = _nearest(_flat(inverted_rows), rows)
    ratios = distances / unit if unit else np.where(distances > 0, np.inf, 0.0)
    return Nearness(float(np.percentile(ratios, 5)), float(np.median(ratios)))


def membership_auc(members: Floats, others: Floats) -> float:
    """Area under the curve of the attack that calls the rows with the smallest losses members; 0.5 is guessing.

    Losses (rows,) of rows the model was trained on, and of rows of the same kind it was not (Yeom et al. 2018).
    """
    losses = np.concatenate([members, others])
    _, tie, counts = np.unique(losses, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[tie]  # from 1; equal losses share theirs
    above = ranks[len(members) :].sum() - len(others) * (len(others) + 1) / 2
    return float(above / (len(members) * len(others)))


def _flat(rows: Floats) -> NDArray[np.float64]:
    return np.asarray(rows, np.float64).reshape(len(rows), -1)


def _nearest(rows: NDArray[np.float64], among: NDArray[np.float64], *, itself: bool = False) -> NDArray[np.float64]:
    """Euclidean distance of each row to the nearest other; `itself` says that rows and others are the same."""
    if len(among) < 1 + itself:
        return np.zeros(0)
    lengths, nearest = (among**2).sum(1), np.empty(len(rows))
    for start in range(0, len(rows), ROWS_AT_ONCE):
        block = rows[start : start + ROWS_AT_ONCE]
        squares = (block**2).sum(1)[:, None] + lengths - 2 * block @ among.T
        if itself:
            squares[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
        nearest[start : start + ROWS_AT_ONCE] = np.sqrt(np.maximum(squares.min(1), 0.0))
    return nearest
