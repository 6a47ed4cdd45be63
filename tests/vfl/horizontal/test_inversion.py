"""Inverting a classifier of digits: what is found, what is kept, and what another model learns from it."""

from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits, load_wine
from torch import nn

from vfl.horizontal.model_inversion.inversion import GENERATOR, Inverted, Search, Space, invert, observe
from vfl.models.local_training import evaluate, train
from vfl.models.networks import build, norm_statistics_names, parameters_of
from vfl.models.split import cut
from vfl.spec.sections import Optimiser

TRAINING, TEST = slice(0, 1437), slice(1437, None)
IMAGES = Space((1, 8, 8))
WIDTHS = (16, 32, 64)
"""No block twice: quicker to invert than the widths a network has when none are named."""


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return torch.tensor(data.data / 16).float(), torch.tensor(data.target)


def network(kind: str, norm: str, seed: int = 1, hidden: tuple[int, ...] = WIDTHS) -> nn.Sequential:
    shape = (1, 8, 8) if kind == "small_cnn" else (64,)
    return build(kind, shape, 10, hidden=hidden, norm=norm, generator=torch.Generator().manual_seed(seed))


def fitted(module: nn.Sequential, inputs: torch.Tensor, labels: torch.Tensor, epochs: int = 8) -> nn.Sequential:
    train(
        module,
        inputs,
        labels,
        epochs=epochs,
        batch_rows=32,
        optimiser=Optimiser(rate=0.05),
        seed=b"training",
        regression=False,
    )
    return module


def accuracy(module: nn.Sequential, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    found = evaluate(module, inputs, labels, regression=False)
    return found.correct / found.rows


def each(rows: int) -> torch.Tensor:
    return torch.arange(10).repeat(rows)


@pytest.fixture(scope="module")
def teacher(digits) -> nn.Sequential:
    inputs, labels = digits
    return fitted(network("small_cnn", "batch", hidden=WIDTHS), inputs[TRAINING].reshape(-1, 1, 8, 8), labels[TRAINING])


@pytest.fixture(scope="module")
def found(teacher) -> Inverted:
    return invert(teacher, each(32), IMAGES, Search(), b"seed")


@pytest.fixture(scope="module")
def small(digits) -> nn.Sequential:
    """A small trained network, cheap to invert."""
    inputs, labels = digits
    return fitted(network("mlp", "batch", hidden=(32,)), inputs[TRAINING], labels[TRAINING])


def test_the_filter_keeps_nine_rows_in_ten_of_a_trained_model(found):
    assert found.confident_share >= 0.9


def test_a_student_of_inverted_rows_alone_comes_near_its_teacher(digits, teacher, found):
    inputs, labels = digits
    test = inputs[TEST].reshape(-1, 1, 8, 8), labels[TEST]
    kept = found.filtered()
    student = fitted(network("small_cnn", "batch", seed=7, hidden=WIDTHS), kept.inputs, kept.labels, epochs=15)
    assert accuracy(student, *test) >= 0.9 * accuracy(teacher, *test)


def test_a_student_of_noise_learns_nothing(digits):
    inputs, labels = digits
    noise = torch.rand(400, 64, generator=torch.Generator().manual_seed(1))
    student = fitted(network("mlp", "batch", seed=7, hidden=(32,)), noise, each(40))
    assert accuracy(student, inputs[TEST], labels[TEST]) < 0.3


def test_rows_stay_in_the_public_range(found):
    assert found.inputs.shape == (320, 1, 8, 8)
    assert found.inputs.min() >= 0
    assert found.inputs.max() <= 1


def test_the_model_is_left_as_it_was(small):
    before = parameters_of(small)
    invert(small, each(2), Space((64,)), Search(steps=5), b"seed")
    assert all(torch.equal(before[name], values) for name, values in parameters_of(small).items())
    assert all(parameter.grad is None or not parameter.grad.isnan().any() for parameter in small.parameters())
    assert not any(layer._forward_pre_hooks for layer in small.modules())


def test_the_same_seed_finds_the_same_rows_and_another_seed_others(small):
    for search in (Search(steps=5), replace(GENERATOR, steps=5)):
        one, same, other = (invert(small, each(3), Space((64,)), search, seed).inputs for seed in (b"a", b"a", b"b"))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)


