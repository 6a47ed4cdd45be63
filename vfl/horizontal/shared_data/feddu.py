"""The rule `feddu` as formulas: how far the mean moves towards a copy trained on shared rows (shared_data.md).

    w = (1 - a) w_mean + a w_shared,   a = min(1, C (1 - accuracy) omega decay^t)
    omega = n0 D(P') / (n0 D(P') + n' D(P0))

Source: FedDU of Zhang et al., "FedDUAP" (2022), which fills in the adjustment that EP4113394A3 leaves open.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST_STEP = 0.001
"""A move below it is none."""
LARGEST_RISE = 3.0
"""The held-out loss may rise by this factor before a step is undone."""
DEVIATIONS = 3.0
"""By so many deviations the shared copy must beat always naming the largest class, on average over the rounds."""


def divergence(one: Sequence[float] | NDArray[Any], other: Sequence[float] | NDArray[Any]) -> float:
    """Jensen-Shannon divergence of two distributions over classes, base 2, in [0, 1]. Counts are normalised."""
    p, q = _shares(one), _shares(other)
    middle = (p + q) / 2
    return max(0.0, (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2)


def share_of_shared(shared_rows: int, cohort_rows: int, cohort_divergence: float, shared_divergence: float) -> float:
    """omega: 1 where only the cohort leans away from all clients' mix, 0 where only the shared rows do."""
    towards, away = shared_rows * cohort_divergence, cohort_rows * shared_divergence
    return 1.0 if towards + away == 0 else towards / (towards + away)


def step_size(scale: float, accuracy: float, share: float, decay: float, round_number: int) -> float:
    """a of the module's formula, in [0, 1]."""
    return min(1.0, max(0.0, scale * (1 - accuracy) * share * decay**round_number))


def effective_steps(step: float, epochs: int, shared_rows: int, batch_rows: int) -> float:
    """tau_eff = a tau: the same move as so many normalised gradient steps at the aggregator."""
    return step * epochs * math.ceil(shared_rows / batch_rows)


def labels_look_wrong(accuracies: Sequence[float], largest_class_share: float, held_out_rows: int) -> bool:
    """Whether copies trained on shared rows do no better on held-out ones than naming the largest class.

    `accuracies` by round so far. Rows whose labels were permuted end here: their held-out loss never rises.
    """
    p = largest_class_share
    margin = DEVIATIONS * math.sqrt(p * (1 - p) / held_out_rows)
    return bool(accuracies) and sum(accuracies) / len(accuracies) <= p + margin


def _shares(counts: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
    values = np.asarray(counts, np.float64)
    total = values.sum()
    return values / total if total > 0 else np.full(len(values), 1 / len(values))


def _relative_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    present = p > 0
    return float((p[present] * np.log2(p[present] / q[present])).sum())
