"""Networks with hidden layers, bottoms of the feature party's own and encrypted labels equal the network in clear."""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clear_training import in_clear

from crypto.ckks import repeats
from vfl.errors import Diverged, InvalidBottom
from vfl.flow import run_together
from vfl.kinds import flow_of
from vfl.models.scorer import SQUARE_ACTIVATION
from vfl.models.tabular import build
from vfl.models.tensors import load_tensors
from vfl.planning.training import opened_per_step, plan

MLP = 'top = { kind = "mlp", hidden = [4] }'
EMBEDDINGS = 'layout = "embeddings", bottom = { hidden = [8], out = 5 }'
OPEN = 'method = "none"'

SHAPES = {
    "features, mlp": {"model": MLP},
    "embeddings, linear": {"model": EMBEDDINGS, "cut_noise": OPEN},
    "embeddings, mlp": {"model": f"{EMBEDDINGS}, {MLP}", "cut_noise": OPEN},
    "embeddings narrower than the layer above": {
        "model": f'layout = "embeddings", bottom = {{ out = 2 }}, {MLP}',
        "cut_noise": OPEN,
    },
}
TABLES: dict[str, dict[str, Any]] = {
    "breast_cancer": {"train_batch_rows": 256},
    "diabetes": {"optimiser_rate": 0.02},
    "digits": {"train_batch_rows": 1438, "encryption_values_per_key": 4096, "optimiser_rate": 0.05},
}


def noise_free(preset):
    return replace(preset, noise=0.0, output_noise=0.0)


def relative_difference(first, second, party):
    left, right = (load_tensors(run.results[party].state) for run in (first, second))
    learned = [name for name in right if name.startswith(("top", "bottom"))]
    largest = max(np.abs(right[name]).max() for name in learned)
    return max(np.abs(left[name] - right[name]).max() for name in learned) / largest


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("shape", SHAPES)
def test_both_halves_after_one_epoch_equal_the_clear_run_without_reply_noise(federation, request, table, shape):
    joined, options = request.getfixturevalue(table), {"train_epochs": 1, **TABLES[table], **SHAPES[shape]}
    _, encrypted = federation(joined, change=noise_free, **options)
    _, clear = federation(joined, **in_clear(options))
    assert relative_difference(encrypted, clear, "bank") < 1e-3
    if "embeddings" in shape:
        assert relative_difference(encrypted, clear, "telco-0") < 1e-3


@pytest.mark.parametrize("model", ["", MLP])
@pytest.mark.parametrize("optimiser", [{"name": "adam"}, {"weight_decay": 0.01}])
def test_optimisers_work_on_opened_sums_as_on_clear_ones(federation, breast_cancer, model, optimiser):
    settings = {f"optimiser_{key}": value for key, value in optimiser.items()}
    options = {"model": model, "train_epochs": 1, "optimiser_momentum": 0.0, "optimiser_rate": 0.05, **settings}
    _, encrypted = federation(breast_cancer, change=noise_free, **options)
    _, clear = federation(breast_cancer, encryption_scheme="none", **options)
    assert relative_difference(encrypted, clear, "bank") < 1e-3


@pytest.mark.parametrize("model", ["", MLP])
def test_labels_encrypted_first_give_the_same_weights_as_labels_in_clear(federation, breast_cancer, model):
    options = {"model": model, "train_epochs": 1}
    _, encrypted = federation(breast_cancer, change=noise_free, encryption_labels="ciphertext", **options)
    _, clear = federation(breast_cancer, change=noise_free, **options)
    assert relative_difference(encrypted, clear, "bank") < 1e-3
    assert encrypted.results["bank"].operations["encrypt label"] == 4


@pytest.mark.parametrize(
    "options",
    [{"model": MLP}, {"model": EMBEDDINGS, "cut_noise": OPEN}, {"model": f"{EMBEDDINGS}, {MLP}", "cut_noise": OPEN}],
    ids=["features, mlp", "embeddings, linear", "embeddings, mlp"],
)
def test_an_encrypted_network_is_as_good_as_the_clear_one(federation, breast_cancer, options):
    rules = {"optimiser_name": "adam", "optimiser_rate": 0.1, "optimiser_momentum": 0.0}
    rules |= {"train_epochs": 8, "train_batch_rows": 228}
    _, encrypted = federation(breast_cancer, **rules, **options)
    _, clear = federation(breast_cancer, encryption_scheme="none", **rules, **options)
    auc = encrypted.results["bank"].metrics["auc"]
    assert auc >= 0.985
    assert abs(auc - clear.results["bank"].metrics["auc"]) <= 0.002