def test_no_label_gives_no_row(small):
    assert len(invert(small, each(0), Space((64,)), Search(), b"seed").inputs) == 0


def test_statistics_come_nearer_to_those_of_real_rows(digits, small):
    inputs, _ = digits
    plain, matched = (
        invert(small, each(20), Space((64,)), Search(steps=100, statistics=weight), b"seed").inputs
        for weight in (0.0, 1.0)
    )

    def apart(rows: torch.Tensor) -> float:
        layer = small.get_submodule("features.linear")
        return float((layer(rows) - layer(inputs[TRAINING]).mean(0)).mean(0).norm().detach())

    assert apart(matched) < 0.5 * apart(plain)


def test_a_generator_finds_rows_that_are_kept(small):
    assert invert(small, each(16), Space((64,)), GENERATOR, b"seed").confident_share >= 0.9


def test_a_generator_that_competes_finds_more_rows_on_which_the_student_disagrees(digits, small):
    inputs, labels = digits
    student = fitted(network("mlp", "batch", seed=3, hidden=(32,)), inputs[TRAINING], labels[TRAINING])

    def disagreements(rows: torch.Tensor) -> float:
        small.eval(), student.eval()
        return float((student(rows).argmax(1) != small(rows).argmax(1)).float().mean())

    alone = invert(small, each(16), Space((64,)), GENERATOR, b"seed")
    competing = invert(small, each(16), Space((64,)), GENERATOR, b"seed", student)
    assert disagreements(competing.inputs) > disagreements(alone.inputs)


def test_observers_stand_in_for_norms(digits):
    inputs, labels = digits
    module = observe(network("mlp", "none", hidden=(32, 16)), first=False)
    names = [name for name, _ in norm_statistics_names(parameters_of(module))]
    assert names == [
        "features.linear.observed_running_mean",
        "head.observed_running_mean",
    ]  # and nothing that reads rows

    fitted(module, inputs[TRAINING], labels[TRAINING])
    hidden = cut(module, "hidden1").backbone(inputs[TRAINING]).detach()
    observed = module.get_buffer("features.linear.observed_running_mean")
    assert torch.allclose(observed, hidden.mean(0), rtol=0.3, atol=0.05)
    assert invert(module, each(10), Space((64,)), Search(), b"seed").confident_share >= 0.9


def test_observing_changes_no_score(digits):
    inputs, _ = digits
    plain, observed = network("small_cnn", "group"), observe(network("small_cnn", "group"), first=False)
    assert torch.equal(plain(inputs[:5].reshape(-1, 1, 8, 8)), observed(inputs[:5].reshape(-1, 1, 8, 8)))


def test_features_of_a_decoder_are_found_as_rows_are(digits):
    inputs, labels = digits
    split = cut(fitted(network("mlp", "batch", hidden=(32, 16)), inputs[TRAINING], labels[TRAINING]), "hidden1")
    decoder = observe(split.decoder, first=True)
    features = split.backbone(inputs[TRAINING]).detach()
    fitted(decoder, features, labels[TRAINING], epochs=2)
    found = invert(decoder, each(10), Space((32,), 0.0, float("inf")), Search(), b"seed")
    assert found.confident_share >= 0.9
    assert found.inputs.min() >= 0
    assert torch.allclose(found.inputs.mean(0), features.mean(0), atol=0.3)


def test_rows_of_tables_are_found_too():
    data = load_wine()
    columns = torch.tensor((data.data - data.data.min(0)) / (data.data.max(0) - data.data.min(0))).float()
    labels = torch.tensor(data.target)
    draws = torch.Generator().manual_seed(1)
    teacher, student = (build("mlp", (13,), 3, hidden=(16,), norm="batch", generator=draws) for _ in range(2))
    fitted(teacher, columns, labels, epochs=60)
    found = invert(teacher, torch.arange(3).repeat(32), Space((13,)), Search(), b"seed")
    assert found.confident_share >= 0.9
    fitted(student, *found.filtered()[:2], epochs=20)
    assert accuracy(student, columns, labels) >= 0.85
