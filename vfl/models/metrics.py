"""Held-out metrics, computed by the label party from scores only it sees."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

METRIC = {"binary": "auc", "multiclass": "accuracy", "regression": "r2"}
"""The metric a task is judged by."""


def measure(task: str, labels: Floats, scores: Floats) -> dict[str, float]:
    """The task's metric from labels (rows) and scores (rows x outputs). An AUC without both classes is NaN."""
    if task == "binary":
        return {"auc": auc(labels == 1, scores[:, 0])}
    if task == "multiclass":
        return {"accuracy": float(np.mean(labels == scores.argmax(axis=1)))}
    return {"r2": share_of_variance(labels, scores[:, 0])}


def share_of_variance(labels: Floats, scores: Floats) -> float:
    """R2: 1 - squared errors / squared distances from the mean. NaN where the labels are all the same or only one."""
    distances = float(np.square(labels - labels.mean()).sum())
    return 1.0 - float(np.square(labels - scores).sum()) / distances if distances else float("nan")


def auc(positive: NDArray[np.bool_], scores: Floats) -> float:
    """The share of pairs of a positive and another row in which the positive one has the larger score; ties count half.

    NaN without rows of both kinds, and where a score is no number.
    """
    if np.isnan(scores).any():
        return float("nan")
    _, at, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[at]
    ours, others = int(positive.sum()), int((~positive).sum())
    if not ours or not others:
        return float("nan")
    return float((ranks[positive].sum() - ours * (ours + 1) / 2) / (ours * others))


def auc_of_classes(labels: NDArray[np.int64], scores: Floats) -> float:
    """Of scores (rows x classes): that of the second of two classes; of more, the mean over those that have rows.

    Each class is set against the rest. NaN where there is one only.
    """
    return float(np.mean([auc(labels == label, scores[:, label]) for label in ranked_classes(labels, scores)]))


def ranked_classes(labels: NDArray[np.int64], scores: Floats) -> list[int]:
    """The classes whose AUC enters that mean."""
    return [1] if scores.shape[1] == 2 else [int(label) for label in np.unique(labels)]
