"""Loss and metric after every epoch, from the states the label party kept and both tables.

The label party itself never sees a score of a training row; the demonstration can, because it holds both tables.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from api.demo.baselines import JoinedRows
from vfl.job import JobSpec
from vfl.metrics import METRIC, measure
from vfl.scaling import Scaling

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EpochPoint:
    """One epoch of the curves."""

    epoch: int
    training_loss: float
    held_out_loss: float
    held_out_metric: float | None
    """None where it is not defined: an AUC over rows of one class."""


def curves(spec: JobSpec, rows: JoinedRows, epochs_folder: Path) -> list[EpochPoint]:
    """A point per kept epoch, in order. Loss is the true logistic loss, or the squared error in scaled units."""
    train, test = rows.split(spec)
    features = Scaling.fit(rows.features[train]).apply(rows.features)
    task, points = spec.job.task, []
    for path in sorted(epochs_folder.glob("epoch-*.safetensors")):
        state = load_file(path)
        own = Scaling(state["scaling.mean"], state["scaling.deviation"]).apply(rows.own)
        label_scaling = Scaling(state["labels.mean"], state["labels.deviation"])
        scores = np.column_stack([features, own, np.ones(len(own))]) @ state["top.weights"].T
        unscaled = scores * label_scaling.deviation + label_scaling.mean
        losses = _losses(task, scores, rows.labels, label_scaling)
        points.append(
            EpochPoint(
                epoch=int(re.findall(r"\d+", path.stem)[-1]),
                training_loss=float(losses[train].mean()),
                held_out_loss=float(losses[test].mean()),
                held_out_metric=measure(task, rows.labels[test], unscaled[test])[METRIC[task]],
            )
        )
    return points


def _losses(task: str, scores: Floats, labels: Floats, label_scaling: Scaling) -> Floats:
    """One loss per row from scores (rows x outputs, scaled units); over one-vs-rest outputs the mean."""
    if task == "regression":
        squared: Floats = 0.5 * ((scores - label_scaling.apply(labels[:, None])) ** 2).mean(axis=1)
        return squared
    targets = labels[:, None] == np.arange(scores.shape[1]) if task == "multiclass" else labels[:, None]
    logistic: Floats = (np.logaddexp(0.0, scores) - targets * scores).mean(axis=1)
    return logistic
