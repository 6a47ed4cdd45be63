"""Loss and metric after every epoch, from the states both parties kept and both tables.

The label party itself never sees a score of a training row; the demonstration can, because it holds both tables.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from api.demo.training.joined_rows import JoinedRows
from vfl.models.halves import FeatureHalf, LabelHalf
from vfl.models.metrics import METRIC, measure
from vfl.models.scaling import Scaling
from vfl.spec.training import TrainingSpec

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EpochPoint:
    """One epoch of the curves."""

    epoch: int
    training_loss: float
    held_out_loss: float
    held_out_metric: float | None
    """None where it is not defined: an AUC over rows of one class."""


def curves(spec: TrainingSpec, rows: JoinedRows, label_epochs: Path, feature_epochs: Path) -> list[EpochPoint]:
    """A point per epoch that both parties kept in their folders, in order.

    Loss is the true logistic loss, or the squared error in scaled units.
    """
    train, test = rows.split(spec)
    task, points = spec.job.task, []
    for path in sorted(label_epochs.glob("epoch-*.safetensors")):
        if not (feature_epochs / path.name).exists():
            continue
        label = LabelHalf.read(spec, path.read_bytes())
        feature = FeatureHalf.read(spec, spec.roster.features[0], (feature_epochs / path.name).read_bytes())
        # No column of a demonstration holds words.
        scores = label.scorer.scores(feature.embed(rows.features, {}), label.own(rows.own, {}))
        losses = _losses(task, scores, rows.labels, label.unit)
        points.append(
            EpochPoint(
                epoch=int(re.findall(r"\d+", path.stem)[-1]),
                training_loss=float(losses[train].mean()),
                held_out_loss=float(losses[test].mean()),
                held_out_metric=measure(task, rows.labels[test], label.in_units(scores[test]))[METRIC[task]],
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
