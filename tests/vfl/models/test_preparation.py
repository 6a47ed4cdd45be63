"""Columns become bounded numbers as their owner's steps say, fitted on training rows and applied to any others."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vfl.models.preparation import Preparation
from vfl.planning.training import INPUT_BOUND
from vfl.spec.preparation import Bins, OneHot, PreparationStep, Quantile, Standardise, WeightOfEvidence

Floats = NDArray[np.float64]
NAN = float("nan")


def fit(
    step: PreparationStep, values: Floats, words: tuple[str, ...] = (), labels: Floats | None = None
) -> Preparation:
    rows = np.arange(len(values))
    return Preparation.fit(("c",), (step,), values[:, None], rows, {0: words} if words else {}, labels)


def apply(preparation: Preparation, values: Floats, words: tuple[str, ...] = ()) -> Floats:
    return preparation.apply(np.asarray(values, float)[:, None], {0: words} if words else {})


def test_a_column_nothing_is_said_of_gets_mean_0_and_deviation_1_and_is_clipped() -> None:
    values = np.random.default_rng(0).normal(50, 9, 500)
    prepared = apply(fit(Standardise(), values), values)
    assert prepared.shape == (500, 1)
    assert abs(prepared.mean()) < 0.01
    assert apply(fit(Standardise(), values), np.array([1e9]))[0, 0] == INPUT_BOUND


def test_gaps_get_the_median_and_a_number_that_says_so() -> None:
    values = np.array([1.0, 2.0, NAN, 3.0, NAN, 100.0])
    preparation = fit(Standardise(missing="median"), values)
    filled, flag = apply(preparation, np.array([NAN, 2.5, 2.0])).T
    assert filled[0] == filled[1] != filled[2]
    assert flag[0] > flag[1] == flag[2]


@pytest.mark.parametrize("power", [1, 3, 9])
def test_a_quantile_does_not_depend_on_how_the_values_are_spread(power: int) -> None:
    values = np.random.default_rng(0).normal(size=2000)
    prepared = apply(fit(Quantile(), values**power), values**power)
    plain = apply(fit(Quantile(), values), values)
    assert np.abs(prepared - plain).max() < 0.15
    assert np.abs(np.sort(prepared[:, 0]) - np.sort(values)).mean() < 0.1


def test_a_value_that_repeats_stands_in_the_middle_of_its_shares() -> None:
    values = np.concatenate([np.zeros(600), np.arange(1, 401)])
    preparation = fit(Quantile(), values)
    (column,) = preparation.columns
    assert column.block(np.zeros(1), ())[0, 0] == pytest.approx(-0.524, abs=0.02)  # the normal quantile of 0.3


def test_the_most_frequent_categories_have_a_number_each_and_all_others_none() -> None:
    words = ("blue", "green", "rare", "red")
    codes = np.repeat([0.0, 1.0, 2.0, 3.0, NAN], [50, 30, 5, 40, 25])
    preparation = fit(OneHot(categories=6, least_rows=20), codes, words)
    block = preparation.columns[0].block(np.array([0.0, 3.0, 1.0, NAN, 2.0]), words)
    assert block.shape == (5, 6)
    assert block.argmax(axis=1)[:4].tolist() == [0, 1, 2, 3]
    assert block.sum(axis=1).tolist() == [1, 1, 1, 1, 0]
    assert not apply(preparation, codes, words)[:, 4:].any(), "what is not needed is 0 in every row"
    fewer = fit(OneHot(categories=2, least_rows=20), codes, words)
    assert fewer.columns[0].block(np.array([0.0, 3.0, 1.0, NAN]), words).sum(axis=1).tolist() == [1, 1, 0, 0]


def test_later_rows_may_number_their_words_otherwise_or_hold_new_ones() -> None:
    preparation = fit(OneHot(categories=2, least_rows=1), np.array([0.0, 0.0, 1.0]), ("no", "yes"))
    here = apply(preparation, np.array([0.0, 1.0]), ("no", "yes"))
    there = apply(preparation, np.array([1.0, 2.0]), ("maybe", "no", "yes"))
    assert here.tolist() == there.tolist()
    new = preparation.columns[0].block(np.array([0.0]), ("maybe", "no", "yes"))
    assert not new.any()


def test_bins_say_from_which_edge_on_a_value_lies_and_where_there_is_none() -> None:
    values = np.arange(100.0)
    block = fit(Bins(edges=3), values).columns[0].block(np.array([0.0, 30.0, 60.0, 99.0]), ())
    assert block.sum(axis=1).tolist() == [0, 1, 2, 3]
    given = fit(Bins(edges=(10.0, 20.0), missing="own_bin"), values)
    assert given.columns[0].block(np.array([9.9, 10.0, 25.0, NAN]), ()).tolist() == [
        [0, 0, 0],
        [1, 0, 0],
        [1, 1, 0],
        [0, 0, 1],
    ]


def test_the_weight_of_evidence_is_the_logarithm_of_how_much_more_frequent_a_category_is_among_positive_rows() -> None:
    codes, labels = np.repeat([0.0, 1.0, 2.0], [400, 400, 3]), np.zeros(803)
    labels[:300], labels[400:500] = 1, 1
    preparation = fit(WeightOfEvidence(), codes, ("high", "low", "rare"), labels)
    high, low, rare, unseen = preparation.columns[0].block(np.array([0.0, 1.0, 2.0, 3.0]), ("high", "low", "rare", "x"))
    assert high[0] == pytest.approx(np.log((300 / 400) / (100 / 403)), abs=0.02)
    assert low[0] == pytest.approx(np.log((100 / 400) / (300 / 403)), abs=0.02)
    assert rare == unseen
    binned = fit(WeightOfEvidence(edges=4), np.concatenate([np.arange(800.0), [NAN] * 3]), labels=labels)
    assert binned.columns[0].block(np.array([10.0]), ())[0, 0] > binned.columns[0].block(np.array([700.0]), ())[0, 0]


STEPS: list[PreparationStep] = [
    Standardise(missing="median"),
    Quantile(missing="median"),
    Bins(edges=4, missing="own_bin"),
    WeightOfEvidence(edges=3, least_rows=2),
]


@example([0.0, 2.225073858507e-311], [NAN])
@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(-1e100, 1e100) | st.just(NAN), min_size=2, max_size=30),
    st.lists(st.floats(-1e100, 1e100) | st.just(NAN), min_size=1, max_size=30),
)
def test_whatever_the_values_every_number_lies_within_the_bound(training: list[float], others: list[float]) -> None:
    values = np.array(training)
    labels = (np.arange(len(values)) % 2).astype(float)
    for step in STEPS:
        preparation = fit(step, values, labels=labels)
        for rows in (values, np.array(others)):
            prepared = apply(preparation, rows)
            assert prepared.shape == (len(rows), step.width)
            assert len(set(step.names("c"))) == step.width
            assert (np.abs(prepared) <= INPUT_BOUND).all(), step


def test_what_is_kept_with_the_model_prepares_new_rows_alike() -> None:
    random = np.random.default_rng(3)
    values = np.column_stack([random.normal(size=300) for _ in STEPS] + [random.integers(0, 3, 300).astype(float)])
    values[::7] = NAN
    words, labels = {len(STEPS): ("a", "é", "c")}, (random.random(300) > 0.5).astype(float)
    steps = (*STEPS, OneHot(categories=2))
    fitted = Preparation.fit([f"c{at}" for at in range(len(steps))], steps, values, np.arange(300), words, labels)
    kept = Preparation.decode(fitted.encode())
    assert kept.names == fitted.names
    assert np.array_equal(kept.apply(values, words), fitted.apply(values, words))


def test_what_was_made_of_the_columns_is_told_to_their_owner() -> None:
    values = np.column_stack([[1.0, NAN, 3.0, 4.0], [0.0, 0.0, 1.0, 1.0]])
    steps = (Standardise(missing="median"), OneHot(categories=3, least_rows=2))
    preparation = Preparation.fit(("age", "plan"), steps, values, np.arange(4), {1: ("basic", "pro")})
    filled, categories = preparation.notices()
    assert "1 empty cells of 'age' are filled with the median of the training rows, 3" in filled.text
    assert (
        "'plan' has a column for 'basic', 'pro'; all others share none, and 1 of its columns are empty"
        in categories.text
    )
