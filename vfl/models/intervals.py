"""How far a metric over few rows can be from the truth: 95 % confidence intervals over held-out rows.

AUC: DeLong's variance (DeLong et al. 1988, Biometrics 44) on the logit scale; where all pairs are ordered alike it is
zero, and Newcombe's score interval (Newcombe 2006, Statistics in Medicine 25, method 5) stands in. AUC of several
classes: the mean of the intervals of its classes. Accuracy: Wilson's interval. R2: percentiles of a seeded bootstrap.
Each speaks of other rows of the same kind, not of another training.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vfl.models.metrics import auc, ranked_classes
from vfl.schedule import philox

Floats = NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]

LEVEL = 0.95
NORMAL = 1.959963984540054
"""Quantile of the normal distribution for that level."""
RESAMPLES, DRAWS = 1000, 20_000_000
"""Of a bootstrap: how many, and of how many rows together at most."""
FEWEST_RESAMPLES = 200


def intervals(task: str, labels: Floats, scores: Floats, seed: bytes) -> dict[str, float]:
    """Both ends for the task's metric, from labels (rows) and scores (rows x outputs); none where it is not defined."""
    if task == "multiclass":
        return ends("accuracy", of_share(int((labels == scores.argmax(axis=1)).sum()), len(labels)))
    interval = of_auc(labels == 1, scores[:, 0]) if task == "binary" else of_r2(labels, scores[:, 0], seed)
    return {} if interval is None else ends("auc" if task == "binary" else "r2", interval)


def ends(name: str, interval: Interval) -> dict[str, float]:
    """As they stand among the metrics of a job."""
    return {f"{name}_low": interval[0], f"{name}_high": interval[1]}


def of_share(hits: int, rows: int) -> Interval:
    """Wilson's interval of a share (Wilson 1927, JASA 22). That of scipy.stats would double a worker's start."""
    square = NORMAL**2
    middle, reach = hits + square / 2, NORMAL * math.sqrt(hits * (rows - hits) / rows + square / 4)
    low, high = (middle - reach) / (rows + square), (middle + reach) / (rows + square)
    return (low if hits else 0.0), (high if hits < rows else 1.0)


def of_auc(positive: NDArray[np.bool_], scores: Floats) -> Interval | None:
    area = auc(positive, scores)
    if math.isnan(area):
        return None
    ours, others = int(positive.sum()), int((~positive).sum())
    variance = _delong_variance(positive, scores) if min(ours, others) > 1 else 0.0
    if not variance or area in {0.0, 1.0}:
        return of_auc_of_counts(area, ours, others)
    middle, reach = math.log(area / (1 - area)), NORMAL * math.sqrt(variance) / (area * (1 - area))
    return _logistic(middle - reach), _logistic(middle + reach)


def of_auc_of_classes(labels: NDArray[np.int64], scores: Floats) -> Interval | None:
    """Of `metrics.auc_of_classes`: a mean deviates by no more than its classes do on average."""
    areas = [of_auc(labels == label, scores[:, label]) for label in ranked_classes(labels, scores)]
    defined = [interval for interval in areas if interval is not None]
    if not defined or len(defined) < len(areas):
        return None
    low, high = np.mean(defined, axis=0)
    return float(low), float(high)


def of_auc_of_counts(area: float, positives: int, others: int) -> Interval:
    """Of an AUC and the two numbers of rows alone: all areas no further off than their own deviation allows."""

    def excess(other: float) -> float:
        spread = 1 + ((positives + others) / 2 - 1) * ((1 - other) / (2 - other) + other / (1 + other))
        return (area - other) ** 2 - NORMAL**2 * other * (1 - other) * spread / (positives * others)

    return (_root(excess, 0.0, area) if area > 0 else 0.0), (_root(excess, 1.0, area) if area < 1 else 1.0)


def of_r2(labels: Floats, predicted: Floats, seed: bytes) -> Interval | None:
    rows = len(labels)
    if rows < 2 or not np.ptp(labels):
        return None
    draw = np.random.Generator(philox(seed, "bootstrap"))
    values = []
    for _ in range(max(FEWEST_RESAMPLES, min(RESAMPLES, DRAWS // rows))):
        drawn = draw.integers(0, rows, rows)
        truth = labels[drawn]
        total = float(((truth - truth.mean()) ** 2).sum())
        if total > 0:
            values.append(1 - float(((truth - predicted[drawn]) ** 2).sum()) / total)
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _delong_variance(positive: NDArray[np.bool_], scores: Floats) -> float:
    ours, others = np.sort(scores[positive]), np.sort(scores[~positive])
    return float(np.var(_below(others, ours), ddof=1) / len(ours) + np.var(_below(ours, others), ddof=1) / len(others))


def _below(sample: Floats, values: Floats) -> Floats:
    """The share of a sorted sample below each value; ties count half."""
    below: Floats = (np.searchsorted(sample, values, "left") + np.searchsorted(sample, values, "right")) / 2
    return below / len(sample)


def _root(function: Callable[[float], float], outside: float, inside: float) -> float:
    """Bisected between an end at which the function is positive and a point at which it is not."""
    for _ in range(60):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if function(middle) > 0 else (outside, middle)
    return inside


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0
