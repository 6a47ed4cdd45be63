"""Rows held out by the hash of their ids or by time: the label party says which, and no weight knows of them."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from vfl.errors import ImpossibleJob, LocalProtocolError, RemoteProtocolError
from vfl.flow import Delivery, run_together
from vfl.kinds import flow_of
from vfl.messages import HeldOut, RowsDigest
from vfl.models.tensors import load_tensors
from vfl.planning.training import plan
from vfl.protocols.same_rows import agree_on_rows
from vfl.schedule import of_keys
from vfl.spec.split import Split

DRAWS = np.random.default_rng(3)


def split_by(setups, keys, by, validation=0.0):
    """Setups of a training that holds rows out by these keys, the numbers filled in as the label party does."""
    split = Split(by=by, time="day" if by == "time" else "", validation=validation)
    spec = msgspec.structs.replace(setups["bank"].spec, split=split).with_held_out(keys)
    given = {party: replace(setup, spec=spec) for party, setup in setups.items()}
    table = replace(setups["bank"].table, split_keys=keys)
    return given | {"bank": replace(given["bank"], tables={"rows": table})}


def weights_of(setups):
    together = run_together({party: flow_of(setup) for party, setup in setups.items()})
    return together, {party: load_tensors(outcome.state) for party, outcome in together.results.items()}


def test_a_hash_holds_out_a_row_whatever_the_others_are():
    keys = DRAWS.random(1000)
    rows = of_keys(keys, 0.3, newest=False)
    assert np.array_equal(rows, np.flatnonzero(keys < 0.3))
    assert np.array_equal(of_keys(keys[:500], 0.3, newest=False), rows[rows < 500])


@pytest.mark.parametrize(
    ("times", "held_out"),
    [
        ([5, 1, 4, 2, 3], [0]),
        ([5, 1, 5, 2, 5], [0, 2, 4]),
        ([2, 1, 2, 2, 2], [0, 2, 3, 4]),
        ([2, 1, 1, 1, 1], [0]),
        ([1, 1, 1, 1, 1], []),
    ],
)
def test_the_newest_share_is_held_out_and_rows_of_one_time_stay_together(times, held_out):
    assert of_keys(np.array(times, float), 0.2, newest=True).tolist() == held_out


@pytest.mark.parametrize("by", ["hash", "time"])
@pytest.mark.parametrize("scheme", ["none", "ckks"])
def test_the_label_party_says_which_rows_and_both_plan_with_their_number(make_setups, breast_cancer, by, scheme):
    rows = len(breast_cancer.labels)
    keys = np.random.default_rng(1).random(rows)
    setups = split_by(make_setups(breast_cancer, train_epochs=1, encryption_scheme=scheme), keys, by)
    together, _ = weights_of(setups)
    (told,) = [line for line in together.transcript if line.kind == "HeldOut"]
    bits = np.unpackbits(np.frombuffer(told.message.rows, np.uint8), bitorder="little")[:rows]
    expected = keys < 0.2 if by == "hash" else keys >= np.sort(keys)[-114]
    assert np.array_equal(bits == 1, expected)
    planned = plan(setups["telco-0"].spec, rows)
    assert planned.test_rows == expected.sum()
    assert {line.message: line.values for line in planned.reveals if line.receiver == "telco-0"}["HeldOut"] == rows


@pytest.mark.parametrize("by", ["hash", "time"])
def test_held_out_rows_may_be_anything_and_both_halves_are_the_same(make_setups, breast_cancer, by):
    keys = np.random.default_rng(2).random(len(breast_cancer.labels))
    test = of_keys(keys, 0.2, newest=by == "time")
    columns, labels = breast_cancer.columns.copy(), breast_cancer.labels.copy()
    columns[test], labels[test] = 1e6, 1 - labels[test]
    other = replace(breast_cancer, columns=columns, labels=labels)
    options = {"encryption_scheme": "none"}
    first, halves = weights_of(split_by(make_setups(breast_cancer, **options), keys, by))
    second, others = weights_of(split_by(make_setups(other, **options), keys, by))
    for party, half in halves.items():
        assert half.keys() == others[party].keys()
        assert all(np.array_equal(half[name], others[party][name]) for name in half), party
    assert first.results["bank"].metrics != second.results["bank"].metrics


def test_a_label_party_without_keys_does_not_begin(make_setups, breast_cancer):
    keys = np.random.default_rng(2).random(len(breast_cancer.labels))
    setups = split_by(make_setups(breast_cancer, encryption_scheme="none"), keys, "hash")
    bare = replace(setups["bank"], tables={"rows": replace(setups["bank"].table, split_keys=None)})
    with pytest.raises(LocalProtocolError, match="brought nothing to hold rows out by hash"):
        run_together({party: flow_of(setup) for party, setup in (setups | {"bank": bare}).items()})


@pytest.mark.parametrize("by", ["hash", "time"])
def test_validation_rows_are_chosen_in_the_same_way_and_alike_at_both(make_setups, breast_cancer, by):
    keys = np.random.default_rng(4).random(len(breast_cancer.labels))
    setups = split_by(make_setups(breast_cancer, train_epochs=1, encryption_scheme="none"), keys, by, validation=0.1)
    together, _ = weights_of(setups)
    (told,) = [line for line in together.transcript if line.kind == "HeldOut"]
    test, validation = np.unpackbits(np.frombuffer(told.message.rows, np.uint8), bitorder="little").reshape(2, -1)
    if by == "hash":
        expected = (keys >= 0.2) & (keys < 0.3)
    else:
        newest = np.sort(keys)[::-1]
        expected = (keys < newest[113]) & (keys >= newest[113 + 57])
    assert np.array_equal(np.flatnonzero(validation), np.flatnonzero(expected))
    assert not (test & validation).any()
    spec = setups["telco-0"].spec
    planned = plan(spec, len(keys))
    assert planned.validation_rows == spec.split.validation_rows == expected.sum()
    assert planned.payload_bytes["HeldOut"] == len(told.message.rows)
    assert {line.message: line.values for line in planned.reveals if line.receiver == "telco-0"}["HeldOut"] == 2 * 569


@pytest.mark.parametrize("by", ["hash", "time"])
def test_validation_rows_may_be_anything_and_both_halves_are_the_same(make_setups, breast_cancer, by):
    keys = np.random.default_rng(5).random(len(breast_cancer.labels))
    options = {"train_epochs": 1, "encryption_scheme": "none"}
    setups = split_by(make_setups(breast_cancer, **options), keys, by, validation=0.1)
    rows = setups["bank"].spec.split.validation_of(keys)
    columns, labels = breast_cancer.columns.copy(), breast_cancer.labels.copy()
    columns[rows], labels[rows] = 1e6, 1 - labels[rows]
    other = replace(breast_cancer, columns=columns, labels=labels)
    first, halves = weights_of(setups)
    second, others = weights_of(split_by(make_setups(other, **options), keys, by, validation=0.1))
    for party, half in halves.items():
        assert all(np.array_equal(half[name], others[party][name]) for name in half), party
    assert first.results["bank"].metrics == second.results["bank"].metrics


def test_a_label_party_that_sets_aside_what_it_holds_out_is_refused(make_setups, breast_cancer):
    keys = np.random.default_rng(6).random(len(breast_cancer.labels))
    setups = split_by(make_setups(breast_cancer, encryption_scheme="none"), keys, "hash", validation=0.1)
    split = setups["telco-0"].spec.split
    bits = np.packbits(np.arange(569) < split.test_rows, bitorder="little").tobytes()
    also = np.packbits(np.arange(569) < split.validation_rows, bitorder="little").tobytes()
    for told, what in ((bits + also, "that it holds out"), (bits, "does not hold out 1")):
        flow = agree_on_rows(setups["telco-0"])
        next(flow)
        flow.send(None)
        flow.send(Delivery(RowsDigest(569, setups["bank"].table.ids_digest)))
        with pytest.raises(RemoteProtocolError, match=what):
            flow.send(Delivery(HeldOut(told)))


def test_so_large_a_share_for_validation_that_nothing_is_left_is_refused(make_setups, breast_cancer):
    spec = make_setups(breast_cancer)["bank"].spec
    keys = np.linspace(0, 0.29, len(breast_cancer.labels))
    split = Split(by="hash", validation=0.1)
    with pytest.raises(ImpossibleJob, match="leaves none of 569 rows to train on"):
        msgspec.structs.replace(spec, split=split).with_held_out(keys)
    few = msgspec.structs.replace(split, validation_rows=3)
    with pytest.raises(ImpossibleJob, match=r"and split\.validation_rows says 3"):
        msgspec.structs.replace(spec, split=few).with_held_out(keys * 3)
