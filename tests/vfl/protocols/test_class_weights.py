"""The error of a row counts by its class: the same in clear, on ciphertexts and in one process, and at most 1."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from vfl.errors import SpecError
from vfl.flow import run_together
from vfl.kinds import flow_of
from vfl.models.class_weights import class_weights
from vfl.models.tensors import load_tensors
from vfl.planning.training import plan
from vfl.schedule import philox

NETWORK = 'layout = "features", top = { kind = "mlp", hidden = [3] }'


def noise_free(preset):
    return replace(preset, noise=0.0, output_noise=0.0)


def weights(together):
    return {n: t for n, t in load_tensors(together.results["bank"].state).items() if n.startswith("top.")}


def weighted(setups, wanted):
    """Setups of the same training with these class weights."""
    train = msgspec.structs.replace(setups["bank"].spec.train, class_weights=wanted)
    spec = msgspec.structs.replace(setups["bank"].spec, train=train)
    return {party: replace(setup, spec=spec) for party, setup in setups.items()}


def test_a_table_of_weights_is_brought_to_a_largest_of_one() -> None:
    labels = np.array([0, 0, 0, 1])
    assert class_weights({"Y": 4.0}, ("N", "Y"), labels).tolist() == [0.25, 1.0]
    assert class_weights({"N": 0.5}, ("N", "Y"), labels).tolist() == [0.5, 1.0]
    assert class_weights({"1": 3.0, "2": 6.0}, ("0", "1", "2"), labels).tolist() == [1 / 6, 0.5, 1.0]


def test_balanced_classes_count_alike_in_all_and_none_less_than_a_hundredth() -> None:
    assert class_weights("balanced", ("0", "1"), np.array([0] * 30 + [1] * 10)).tolist() == [1 / 3, 1.0]
    assert class_weights("balanced", ("0", "1"), np.array([0] * 3000 + [1] * 10)).tolist() == [0.01, 1.0]
    assert class_weights("balanced", ("0", "1", "2"), np.array([0, 0, 2])).tolist() == [0.5, 1.0, 1.0]


def test_a_training_in_clear_is_weighted_descent_on_the_loss(make_setups, breast_cancer):
    setups = weighted(make_setups(breast_cancer, encryption_scheme="none"), "balanced")
    together = run_together({party: flow_of(setup) for party, setup in setups.items()})
    label = setups["bank"]
    order = [int(n[1:]) for party in ("telco-0", "bank") for n in label.spec.data[party].columns]
    train, labels = label.training_rows, breast_cancer.labels
    columns = breast_cancer.columns[:, order]
    prepared = ((columns - columns[train].mean(0)) / columns[train].std(0)).clip(-3, 3)
    shares = np.bincount(labels[train].astype(int))
    rows = torch.from_numpy((shares.min() / shares)[labels.astype(int)])
    network = torch.nn.Linear(len(order), 1, dtype=torch.float64)
    start = np.random.Generator(philox(label.private_seed, "top model")).standard_normal((1, len(order) + 1)) * 0.01
    with torch.no_grad():
        network.weight.copy_(torch.from_numpy(start[:, :-1]))
        network.bias.copy_(torch.from_numpy(start[:, -1]))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for batch in label.batches():
        optimiser.zero_grad()
        score = network(torch.from_numpy(prepared[batch.rows]))[:, 0]
        loss = score**2 / 8 + score / 2 - torch.from_numpy(labels[batch.rows]) * score
        ((rows[batch.rows] * loss).sum() / rows[batch.rows].sum()).backward()
        optimiser.step()
    expected = torch.cat([network.weight, network.bias[:, None]], 1).detach().numpy()
    np.testing.assert_allclose(weights(together)["top.weights"], expected, atol=1e-12)
    (told,) = [notice for notice in together.results["bank"].notices if notice.code == "class_weights"]
    assert told.text.endswith(f"1 of 0, {(shares.min() / shares)[1]:.3g} of 1")


CASES = [
    ("breast_cancer", {}),
    ("breast_cancer", {"encryption_labels": "ciphertext"}),
    ("breast_cancer", {"encryption_loss_error": "cubic", "optimiser_rate": 0.02}),
    ("breast_cancer", {"model": NETWORK}),
    ("digits", {"encryption_values_per_key": 4096, "train_batch_rows": 1024}),
]


@pytest.mark.parametrize(
    ("table", "options"), CASES, ids=["linear", "label ciphertext", "cubic", "network", "ten classes"]
)
def test_weights_of_the_encrypted_run_are_those_of_the_clear_one_without_reply_noise(
    federation, request, table, options
):
    joined, options = request.getfixturevalue(table), {"train_epochs": 1, "train_class_weights": "balanced", **options}
    _, encrypted = federation(joined, change=noise_free, **options)
    in_clear = {
        name: at for name, at in options.items() if name not in ("encryption_labels", "encryption_values_per_key")
    }
    _, clear = federation(joined, **in_clear, encryption_scheme="none")
    for name, matrix in weights(clear).items():
        error = np.abs(weights(encrypted)[name] - matrix).max() / np.abs(matrix).max()
        assert error < 1e-3, name


def test_a_class_that_counts_more_is_found_more_often(make_setups, breast_cancer):
    def recall(wanted):
        setups = weighted(make_setups(breast_cancer, encryption_scheme="none", train_epochs=10), wanted)
        label = run_together({party: flow_of(setup) for party, setup in setups.items()}).results["bank"]
        at = [i for i, p in enumerate(label.series["calibration_predicted"]) if p > 0.5]
        return sum(label.series["calibration_rows"][i] for i in at)

    assert recall({"0": 20.0}) < recall("none") < recall({"1": 20.0})


def test_the_forecast_of_noise_is_left_out(make_setups, breast_cancer):
    spec = make_setups(breast_cancer, train_class_weights="balanced")["bank"].spec
    assert plan(spec, 569).weight_noise == 0.0


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"1": 0.0}, "train.class_weights.1 must be a finite number above 0"),
        ({"1": float("inf")}, "train.class_weights.1 must be a finite number above 0"),
        ({"1": 101.0}, "may count 100 times as much as another at most"),
        ({"0": 0.005}, "may count 100 times as much as another at most"),
    ],
)
def test_weights_out_of_bounds_are_refused_by_name(make_setups, breast_cancer, wanted, told):
    with pytest.raises(SpecError) as refused:
        weighted(make_setups(breast_cancer), wanted)
    assert told in str(refused.value)


def test_they_are_for_classes(make_setups, diabetes):
    with pytest.raises(SpecError, match=r"train\.class_weights is for classes"):
        weighted(make_setups(diabetes), "balanced")
