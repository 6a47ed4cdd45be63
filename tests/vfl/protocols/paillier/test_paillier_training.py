"""Training on Paillier ciphertexts equals training in clear on the same integers, bit for bit."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from crypto import paillier
from crypto.paillier_sums import integers
from crypto.pieces import HERE
from vfl.errors import ImpossibleJob, RemoteProtocolError
from vfl.flow import Send, run_together
from vfl.kinds import flow_of
from vfl.models.metrics import measure
from vfl.models.tensors import load_tensors
from vfl.paillier_messages import (
    BlurredScores,
    EncryptedColumns,
    EncryptedMoments,
    EncryptedRows,
    MaskedNumbers,
    OpenedSums,
    PaillierKey,
)
from vfl.planning.training import plan
from vfl.protocols.feature_side import FeatureSide
from vfl.protocols.label_side import LabelSide

TEST_KEY_BITS = 512
"""Far too few for anybody's data: no specification outside tests can ask for them."""


@pytest.fixture(scope="module", autouse=True)
def small_keys():
    with pytest.MonkeyPatch.context() as bounds:
        bounds.setattr("vfl.spec.encryption.SMALLEST_KEY_BITS", TEST_KEY_BITS)
        yield


OPTIONS = {"encryption_scheme": "paillier", "encryption_key_bits": TEST_KEY_BITS, "train_batch_rows": 256}


def weights(together):
    return load_tensors(together.results["bank"].state)["top.weights"]


def in_clear_integers(setups):
    """The label party's side after a training whose every sum is computed in clear, with Python's integers."""
    label, feature = setups["bank"], setups["telco-0"]
    side, columns, p = LabelSide(label), FeatureSide(feature), label.spec.paillier
    for step, _, _, _, rows in label.batches():
        weights, constants, own = side.linear_errors(rows)
        z = integers(columns.embed(rows), p).astype(object)
        inputs = np.column_stack([z, integers(np.column_stack([own, np.ones(len(rows))]), p)])
        w, c = integers(weights, p).astype(object), integers(constants, p).astype(object)
        errors = z @ w.T + c * p.one
        side.update(np.array([value / p.one**3 for value in (errors.T @ inputs).ravel()]), rows, step)
    return side, columns


@pytest.fixture(scope="module")
def few_digits(digits):
    """Eight pixels of each image: ten classes of them are quickly trained."""
    return replace(digits, columns=digits.columns[:, 18:26], own=(0, 1, 2))


@pytest.mark.parametrize("table", ["breast_cancer", "diabetes", "few_digits"])
def test_weights_equal_those_of_the_same_integers_in_clear_bit_for_bit(federation, make_setups, request, table):
    joined = request.getfixturevalue(table)
    _, together = federation(joined, **OPTIONS)
    side, _ = in_clear_integers(make_setups(joined, **OPTIONS))
    encrypted = load_tensors(together.results["bank"].state)
    clear = load_tensors(side.state())
    assert encrypted.keys() == clear.keys()
    assert all(np.array_equal(encrypted[name], clear[name]) for name in clear)


@pytest.fixture(scope="module")
def trained(federation, breast_cancer):
    return federation(breast_cancer, **OPTIONS | {"train_epochs": 10})


def test_the_model_is_as_good_as_in_clear(trained, make_setups, breast_cancer):
    _, together = trained
    setups = make_setups(breast_cancer, **OPTIONS | {"train_epochs": 10})
    side, columns = in_clear_integers(setups)
    rows = setups["bank"].test_rows
    clear = measure("binary", breast_cancer.labels[rows], side.top.scores(columns.embed(rows), side.own(rows)))
    assert together.results["bank"].metrics["auc"] >= 0.985
    assert together.results["bank"].metrics["auc"] == clear["auc"]


def test_the_run_is_that_of_floating_point_up_to_the_fixed_point(trained, federation, breast_cancer):
    _, together = trained
    _, clear = federation(breast_cancer, encryption_scheme="none", train_batch_rows=256, train_epochs=10)
    difference = weights(together) - weights(clear)
    assert 0 < np.abs(difference).max() < 2**-12


def test_the_plan_foresees_every_byte_and_every_opened_value(trained, breast_cancer):
    spec, together = trained
    expected = plan(spec, len(breast_cancer.labels))
    for kind, size in expected.payload_bytes.items():
        sent = [line.payload_bytes for line in together.transcript if line.kind == kind]
        assert 0 <= sum(sent) - size <= 100 * len(sent), kind  # names and lengths
    opened = {line.message: line.values for line in expected.reveals if line.values}
    assert opened["OpenedSums"] == expected.steps * 31
    assert opened["BlurredScores"] == expected.test_rows