@pytest.fixture(scope="session")
def wide(breast_cancer):
    """A table of 12,000 rows, so that a batch fills several blocks of slots."""
    draws = np.random.Generator(np.random.Philox(5))
    rows = draws.integers(0, len(breast_cancer.labels), 12_000)
    return replace(
        breast_cancer, columns=breast_cancer.columns[rows][:, :8], labels=breast_cancer.labels[rows], own=(0, 1)
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"model": MLP}, {"model": EMBEDDINGS, "cut_noise": OPEN}],
    ids=["linear", "mlp", "embeddings"],
)
def test_a_batch_wider_than_the_slots_is_summed_before_anything_is_opened(federation, wide, options):
    options = {"train_epochs": 1, "train_batch_rows": 9600, **options}
    _, encrypted = federation(wide, change=noise_free, **options)
    _, clear = federation(wide, encryption_scheme="none", **options)
    assert relative_difference(encrypted, clear, "bank") < 1e-3
    kinds = [line.kind for line in encrypted.transcript]
    assert kinds.count("EncryptedEmbedding") == 3
    assert kinds.count("MaskedGradient") == kinds.count("OpenedGradient") == 1


def test_a_step_on_thirty_thousand_rows_needs_no_more_memory_than_on_four_thousand():
    """The label party holds one block's ciphertexts and one running sum per weight, the feature party one block."""

    def peak(rows: int) -> int:
        script = Path(__file__).with_name("one_step.py")
        run = subprocess.run([sys.executable, script, str(rows)], capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert peak(30_000) < 1.05 * peak(4096)


def test_bottoms_of_several_feature_parties_learn_as_one_network(make_setups, federation, breast_cancer):
    """The golden equality for layout embeddings: torch's own autograd through bottoms and top, in one process."""
    options = {"model": f"{EMBEDDINGS}, {MLP}", "cut_noise": OPEN, "feature_parties": 2, "encryption_scheme": "none"}
    options["train_weight_limit"] = 1000.0  # torch has none
    _, split = federation(breast_cancer, **options)
    setups = make_setups(breast_cancer, **options)
    label = setups["bank"]
    bottoms = {
        party: build(label.spec.model.bottom, setup.table.columns.shape[1], setup.private_seed, None)
        for party, setup in setups.items()
        if party != "bank"
    }
    hidden, output = first_weights(label)

    def scaled(setup):
        train = setup.table.columns[setup.training_rows]
        return torch.from_numpy(((setup.table.columns - train.mean(0)) / train.std(0)).clip(-3, 3))

    columns = {party: scaled(setup) for party, setup in setups.items()}
    alpha, beta = SQUARE_ACTIVATION
    parameters = [hidden, output, *(p for bottom in bottoms.values() for p in bottom.parameters())]
    optimiser = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    for batch in label.batches():
        joined = [bottoms[party](columns[party][batch.rows]) for party in label.spec.roster.features]
        ones = torch.ones(len(batch.rows), 1, dtype=torch.float64)
        below = torch.cat([*joined, columns["bank"][batch.rows], ones], 1) @ hidden.T
        score = (torch.cat([alpha * below**2 + beta * below, ones], 1) @ output.T)[:, 0]
        target = torch.from_numpy(breast_cancer.labels[batch.rows])
        optimiser.zero_grad()
        (score**2 / 8 + score / 2 - target * score).mean().backward()
        optimiser.step()
    state = load_tensors(split.results["bank"].state)
    np.testing.assert_allclose(state["top.hidden"], hidden.detach().numpy(), atol=1e-11)
    np.testing.assert_allclose(state["top.weights"], output.detach().numpy(), atol=1e-11)
    for party, bottom in bottoms.items():
        state = load_tensors(split.results[party].state)
        for name, tensor in bottom.state_dict().items():
            np.testing.assert_allclose(state[f"bottom.{name}"], tensor.numpy(), atol=1e-11)


def first_weights(setup):
    """The top model's first weights, as parameters of torch."""
    from vfl.protocols.label_side import LabelSide

    tensors = LabelSide(setup).top.tensors()
    return [torch.nn.Parameter(torch.from_numpy(tensors[f"top.{name}"])) for name in ("hidden", "weights")]


def test_the_cut_error_that_arrives_is_the_clear_cut_gradient(federation, breast_cancer):
    """Association neurons, noise off: what the feature party decrypts is what clear training sends."""
    options = {"model": f"{EMBEDDINGS}, {MLP}", "cut_noise": OPEN, "train_epochs": 1, "train_batch_rows": 455}
    _, encrypted = federation(breast_cancer, change=noise_free, **options)
    _, clear = federation(breast_cancer, encryption_scheme="none", **options)
    (error,) = (line.message for line in encrypted.transcript if line.kind == "EncryptedError")
    assert len(error.columns) == 4 * 2 * 8 * 8192
    assert len(error.basis) == 4 * 5 * 8
    assert relative_difference(encrypted, clear, "telco-0") < 1e-4


def test_noise_on_the_cut_error_changes_the_bottom_and_not_the_protocol(federation, breast_cancer):
    options = {"model": EMBEDDINGS, "train_epochs": 1}
    _, bare = federation(breast_cancer, cut_noise=OPEN, **options)
    _, noisy = federation(breast_cancer, cut_noise='method = "isotropic", scale = 2.0', **options)
    assert relative_difference(noisy, bare, "telco-0") > 0.01
    kinds = [[(line.kind, line.payload_bytes) for line in run.transcript] for run in (bare, noisy)]
    assert kinds[0] == kinds[1]


def test_the_plan_counts_what_a_network_opens_and_shows(federation, breast_cancer):
    spec, together = federation(breast_cancer, model=f"{EMBEDDINGS}, {MLP}", cut_noise=OPEN, train_epochs=1)
    opened = 4 * (5 + 10 + 1) + (4 + 1)
    assert opened_per_step(spec) == opened
    planned = plan(spec, len(breast_cancer.labels))
    assert planned.rho == pytest.approx(4 * planned.steps / planned.training_rows)
    assert not planned.guards_deviating_label_party
    sizes = [len(line.message.values) // 8 for line in together.transcript if line.kind == "OpenedGradient"]
    assert sizes == [opened] * planned.steps
    (line,) = (line for line in planned.reveals if line.message == "EncryptedError")
    assert line.values == 4 * planned.training_rows + planned.steps * 4 * 5
    assert "label" in line.learns
    assert line.receiver == "telco-0"


def private(setups, module):
    feature = next(party for party in setups if party != "bank")
    setups = {**setups, feature: replace(setups[feature], bottom=module)}
    return run_together({p: flow_of(s) for p, s in setups.items()})


@pytest.fixture(scope="session")
def with_private_bottom(make_setups, breast_cancer):
    model = f'layout = "embeddings", bottom = {{ kind = "private", out = 3 }}, {MLP}'
    return make_setups(breast_cancer, model=model, cut_noise=OPEN, train_epochs=1)


def test_any_module_of_the_owner_serves_as_bottom(with_private_bottom):
    together = private(
        with_private_bottom, lambda c, w: torch.nn.Sequential(torch.nn.Linear(c, w), torch.nn.Softsign())
    )
    assert "bottom.0.weight" in load_tensors(together.results["telco-0"].state)


def test_a_bottom_of_another_width_is_named_before_anything_is_sent(with_private_bottom):
    with pytest.raises(InvalidBottom, match=r"gives \(8, 4\) for 8 rows, the job says 3 columns"):
        private(with_private_bottom, lambda c, w: torch.nn.Linear(c, w + 1))


def test_a_bottom_that_explodes_is_named_before_its_numbers_are_encrypted(with_private_bottom):
    class Explodes(torch.nn.Linear):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return super().forward(values) * 1e9

    with pytest.raises(Diverged, match="exploded: an embedding reaches"):
        private(with_private_bottom, Explodes)


def test_a_private_bottom_nobody_named_is_an_error_that_says_where_to_name_it(with_private_bottom):
    with pytest.raises(InvalidBottom, match="names none") as raised:
        private(with_private_bottom, None)
    assert "[bottom] module" in raised.value.fix


def test_torchs_global_generator_is_left_as_it_was(with_private_bottom):
    before = torch.random.get_rng_state()
    build(with_private_bottom["bank"].spec.model.bottom, 4, b"seed" * 8, torch.nn.Linear)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_rows_of_a_last_short_block_stand_as_often_as_those_of_the_first():
    assert repeats(4096) == 1
    assert repeats(2048) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"train_epochs": 4},
        {"encryption_loss_error": "cubic", "optimiser_rate": 0.01},
        {"model": MLP},
        {"model": f"{EMBEDDINGS}, {MLP}", "cut_noise": OPEN},
        {"model": EMBEDDINGS, "cut_noise": OPEN, "encryption_scheme": "none", "train_batch_rows": 400},
    ],
    ids=["linear", "cubic", "mlp", "embeddings", "clear embeddings"],
)
def test_what_travels_is_what_the_plan_forecast(federation, breast_cancer, options):
    spec, together = federation(breast_cancer, **options)
    sent = Counter[str]()
    for line in together.transcript:
        sent[line.kind] += line.payload_bytes
    forecast = plan(spec, len(breast_cancer.labels)).payload_bytes
    for kind, expected in forecast.items():
        framing = 64 * sum(line.kind == kind for line in together.transcript)
        assert expected <= sent[kind] <= expected + framing, kind
    assert sum(forecast.values()) == pytest.approx(sum(sent.values()), rel=0.05)
