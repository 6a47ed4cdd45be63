"""Dealing rows to many clients: every row to exactly one, the same for the same seed, none left too small."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_diabetes, load_digits

from parties.simulation.partition import dirichlet, even, quantity_skew, shards
from vfl.errors import ImpossibleJob

DIGITS = load_digits().target
SEED = b"seed"

DEALS = {
    "even": lambda labels, clients, strength, seed: even(labels, clients, seed),
    "shards": lambda labels, clients, strength, seed: shards(labels, clients, 2, seed),
    "dirichlet": dirichlet,
    "quantity skew": quantity_skew,
}


def classes_of(dealt):
    return [len(np.unique(DIGITS[rows])) for rows in dealt]


@pytest.mark.parametrize("deal", DEALS.values(), ids=DEALS)
@given(
    classes=st.integers(1, 6),
    clients=st.integers(1, 12),
    spare=st.integers(0, 200),
    alpha=st.sampled_from([0.01, 0.1, 0.5, 1.0, 100.0]),
    seed=st.binary(min_size=1, max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_every_row_goes_to_one_client_and_no_client_is_left_small(deal, classes, clients, spare, alpha, seed):
    labels = np.arange(10 * clients + spare) ** 2 % classes
    dealt = deal(labels, clients, alpha, seed)
    assert len(dealt) == clients
    assert min(map(len, dealt)) >= 10
    assert np.array_equal(np.sort(np.concatenate(dealt)), np.arange(len(labels)))
    for rows, again in zip(dealt, deal(labels, clients, alpha, seed), strict=True):
        assert rows.dtype == np.int64
        assert np.array_equal(rows, again)
        assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize("deal", DEALS.values(), ids=DEALS)
def test_another_seed_deals_other_rows(deal):
    first, second = deal(DIGITS, 10, 0.5, b"first"), deal(DIGITS, 10, 0.5, b"second")
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_an_even_partition_gives_all_clients_as_many_rows_and_every_class():
    dealt = even(DIGITS, 20, SEED)
    assert {len(rows) for rows in dealt} == {89, 90}
    assert min(classes_of(dealt)) >= 9


def test_two_shards_give_a_client_few_classes_and_as_many_rows_as_the_others():
    dealt = shards(DIGITS, 20, 2, SEED)
    assert max(classes_of(dealt)) <= 4
    assert np.mean(classes_of(dealt)) < 3
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 2


def test_shards_deal_a_regression_in_bands_of_its_label():
    labels = load_diabetes().target
    bands = [np.ptp(labels[rows]) for rows in shards(labels, 10, 1, SEED)]
    assert np.median(bands) < np.ptp(labels) / 5


def test_a_smaller_alpha_gives_a_client_fewer_classes():
    spread = [np.mean(classes_of(dirichlet(DIGITS, 10, alpha, SEED))) for alpha in (0.05, 0.5, 100.0)]
    assert spread == sorted(spread)
    assert spread[0] < 5
    assert spread[-1] == 10


def test_quantity_skew_changes_how_many_rows_a_client_has_and_not_which_classes():
    dealt = quantity_skew(DIGITS, 10, 0.5, SEED)
    sizes = sorted(map(len, dealt))
    assert sizes[-1] > 5 * sizes[0]
    assert all(np.bincount(DIGITS[rows], minlength=10).min() > 0 for rows in dealt if len(rows) > 100)


def test_three_hundred_clients_of_a_strong_skew_still_have_ten_rows_each():
    labels = np.arange(8000) % 10
    assert min(len(rows) for rows in dirichlet(labels, 300, 0.1, SEED)) == 10


@pytest.mark.parametrize(
    ("deal", "happened", "way_out"),
    [
        (lambda: even(DIGITS, 180, SEED), "1797 rows cannot be dealt to 180 clients of at least 10", "At most 179"),
        (lambda: even(DIGITS, 0, SEED), "0 clients", "fewer"),
        (lambda: even(DIGITS, 2000, SEED, minimum=0), "2000 clients", "fewer"),
        (lambda: dirichlet(DIGITS, 10, 0.0, SEED), "alpha is 0", "strong skew"),
        (lambda: quantity_skew(DIGITS, 10, float("inf"), SEED), "alpha is inf", "nearly even"),
        (lambda: dirichlet(load_diabetes().target + 0.5, 10, 1.0, SEED), "no whole numbers", "quantity skew"),
        (lambda: shards(DIGITS, 10, 0, SEED), "0 shards", "at least one shard"),
        (lambda: shards(DIGITS, 10, 200, SEED), "2000 shards", "fewer shards"),
    ],
)
def test_a_partition_that_no_draw_could_make_is_refused_with_the_way_out(deal, happened, way_out):
    with pytest.raises(ImpossibleJob, match=happened) as raised:
        deal()
    assert way_out in raised.value.fix
