"""Held-out rows with each class in its share: what is drawn, what the feature party is told, what that gives away."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from vfl.errors import RemoteProtocolError, SpecError
from vfl.flow import Delivery, run_together
from vfl.kinds import flow_of
from vfl.messages import HeldOut, RowsDigest
from vfl.planning.training import plan
from vfl.protocols.same_rows import agree_on_rows
from vfl.schedule import held_out_rows, stratified
from vfl.spec.split import Split

SEED = b"own seed of the label party"


def rare(rows: int, positives: int, seed: int = 0) -> np.ndarray:
    labels = np.zeros(rows)
    labels[np.random.default_rng(seed).permutation(rows)[:positives]] = 1
    return labels


@pytest.mark.parametrize(
    ("counts", "share", "wanted"),
    [
        ([1990, 10], 0.2, [398, 2]),
        ([998, 2], 0.2, [199, 1]),
        ([999, 1], 0.2, [200, 0]),
        ([50, 30, 20], 0.1, [5, 3, 2]),
        ([4, 3], 0.2, [1, 0]),
        ([2, 2, 2, 94], 0.04, [1, 1, 1, 1]),
        ([1, 1], 0.9, [1, 0]),
    ],
)
def test_each_class_has_its_share_and_at_least_one_row_where_there_is_room(counts, share, wanted):
    labels = np.repeat(np.arange(len(counts)), counts).astype(float)
    rows = stratified(SEED, labels, share)
    assert len(set(rows.tolist())) == len(rows) == held_out_rows(len(labels), share)
    assert np.bincount(labels[rows].astype(int), minlength=len(counts)).tolist() == wanted


def stratify(setups):
    return {
        party: replace(setup, spec=msgspec.structs.replace(setup.spec, split=Split(stratify=True)))
        for party, setup in setups.items()
    }


@pytest.fixture(scope="module", params=["none", "ckks"])
def trained(request, make_setups, breast_cancer):
    given = stratify(make_setups(breast_cancer, train_epochs=1, encryption_scheme=request.param))
    return given, run_together({party: flow_of(setup) for party, setup in given.items()})


def test_a_training_holds_out_each_class_in_its_share_and_sends_one_bit_a_row(trained, breast_cancer):
    given, together = trained
    (told,) = [line for line in together.transcript if line.kind == "HeldOut"]
    assert (told.sender, told.receiver) == ("bank", "telco-0")
    spec, rows = given["bank"].spec, len(breast_cancer.labels)
    positive = round(held_out_rows(rows, 0.2) * breast_cancer.labels.mean())
    counted = next(notice for notice in together.results["bank"].notices if notice.code == "held_out_classes")
    assert counted.text.endswith(f"{held_out_rows(rows, 0.2) - positive} of 0, {positive} of 1")
    planned = plan(spec, rows)
    assert {line.message: line.values for line in planned.reveals if line.receiver == "telco-0"}["HeldOut"] == rows
    assert planned.payload_bytes["HeldOut"] == -(-rows // 8)


def test_without_it_nothing_of_the_kind_is_sent(federation, breast_cancer):
    spec, together = federation(breast_cancer, encryption_scheme="none", train_epochs=1)
    assert not [line for line in together.transcript if line.kind == "HeldOut"]
    assert "HeldOut" not in {line.message for line in plan(spec, 569).reveals}


@pytest.mark.parametrize("bits", [b"", b"\xff" * 72, b"\x01" + bytes(71), bytes(72)])
def test_a_label_party_that_holds_out_something_else_is_refused(make_setups, breast_cancer, bits):
    setup = stratify(make_setups(breast_cancer, encryption_scheme="none"))["telco-0"]
    flow = agree_on_rows(setup)
    next(flow)
    flow.send(None)
    flow.send(Delivery(RowsDigest(setup.rows, setup.table.ids_digest)))
    with pytest.raises(RemoteProtocolError, match="does not hold out 114 of 569 rows"):
        flow.send(Delivery(HeldOut(bits)))


def test_it_is_for_classes(make_setups, breast_cancer):
    spec = make_setups(breast_cancer)["bank"].spec
    with pytest.raises(SpecError, match=r"split\.stratify is for classes"):
        msgspec.structs.replace(
            spec, job=msgspec.structs.replace(spec.job, task="regression"), split=Split(stratify=True)
        )


# What it gives away


def test_of_one_row_being_held_out_tells_hardly_anything():
    labels = rare(2000, 200)
    rows = stratified(SEED, labels, 0.2)
    assert labels[rows].mean() == np.delete(labels, rows).mean() == 0.1


def test_with_a_seed_the_peer_knows_too_guesses_of_labels_could_be_tested():
    """The attack: of guesses that differ in one pair of rows, only the true one draws what was held out."""
    labels = rare(200, 60)
    guesses = [labels]
    for positive, other in zip(np.flatnonzero(labels == 1)[:20], np.flatnonzero(labels == 0)[:20], strict=True):
        guess = labels.copy()
        guess[[positive, other]] = guess[[other, positive]]
        guesses.append(guess)

    def fitting(known: bytes) -> list[int]:
        told = stratified(SEED, labels, 0.2)
        return [at for at, guess in enumerate(guesses) if np.array_equal(stratified(known, guess, 0.2), told)]

    assert 0 in fitting(SEED)
    assert len(fitting(SEED)) < len(guesses)
    assert fitting(b"another seed") == []


def test_who_knows_all_labels_but_one_learns_that_one():
    """This is not protected: the class's share leaves one value for the last label."""
    labels = rare(100, 50)
    told = stratified(SEED, labels, 0.2)
    unknown = int(told[0])
    fits = []
    for value in (0.0, 1.0):
        guess = labels.copy()
        guess[unknown] = value
        wanted = [np.floor(0.2 * count + 0.5) for count in np.bincount(guess.astype(int))]
        if np.bincount(guess[told].astype(int)).tolist() == wanted:
            fits.append(value)
    assert fits == [labels[unknown]]
