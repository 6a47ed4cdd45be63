"""The golden equality in clear: split training is the same network as in one process."""

import re

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vfl.models.tensors import load_tensors
from vfl.schedule import philox

Floats = NDArray[np.float64]


def standardised(columns: Floats, train: NDArray[np.int64]) -> torch.Tensor:
    scaled = (columns - columns[train].mean(0)) / columns[train].std(0)
    return torch.from_numpy(scaled.clip(-3, 3))


def one_process(setups, joined, *, alone=False):
    """The same network by torch's own autograd, from the label party's initial weights, over all columns at once, or
    over its own."""
    label = setups["bank"]
    parties = ("bank",) if alone else (*label.spec.roster.features, "bank")
    order = [int(name[1:]) for party in parties for name in label.spec.data[party].columns]
    columns = standardised(joined.columns[:, order], label.training_rows)
    targets = torch.from_numpy(joined.labels)
    network = torch.nn.Linear(len(order), 1, dtype=torch.float64)
    draws = np.random.Generator(philox(label.private_seed, "top model"))
    start = torch.from_numpy(draws.standard_normal((1, len(order) + 1)) * 0.01)
    with torch.no_grad():
        network.weight.copy_(start[:, :-1])
        network.bias.copy_(start[:, -1])
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for batch in label.batches():
        optimiser.zero_grad()
        score = network(columns[batch.rows])[:, 0]
        # Second-order expansion of the logistic loss at 0: its derivative is u/4 + 1/2 - y.
        (score**2 / 8 + score / 2 - targets[batch.rows] * score).mean().backward()
        optimiser.step()
    return torch.cat([network.weight, network.bias[:, None]], 1).detach().numpy()


@pytest.mark.parametrize("feature_parties", [1, 2, 4])
def test_clear_split_training_equals_the_same_network_in_one_process(
    federation, make_setups, breast_cancer, feature_parties
):
    options = {"encryption_scheme": "none", "feature_parties": feature_parties}
    _, together = federation(breast_cancer, **options)
    weights = load_tensors(together.results["bank"].state)["top.weights"]
    np.testing.assert_allclose(weights, one_process(make_setups(breast_cancer, **options), breast_cancer), atol=1e-12)


def test_beside_it_the_label_party_trains_the_same_network_on_its_own_columns_alone(
    federation, make_setups, breast_cancer
):
    _, together = federation(breast_cancer, encryption_scheme="none")
    label = together.results["bank"]
    weights = load_tensors(label.state)["own_columns.weights"]
    expected = one_process(make_setups(breast_cancer, encryption_scheme="none"), breast_cancer, alone=True)
    np.testing.assert_allclose(weights, expected, atol=1e-12)
    assert 0.5 < label.metrics["own_columns_auc"] < label.metrics["auc"]
    assert not any(name.startswith("own_columns") for name in load_tensors(together.results["telco-0"].state))


def test_two_runs_with_one_seed_end_in_equal_weights(federation, breast_cancer):
    states = [federation(breast_cancer, encryption_scheme="none")[1].results["bank"].state for _ in range(2)]
    assert states[0] == states[1]


def test_the_label_party_alone_learns_how_good_the_model_is(federation, breast_cancer):
    _, together = federation(breast_cancer, encryption_scheme="none", train_epochs=5)
    assert together.results["bank"].metrics["auc"] > 0.97
    assert together.results["telco-0"].metrics == {}


def test_a_run_with_a_huge_rate_goes_on_and_tells_the_label_party_what_it_left_out(federation, breast_cancer):
    _, together = federation(breast_cancer, encryption_scheme="none", optimiser_rate=1e4)
    label, feature = (together.results[party] for party in ("bank", "telco-0"))
    (notice,) = [told for told in label.notices if told.code == "diverged"]
    assert re.match(
        r"diverged: \d+ of 8 updates of the top model were left out, the first at step \d: weights", notice.text
    )
    assert "train.optimiser.rate" in notice.text
    assert feature.notices == []
    assert np.abs(load_tensors(label.state)["top.weights"]).sum() <= 1e3
