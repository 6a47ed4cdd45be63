"""Loss and metric after every epoch, from the states both parties kept and both tables.

The label party itself never sees a score of a training row; the demonstration can, because it holds both tables.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from api.demo.training.baselines import JoinedRows
from vfl.models.halves import PREPARATION
from vfl.models.metrics import METRIC, measure
from vfl.models.preparation import Preparation
from vfl.models.scaling import Scaling
from vfl.models.scorer import SQUARE_ACTIVATION
from vfl.spec.training import Bottom, TrainingSpec

Floats = NDArray[np.float64]
State = dict[str, Floats]
"""A party's half of the model after an epoch."""


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
        label, feature = load_file(path), load_file(feature_epochs / path.name)
        scores = _scores(label, _embedding(spec.model.bottom, feature, rows.features), rows.own)
        label_scaling = Scaling(label["labels.mean"], label["labels.deviation"])
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


def _embedding(bottom: Bottom | None, state: State, features: Floats) -> Floats:
    """What the feature party would send of these rows, rows x embedding."""
    columns = _prepared(state, features)
    if bottom is None:
        return columns
    # Here and not above: a demonstration of a linear model does without torch, which takes seconds to load.
    from vfl.models.tabular import embed  # noqa: PLC0415

    prefix = "bottom."
    return embed(bottom, {name[len(prefix) :]: value for name, value in state.items() if prefix in name}, columns)


def _prepared(state: State, columns: Floats) -> Floats:
    """A party's columns, none of them of categories, as its half of the model takes them."""
    return Preparation.decode(state[PREPARATION].tobytes()).apply(columns, {})


def _scores(state: State, embedding: Floats, own: Floats) -> Floats:
    """The label party's top model, rows x outputs, in scaled units."""
    ones = np.ones((len(own), 1))
    joined = np.hstack([embedding, _prepared(state, own), ones])
    if "top.hidden" in state:
        alpha, beta = SQUARE_ACTIVATION
        neurons = joined @ state["top.hidden"].T
        joined = np.hstack([alpha * neurons**2 + beta * neurons, ones])
    scores: Floats = joined @ state["top.weights"].T
    return scores


def _losses(task: str, scores: Floats, labels: Floats, label_scaling: Scaling) -> Floats:
    """One loss per row from scores (rows x outputs, scaled units); over one-vs-rest outputs the mean."""
    if task == "regression":
        squared: Floats = 0.5 * ((scores - label_scaling.apply(labels[:, None])) ** 2).mean(axis=1)
        return squared
    targets = labels[:, None] == np.arange(scores.shape[1]) if task == "multiclass" else labels[:, None]
    logistic: Floats = (np.logaddexp(0.0, scores) - targets * scores).mean(axis=1)
    return logistic
