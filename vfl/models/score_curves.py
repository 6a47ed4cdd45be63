"""What the label party keeps of its held-out scores: points of curves, few enough to store and to draw."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROC_POINTS = 101
BINS, BIN_ROWS = 10, 5
"""Most bins of a calibration, and the fewest rows of each."""


def score_curves(task: str, labels: Floats, scores: Floats, loss: str) -> dict[str, list[float]]:
    """By task, from labels (rows) and scores (rows x outputs); `loss` is the form of the loss error that was trained.

    binary: `roc_*`, shares of both classes above each threshold, and `calibration_*` by bins of the predicted
    probability. regression: `calibration_*` by bins of the prediction. multiclass: `class_rows` and `class_recall`.
    """
    if task == "multiclass":
        rows = np.array([(labels == k).sum() for k in range(scores.shape[1])], np.float64)
        correct = np.array([((labels == k) & (scores.argmax(axis=1) == k)).sum() for k in range(scores.shape[1])])
        recall = np.divide(correct, rows, out=np.full(len(rows), np.nan), where=rows > 0)
        return {"class_rows": rows.tolist(), "class_recall": recall.tolist()}
    if task == "regression":
        return _calibration(labels, scores[:, 0])
    curves = _calibration(labels, _probability(scores[:, 0], loss))
    return curves | _roc(labels, scores[:, 0]) if len(np.unique(labels)) > 1 else curves


def _probability(scores: Floats, loss: str) -> Floats:
    """What the trained loss error takes the label to be: the logistic function, or its line at 0."""
    if loss == "linear":
        return np.clip(scores / 4 + 0.5, 0.0, 1.0)
    logistic: Floats = 1 / (1 + np.exp(-np.clip(scores, -500, 500)))
    return logistic


def _roc(labels: Floats, scores: Floats) -> dict[str, list[float]]:
    thresholds, which = np.unique(-scores, return_inverse=True)
    shown = np.unique(np.linspace(0, len(thresholds), ROC_POINTS).round().astype(int))

    def above(rows: NDArray[np.bool_]) -> list[float]:
        """Shares of these rows whose score is at least the first, second, ... largest; before them none."""
        counts = np.bincount(which, weights=rows, minlength=len(thresholds))
        shares = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
        return [float(share) for share in shares[shown]]

    return {"roc_false_positives": above(labels != 1), "roc_true_positives": above(labels == 1)}


def _calibration(labels: Floats, predicted: Floats) -> dict[str, list[float]]:
    bins = np.array_split(np.argsort(predicted, kind="stable"), max(1, min(BINS, len(labels) // BIN_ROWS)))
    return {
        "calibration_predicted": [float(predicted[rows].mean()) for rows in bins],
        "calibration_found": [float(labels[rows].mean()) for rows in bins],
        "calibration_rows": [float(len(rows)) for rows in bins],
    }
