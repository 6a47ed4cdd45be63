"""How much the error of a row counts by its class: at most 1, so that range and noise stay as they are planned."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vfl.spec.training import LARGEST_RATIO

Floats = NDArray[np.float64]


def class_weights(wanted: str | Mapping[str, float], names: Sequence[str], training: NDArray[np.int64]) -> Floats:
    """A weight for class 0, 1, ..., the largest 1; `training` are the classes of the training rows.

    `balanced` lets each class count as much as another in all. A class that a table does not name counts 1 before the
    largest is brought to 1.
    """
    if isinstance(wanted, str):
        counts = np.bincount(training, minlength=len(names))
        weights = counts[counts > 0].min() / np.maximum(counts, 1)
    else:
        weights = np.array([wanted.get(name, 1.0) for name in names])
    scaled: Floats = np.clip(weights / weights.max(), 1 / LARGEST_RATIO, 1.0)
    return scaled
