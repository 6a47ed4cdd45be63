"""How good a model of rounds is on rows with labels."""

import math

from vfl.horizontal.hooks import Examples, SharedModule
from vfl.models.local_training import evaluate
from vfl.models.metrics import auc_of_classes
from vfl.spec.rounds import RoundsSpec

SCORE = {"binary": "accuracy", "multiclass": "accuracy", "regression": "r2"}
"""What measures a model of each task on test rows."""


def measured(
    spec: RoundsSpec, shared_module: SharedModule, examples: Examples, *, ranking: bool = False
) -> dict[str, float]:
    """Accuracy, or R2 of a regression, and the mean loss; with `ranking` the AUC of classes, where there is one."""
    labels = examples.labels
    if labels is None:
        raise ValueError("test rows carry labels")
    regression = spec.job.task == "regression"
    found = evaluate(shared_module.module, shared_module.embed(examples.inputs), labels, regression=regression)
    score = found.correct / found.rows
    if regression:
        score = 1 + score / max(float(labels.double().var(unbiased=False)), 1e-12)
    area = math.nan
    if ranking and not regression:
        area = auc_of_classes(labels.numpy(), found.scores.softmax(1).double().numpy())
    return {SCORE[spec.job.task]: score} | ({} if math.isnan(area) else {"auc": area}) | {"loss": found.loss}