def test_rows_are_encrypted_once_and_each_step_is_one_round_trip(trained):
    spec, together = trained
    kinds = [line.kind for line in together.transcript]
    of_step = ["EncryptedMoments", "MaskedNumbers", "OpenedSums"]
    first_epoch, later = ["EncryptedRows", *of_step] * 2, of_step * 2 * (spec.train.epochs - 1)
    assert kinds[2:] == ["PaillierKey", *first_epoch, *later, "EncryptedColumns", "MaskedNumbers", "BlurredScores"]


def test_the_feature_party_sees_uniform_numbers_whatever_the_labels_are(make_setups, breast_cancer, monkeypatch):
    """With the masks of a fixed stream what it decrypts depends on the labels; with real ones nothing repeats."""
    seen = []

    class Watched(paillier.PaillierPrivateKey):
        def open(self, masked, count, pool=HERE):
            seen.append(super().open(masked, count, pool))
            return seen[-1]

    monkeypatch.setattr("vfl.protocols.paillier_training.PaillierPrivateKey", Watched)
    setups = make_setups(breast_cancer, **OPTIONS | {"train_epochs": 1})
    run_together({party: flow_of(setup) for party, setup in setups.items()})
    numbers = [number for opened in seen for number in opened]
    assert len(set(numbers)) == len(numbers)
    assert np.mean([number.bit_length() for number in numbers]) > TEST_KEY_BITS - 3


@pytest.mark.parametrize(
    ("message", "field", "matching"),
    [
        (PaillierKey, "modulus", "factor below|bits and not|does not hold"),
        (EncryptedRows, "rows", "another key|bytes are not"),
        (EncryptedMoments, "moments", "another key|bytes are not"),
        (OpenedSums, "values", "another key|bytes are not"),
        (EncryptedColumns, "columns", "another key|bytes are not"),
        (BlurredScores, "values", "another key|bytes are not"),
    ],
)
def test_what_no_honest_feature_party_sends_ends_the_job_and_names_it(
    make_setups, breast_cancer, message, field, matching
):
    def deviating(setup):
        role, answer = flow_of(setup), None
        while True:
            try:
                effect = role.send(answer)
            except StopIteration as stop:
                return stop.value
            if isinstance(effect, Send) and isinstance(effect.message, message):
                wrong = bytes([getattr(effect.message, field)[0] ^ 0x80]) + getattr(effect.message, field)[1:]
                effect = Send(effect.to, msgspec.structs.replace(effect.message, **{field: wrong}))
            answer = yield effect

    setups = make_setups(breast_cancer, **OPTIONS | {"train_epochs": 1})
    roles = {party: (flow_of if party == "bank" else deviating)(setup) for party, setup in setups.items()}
    with pytest.raises(RemoteProtocolError, match=f"telco-0 sent what no honest party sends: .*({matching})"):
        run_together(roles)


@pytest.mark.parametrize("wrong", [0, 1])
def test_a_label_party_that_asks_to_have_zero_opened_gets_no_answer(make_setups, breast_cancer, wrong):
    """The decryption of 0 factors the key (tests/crypto/paillier/test_paillier_attacks.py)."""

    def deviating(setup):
        role, answer = flow_of(setup), None
        while True:
            effect = role.send(answer)
            if isinstance(effect, Send) and isinstance(effect.message, MaskedNumbers):
                body, size = effect.message.masked, TEST_KEY_BITS // 4
                masked = body[:32] + bytes(size) + body[32 + size :] if wrong == 0 else body[:-size]
                effect = Send(effect.to, MaskedNumbers(effect.message.step, masked))
            answer = yield effect

    setups = make_setups(breast_cancer, **OPTIONS | {"train_epochs": 1})
    roles = {party: (deviating if party == "bank" else flow_of)(setup) for party, setup in setups.items()}
    with pytest.raises(RemoteProtocolError, match="bank sent what no honest party sends"):
        run_together(roles)


def test_a_job_whose_sums_fit_no_plaintext_is_refused_before_it_starts(make_setups, breast_cancer):
    with pytest.raises(ImpossibleJob, match="does not fit a key"):
        make_setups(breast_cancer, **OPTIONS | {"train_weight_limit": 1e150})
