"""The formulas of the rule feddu and their limit cases (shared_data.md)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vfl.horizontal.shared_data.feddu import divergence, effective_steps, labels_look_wrong, share_of_shared, step_size

COUNTS = st.lists(st.integers(0, 50), min_size=3, max_size=3).filter(any)
UNIT = st.floats(0, 1)


def test_divergence_is_nothing_between_equals_and_one_between_strangers():
    assert divergence([1, 1, 2], [10, 10, 20]) == pytest.approx(0)
    assert divergence([1, 0], [0, 1]) == 1


@given(COUNTS, COUNTS)
def test_divergence_is_symmetric_and_between_nothing_and_one(one, other):
    assert divergence(one, other) == pytest.approx(divergence(other, one))
    assert 0 <= divergence(one, other) <= 1 + 1e-12


def test_shared_rows_that_mix_like_all_clients_have_the_whole_say():
    assert share_of_shared(100, 1000, 0.3, 0.0) == 1
    assert share_of_shared(100, 1000, 0.0, 0.0) == 1


def test_a_cohort_that_mixes_like_all_clients_leaves_them_none():
    assert share_of_shared(100, 1000, 0.0, 0.2) == 0


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 5000), st.floats(0.01, 1), st.floats(0.01, 1))
def test_the_say_of_shared_rows_rises_with_their_number(fewer, more, cohort, lean, own):
    fewer, more = sorted((fewer, more))
    assert share_of_shared(fewer, cohort, lean, own) <= share_of_shared(more, cohort, lean, own)


@given(st.floats(0, 3), UNIT, UNIT, UNIT, st.floats(0.5, 1), st.integers(1, 99))
def test_the_step_falls_with_accuracy_and_with_time(scale, accuracy, other, share, decay, number):
    low, high = sorted((accuracy, other))
    assert 0 <= step_size(scale, high, share, decay, number) <= step_size(scale, low, share, decay, number) <= 1
    assert step_size(scale, low, share, decay, number + 1) <= step_size(scale, low, share, decay, number)


def test_the_convex_form_is_the_form_of_normalised_gradients():
    generator = np.random.default_rng(1)
    start, rate, epochs, rows, batch, step = generator.normal(size=50), 0.1, 5, 73, 10, 0.37
    gradients = generator.normal(size=(epochs * 8, 50))  # ceil(73 / 10) = 8 batches an epoch
    trained = start - rate * gradients.sum(0)
    convex = (1 - step) * start + step * trained
    normalised = start - effective_steps(step, epochs, rows, batch) * rate * gradients.mean(0)
    assert np.allclose(convex, normalised)


def test_labels_that_teach_nothing_are_told_from_labels_that_do():
    assert labels_look_wrong([0.12, 0.09, 0.1], 0.12, 26)
    assert not labels_look_wrong([0.5, 0.8], 0.12, 26)
    assert not labels_look_wrong([], 0.12, 26)
