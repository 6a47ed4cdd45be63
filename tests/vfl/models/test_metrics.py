"""The AUC is that of the library which would double the time in which a job is checked."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from vfl.models.metrics import auc, auc_of_classes

DRAWS = np.random.default_rng(5)


@pytest.mark.parametrize("digits", [1, 2, 8], ids=["many ties", "some ties", "no ties"])
def test_an_auc_is_the_share_of_pairs_in_the_right_order(digits: int) -> None:
    labels = DRAWS.integers(0, 2, 400)
    scores = np.round(labels + DRAWS.normal(0, 2, 400), digits)
    assert auc(labels == 1, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_of_several_classes_each_is_set_against_the_rest() -> None:
    labels = DRAWS.integers(0, 4, 400)
    scores = DRAWS.random((400, 4)) + np.eye(4)[labels]
    scores /= scores.sum(axis=1, keepdims=True)
    of_library = roc_auc_score(labels, scores, multi_class="ovr")
    assert auc_of_classes(labels, scores) == pytest.approx(of_library, abs=1e-12)
    both = labels < 2
    of_two = scores[both, :2] / scores[both, :2].sum(axis=1, keepdims=True)
    assert auc_of_classes(labels[both], of_two) == pytest.approx(roc_auc_score(labels[both], of_two[:, 1]), abs=1e-12)


def test_there_is_none_of_one_class_nor_of_scores_that_are_no_numbers() -> None:
    assert math.isnan(auc(np.array([True, True]), np.array([0.1, 0.2])))
    assert math.isnan(auc(np.array([True, False]), np.array([np.nan, 0.2])))
    assert math.isnan(auc_of_classes(np.array([1, 1]), np.array([[0.5, 0.5], [0.1, 0.9]])))
