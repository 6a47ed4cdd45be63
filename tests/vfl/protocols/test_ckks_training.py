"""Encrypted training equals clear training with the same polynomials, and its transcript gives nothing away."""

import gc
from dataclasses import replace

import numpy as np
import pytest
from clear_training import in_clear

from crypto.ckks import CkksPrivateKey
from crypto.ckks_parameters import PRESETS
from vfl.errors import RemoteProtocolError
from vfl.flow import Delivery, Send
from vfl.messages import PublicKeys, RowsDigest
from vfl.models.tensors import load_tensors
from vfl.planning.training import plan
from vfl.protocols.ckks_training import KeyOwner, encrypted_blocks, label_party
from vfl.protocols.feature_side import FeatureSide
from vfl.reports import StepDone


def noise_free(preset):
    """Exists under tests/ only: a key that answers exactly gives itself away (crypto.ckks, rule 3)."""
    return replace(preset, noise=0.0, output_noise=0.0)


def weights(together):
    return load_tensors(together.results["bank"].state)["top.weights"]


@pytest.fixture(scope="session")
def encrypted_breast(federation, breast_cancer):
    options = {"train_epochs": 10, "train_batch_rows": 256}
    return federation(breast_cancer, **options), federation(breast_cancer, encryption_scheme="none", **options)


CASES = [
    ("breast_cancer", {}),
    ("breast_cancer", {"encryption_loss_error": "cubic", "optimiser_rate": 0.02}),
    ("diabetes", {}),
    ("digits", {"encryption_values_per_key": 4096, "train_batch_rows": 1024}),
]


@pytest.mark.parametrize(("table", "options"), CASES, ids=["linear", "cubic", "squared", "ten classes"])
def test_weights_after_one_epoch_equal_the_clear_run_without_reply_noise(federation, request, table, options):
    joined = request.getfixturevalue(table)
    _, encrypted = federation(joined, change=noise_free, **{"train_epochs": 1, **options})
    _, clear = federation(joined, **in_clear({"train_epochs": 1, **options}))
    error = np.abs(weights(encrypted) - weights(clear)).max() / np.abs(weights(clear)).max()
    assert error < 1e-3


def test_with_reply_noise_weights_stay_within_the_forecast(encrypted_breast, breast_cancer):
    (spec, encrypted), (_, clear) = encrypted_breast
    difference = weights(encrypted) - weights(clear)
    forecast = plan(spec, len(breast_cancer.labels)).weight_noise
    assert 0 < np.abs(difference).max() < 5 * forecast


def test_the_encrypted_model_is_as_good_as_the_clear_one(encrypted_breast):
    (_, encrypted), (_, clear) = encrypted_breast
    auc = encrypted.results["bank"].metrics["auc"]
    assert auc >= 0.985
    assert abs(auc - clear.results["bank"].metrics["auc"]) <= 0.002


def test_messages_travel_in_the_order_of_the_protocol(encrypted_breast):
    (spec, together), _ = encrypted_breast
    kinds = [line.kind for line in together.transcript]
    steps = 20
    assert kinds[:2] == ["RowsDigest", "RowsDigest"]
    per_step = [kind for kind in kinds[2:] if kind != "PublicKeys"]
    assert per_step[: 3 * steps] == ["EncryptedEmbedding", "MaskedGradient", "OpenedGradient"] * steps
    assert per_step[3 * steps :] == ["EncryptedWeights", "EncryptedScores"]
    assert "EncryptedError" not in kinds
    per_key = spec.encryption.values_per_key // 31
    assert kinds.count("PublicKeys") == -(-steps // per_key)


def test_sizes_of_messages_do_not_depend_on_the_data(federation, breast_cancer, encrypted_breast):
    shuffled = replace(breast_cancer, columns=breast_cancer.columns[::-1].copy(), labels=1 - breast_cancer.labels)
    _, other = federation(shuffled, train_epochs=1, train_batch_rows=256)
    _, same = federation(breast_cancer, train_epochs=1, train_batch_rows=256)
    assert [(s.kind, s.payload_bytes) for s in other.transcript] == [(s.kind, s.payload_bytes) for s in same.transcript]


def test_a_key_opens_no_more_values_than_agreed(federation, breast_cancer):
    spec, together = federation(breast_cancer, train_epochs=2, train_batch_rows=128, encryption_values_per_key=62)
    opened = 0
    for line in together.transcript:
        if line.kind == "PublicKeys":
            opened = 0
        if line.kind == "OpenedGradient":
            opened += len(line.message.values) // 8
        assert opened <= spec.encryption.values_per_key


def test_a_key_that_is_used_up_is_dropped(make_setups, breast_cancer):
    """Each is 0.7 MB, and a job of thousands of steps has hundreds of them."""
    setups = make_setups(breast_cancer, train_epochs=2, train_batch_rows=128, encryption_values_per_key=31)
    owner, most = KeyOwner(setups["telco-0"].spec), 0
    feature = setups["telco-0"]
    for _ in encrypted_blocks(feature, FeatureSide(feature), owner, feature.batches()):
        most = max(most, sum(type(thing) is CkksPrivateKey for thing in gc.get_objects()))
    assert owner.operations()["make key"] == 8
    assert most <= 2


def test_a_diverging_encrypted_run_leaves_updates_out_and_ends_with_weights_in_range(federation, breast_cancer):
    spec, together = federation(breast_cancer, optimiser_rate=300.0)
    (notice,) = [told for told in together.results["bank"].notices if told.code == "diverged"]
    assert notice.text.startswith("diverged: ")
    assert np.abs(weights(together)).sum() <= PRESETS[spec.encryption.preset].weight_limit
    last = [fact for fact in together.reports["bank"] if isinstance(fact, StepDone)][-1]
    assert last.step == last.steps
    assert last.dropped > 0
    assert together.results["telco-0"].notices == []


def test_a_label_party_without_columns_of_its_own_trains_too(federation, breast_cancer):
    joined, options = replace(breast_cancer, own=()), {"train_epochs": 5, "train_batch_rows": 256}
    (_, encrypted), (_, clear) = federation(joined, **options), federation(joined, encryption_scheme="none", **options)
    assert encrypted.results["bank"].metrics["auc"] == pytest.approx(clear.results["bank"].metrics["auc"], abs=0.002)


def test_a_constant_column_at_either_party_does_no_harm(federation, breast_cancer):
    columns = breast_cancer.columns.copy()
    columns[:, [0, 10, 12]] = 7.0
    _, together = federation(replace(breast_cancer, columns=columns), train_epochs=2)
    assert together.results["bank"].metrics["auc"] > 0.95


def test_the_label_party_names_a_peer_that_sends_garbage(make_setups, breast_cancer):
    setup = make_setups(breast_cancer)["bank"]
    role = label_party(setup)
    assert isinstance(next(role), Send)
    role.send(None)
    role.send(Delivery(RowsDigest(setup.rows, setup.table.ids_digest)))
    with pytest.raises(RemoteProtocolError, match="telco-0 sent what no honest party sends"):
        role.send(Delivery(PublicKeys(b"\xff" * 100, b"", b"")))
