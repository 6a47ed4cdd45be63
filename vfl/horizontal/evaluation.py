"""How good a model of rounds is on rows with labels."""

import math

import torch

from vfl.horizontal.hooks import Examples, SharedModule
from vfl.models.intervals import ends, intervals, of_auc_of_classes
from vfl.models.local_training import Evaluation, evaluate
from vfl.models.metrics import auc_of_classes
from vfl.spec.rounds import RoundsSpec

SCORE = {"binary": "accuracy", "multiclass": "accuracy", "regression": "r2"}
"""What measures a model of each task on test rows."""


def measured(
    spec: RoundsSpec, shared_module: SharedModule, examples: Examples, *, ranking: bool = False
) -> dict[str, float]:
    """Accuracy, or R2 of a regression, and the mean loss; with `ranking` the AUC of classes, where there is one."""
    labels, evaluation = _evaluated(spec, shared_module, examples)
    regression = spec.job.task == "regression"
    score = evaluation.correct / evaluation.rows
    if regression:
        score = 1 + score / max(float(labels.double().var(unbiased=False)), 1e-12)
    area = math.nan
    if ranking and not regression:
        area = auc_of_classes(labels.numpy(), evaluation.scores.softmax(1).double().numpy())
    return {SCORE[spec.job.task]: score} | ({} if math.isnan(area) else {"auc": area}) | {"loss": evaluation.loss}


def intervals_of(spec: RoundsSpec, shared_module: SharedModule, examples: Examples, seed: bytes) -> dict[str, float]:
    """Both ends for each score that `measured` gives of the same rows, where it is defined."""
    labels, evaluation = _evaluated(spec, shared_module, examples)
    scores = evaluation.scores.double()
    if spec.job.task == "regression":
        return intervals("regression", labels.double().numpy(), scores.numpy(), seed)
    area = of_auc_of_classes(labels.numpy(), scores.softmax(1).numpy())
    accuracy = intervals("multiclass", labels.double().numpy(), scores.numpy(), seed)
    return accuracy | ({} if area is None else ends("auc", area))


def _evaluated(spec: RoundsSpec, shared_module: SharedModule, examples: Examples) -> tuple[torch.Tensor, Evaluation]:
    """The rows' labels, and how good the model is on them."""
    if examples.labels is None:
        raise ValueError("test rows need labels")
    inputs, regression = shared_module.embed(examples.inputs), spec.job.task == "regression"
    return examples.labels, evaluate(shared_module.module, inputs, examples.labels, regression=regression)
