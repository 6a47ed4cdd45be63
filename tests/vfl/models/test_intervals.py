"""Confidence intervals of held-out metrics, held to their definitions, to published values and to known truths."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import norm

from vfl.models.intervals import (
    NORMAL,
    Interval,
    _delong_variance,
    intervals,
    of_auc,
    of_auc_of_classes,
    of_auc_of_counts,
    of_r2,
    of_share,
)
from vfl.models.metrics import auc, auc_of_classes

SEED = b"seed"


def found(interval: Interval | None) -> Interval:
    assert interval is not None
    return interval


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_share_has_wilsons_interval(hits, rows, low, high):
    assert of_share(hits, rows) == pytest.approx((low, high), abs=5e-5)


def test_delongs_variance_is_that_of_its_definition():
    random = np.random.default_rng(3)
    positive, scores = random.random(60) < 0.3, np.round(random.normal(size=60), 1)
    ours, others = scores[positive], scores[~positive]
    pairs = np.array([[(a > b) + 0.5 * (a == b) for b in others] for a in ours])
    expected = pairs.mean(axis=1).var(ddof=1) / len(ours) + pairs.mean(axis=0).var(ddof=1) / len(others)
    assert _delong_variance(positive, scores) == pytest.approx(expected, rel=1e-12)
    assert auc(positive, scores) == pytest.approx(pairs.mean())


@pytest.mark.parametrize("rows", [40, 400])
def test_about_nineteen_of_twenty_intervals_hold_the_true_area(rows):
    truth, random = norm.cdf(1 / math.sqrt(2)), np.random.default_rng(1)
    held = 0
    for _ in range(400):
        positive = np.arange(rows) % 4 == 0
        low, high = found(of_auc(positive, random.normal(size=rows) + positive))  # normal scores one deviation apart
        held += low <= truth <= high
    assert 0.91 <= held / 400 <= 0.99


def test_a_perfect_order_of_few_rows_leaves_much_open():
    low, high = found(of_auc(np.arange(10) >= 5, np.arange(10.0)))
    assert high == 1.0
    assert low < 0.75
    assert of_auc(np.arange(10) < 5, np.arange(10.0)) == pytest.approx((0.0, 1 - low))
    # One positive row has no deviation of its own.
    low, high = found(of_auc(np.arange(400) == 120, np.arange(400.0)))
    assert (low, high) == pytest.approx((0.0, 0.9), abs=0.15)


def test_the_ends_of_a_score_interval_solve_its_equation():
    for area, positives, others in product((0.2, 0.5, 0.97), (3, 50), (7, 400)):
        for end in of_auc_of_counts(area, positives, others):
            spread = 1 + ((positives + others) / 2 - 1) * ((1 - end) / (2 - end) + end / (1 + end))
            deviation = math.sqrt(end * (1 - end) * spread / (positives * others))
            assert abs(area - end) == pytest.approx(NORMAL * deviation, rel=1e-6)


@pytest.mark.parametrize("rows", [60, 600])
def test_about_nineteen_of_twenty_intervals_or_more_hold_the_true_area_of_several_classes(rows):
    random = np.random.default_rng(4)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 3
        return labels, random.normal(size=(count, 3)) + np.eye(3)[labels]

    truth, held = auc_of_classes(*drawn(300_000)), 0
    for _ in range(300):
        low, high = found(of_auc_of_classes(*drawn(rows)))
        held += low <= truth <= high
    assert held / 300 >= 0.91


def test_of_two_classes_the_interval_is_that_of_the_second_and_of_one_there_is_none():
    labels = np.arange(80) % 2
    scores = np.random.default_rng(5).normal(size=(80, 2))
    assert of_auc_of_classes(labels, scores) == of_auc(labels == 1, scores[:, 1])
    assert of_auc_of_classes(np.ones(9, np.int64), np.eye(9)[:, :2]) is None
    assert of_auc_of_classes(np.ones(9, np.int64), np.eye(9)[:, :3]) is None


def test_of_a_regression_rows_are_drawn_again_with_the_job_s_seed():
    random = np.random.default_rng(2)
    truth = random.normal(size=300)
    predicted = truth + random.normal(size=300) * 0.5  # R2 about 0.75
    low, high = found(of_r2(truth, predicted, SEED))
    assert low < 0.75 < high
    assert high - low < 0.15
    assert (low, high) == of_r2(truth, predicted, SEED) != of_r2(truth, predicted, b"other")
    assert of_r2(truth[:1], predicted[:1], SEED) is None
    assert of_r2(np.ones(9), np.arange(9.0), SEED) is None


def test_what_is_not_defined_has_no_interval():
    assert intervals("binary", np.zeros(9), np.arange(9.0)[:, None], SEED) == {}
    assert intervals("multiclass", np.array([0.0, 1, 2]), np.eye(3), SEED)["accuracy_high"] == pytest.approx(1.0)
    assert set(intervals("regression", np.arange(9.0), np.arange(9.0)[:, None], SEED)) == {"r2_low", "r2_high"}
