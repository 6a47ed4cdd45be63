"""How often ids are compared, and how unlike they must be: rules that hold over the life of a data set."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from alignment_parties import FIRST, OTHER, specification
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from proposed_jobs import request

from parties.errors import PolicyRefused
from parties.trust.id_runs import DAY_SECONDS, IdRun, RunLimits, changed, check_runs, sketch
from vfl.ids import id_hashes

LIMITS = RunLimits(per_day=2, changed_ids=50)
NOW = 1_800_000_000


def of(ids: Iterable[int]) -> bytes:
    return sketch(hashed(ids))


def hashed(ids: Iterable[int]) -> NDArray[np.uint8]:
    return id_hashes((number,) for number in ids)


def run(time: int = NOW, ids: Iterable[int] = range(1000), peer: str = OTHER, dataset: str = "people") -> IdRun:
    return IdRun(peer, dataset, time, of(ids))


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(0, 3000), max_size=200), st.sets(st.integers(0, 3000), max_size=200))
def test_sketches_never_differ_in_more_buckets_than_sets_do_in_ids(first: set[int], second: set[int]) -> None:
    assert changed(of(first), of(second)) <= len(first ^ second)


@pytest.mark.parametrize("more", [1, 10, 49])
def test_a_set_that_differs_in_few_ids_is_always_found(more: int) -> None:
    assert 0 < changed(of(range(20_000)), of(range(20_000 + more))) <= more


def test_a_set_that_differs_in_some_more_is_hardly_ever_taken_for_one_of_few() -> None:
    assert changed(of(range(20_000)), of(range(100, 20_000))) >= 90


def test_the_order_of_ids_does_not_matter() -> None:
    assert of(range(1000)) == of(reversed(range(1000)))


@pytest.mark.parametrize("more", [1, 49])
def test_ids_that_have_hardly_changed_are_refused(more: int) -> None:
    with pytest.raises(PolicyRefused, match=r"acceptance\.minimum_changed_ids: the ids of 'people' differ") as refused:
        check_runs(FIRST, [run(ids=range(1000 + more))], [run(time=NOW - 300 * DAY_SECONDS)], LIMITS)
    assert str(more) not in refused.value.fix


@pytest.mark.parametrize("ids", [range(1000), range(1200)])
def test_the_same_ids_and_many_other_ones_may_be_compared(ids: Iterable[int]) -> None:
    check_runs(FIRST, [run(ids=ids)], [run(time=NOW - 60)], LIMITS)


def test_a_third_time_within_a_day_is_refused_and_told_when_it_may_be() -> None:
    earlier = [run(time=NOW - 3600), run(time=NOW - 7200)]
    with pytest.raises(
        PolicyRefused, match=r"alignments_per_day: telco has compared .* 2 times .* at 2027-01-16T06:00"
    ):
        check_runs(FIRST, [run()], earlier, LIMITS)
    check_runs(FIRST, [run(time=NOW + DAY_SECONDS - 7200)], earlier, LIMITS)


def test_runs_are_counted_for_each_peer_and_each_data_set() -> None:
    earlier = [run(time=NOW - 3600, peer="shop")] * 2 + [run(time=NOW - 3600, dataset="other", ids=range(1010))] * 2
    check_runs(FIRST, [run()], earlier, LIMITS)


def test_every_other_party_of_a_job_counts_as_having_compared() -> None:
    asked = request(specification(FIRST, OTHER, "shop"), FIRST)
    asked = replace(asked, id_sketches={"table": of(range(5))})
    assert [(one.peer, one.dataset) for one in asked.id_runs] == [(OTHER, "table"), ("shop", "table")]
