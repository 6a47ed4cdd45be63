"""What the label party makes of scores of the held-out rows, however the model was trained."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vfl.models.held_out import few_rows, of_classes
from vfl.models.intervals import intervals
from vfl.models.metrics import measure
from vfl.models.scaling import Scaling
from vfl.models.score_curves import score_curves
from vfl.notices import Notice
from vfl.setup import J, Setup

Floats = NDArray[np.float64]


class Judged(NamedTuple):
    metrics: dict[str, float]
    series: dict[str, list[float]]
    notices: list[Notice]


def judged(setup: Setup[J], labels: Floats, names: tuple[str, ...], unit: Scaling, scores: Floats, loss: str) -> Judged:
    """`labels` are of all rows, `names` of the classes, and `loss` is the form of the loss error.

    `scores` are rows x outputs in units of `unit`, NaN where they are not known.
    """
    spec, held_out = setup.spec, setup.test_rows
    unknown = np.isnan(scores).any(axis=1)
    unscaled, truth, task = in_units(unit, np.nan_to_num(scores)), labels[held_out], spec.job.task
    notices = list(few_rows(len(truth)))
    if task != "regression":
        drawn = spec.split.test if spec.split.by == "random" else None
        notices += of_classes(labels, held_out, names, drawn)
    if unknown.any():
        text = (
            f"diverged: the scores of {unknown.sum()} of {len(scores)} held-out rows left the range of the agreed "
            "parameters and count as zero in the metrics."
        )
        notices.append(Notice("warning", "diverged", text))
    return Judged(
        measure(task, truth, unscaled) | intervals(task, truth, unscaled, setup.joint_seed),
        score_curves(task, truth, unscaled, loss),
        notices,
    )


def in_units(unit: Scaling, scores: Floats) -> Floats:
    """Of a regression in those of its label; scores of classes are as they are."""
    return scores * unit.deviation + unit.mean
