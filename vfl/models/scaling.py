"""Inputs are bounded by their owner before they enter a job: standardised on its own training rows, then clipped.

Under encryption nothing can be clipped later, so the bound holds before the first ciphertext is made
(ckks_training.md).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vfl.planning.training import INPUT_BOUND

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation per column, fitted on training rows; part of the owner's half of the model."""

    mean: Floats
    deviation: Floats

    @classmethod
    def fit(cls, columns: Floats) -> "Scaling":
        """From rows x columns. A constant column keeps deviation 1 and becomes zero."""
        return cls.of(columns.mean(axis=0), columns.std(axis=0))

    @classmethod
    def of(cls, mean: Floats, deviation: Floats) -> "Scaling":
        """The same from these, per column."""
        return cls(mean, np.where(deviation > 0, deviation, 1.0))

    def apply(self, columns: Floats) -> Floats:
        """Standardised and clipped to +-INPUT_BOUND, rows x columns."""
        return np.clip((columns - self.mean) / self.deviation, -INPUT_BOUND, INPUT_BOUND)
