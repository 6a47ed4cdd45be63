"""What a client does between two messages: epochs over its own rows in an order its seed decides."""

import pytest
import torch
from torch.nn import functional

from vfl.errors import Diverged, ImpossibleJob
from vfl.models import networks
from vfl.models.local_training import evaluate, features, one_thread, train
from vfl.schedule import batch_sizes, batches
from vfl.spec.sections import Optimiser

DRAWS = torch.Generator().manual_seed(7)
ROWS = torch.randn(70, 6, generator=DRAWS)
LABELS = (ROWS[:, 0] + ROWS[:, 1] > 0).long() + (ROWS[:, 2] > 1).long()
NUMBERS = ROWS[:, 0] - 2 * ROWS[:, 3]
IMAGES = torch.randn(70, 1, 8, 8, generator=DRAWS)


def network(outputs=3, *, norm="batch", name="mlp"):
    shape = {"mlp": (6,), "small_cnn": (1, 8, 8)}[name]
    return networks.build(name, shape, outputs, hidden=(), norm=norm, generator=torch.Generator().manual_seed(0))


def fit(model, inputs=ROWS, labels=LABELS, **changes):
    options = {"epochs": 2, "batch_rows": 16, "optimiser": Optimiser(rate=0.1), "seed": b"client", "regression": False}
    return train(model, inputs, labels, **{**options, **changes})


def trained(**changes):
    model = network(norm=changes.pop("norm", "batch"))
    fit(model, **changes)
    return networks.parameters_of(model)


def equal(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("settings", [Optimiser(rate=0.1, momentum=0.9, weight_decay=0.01), Optimiser(name="adam")])
@one_thread()
def test_training_is_a_plain_loop_of_torch_over_the_schedule_s_batches(settings):
    kinds = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
        "adam": lambda p: torch.optim.Adam(p, lr=0.1),
    }
    plain = network()
    optimiser = kinds[settings.name](plain.parameters())
    plain.train()
    for batch in batches(b"client", torch.arange(70).numpy(), 2, 16):
        optimiser.zero_grad()
        functional.cross_entropy(plain(ROWS[batch.rows]), LABELS[batch.rows]).backward()
        optimiser.step()
    expected = networks.parameters_of(plain)
    for name, tensor in trained(optimiser=settings).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=1e-5)


def test_the_seed_alone_decides_the_order_of_rows():
    before = torch.get_rng_state()
    assert equal(trained(), trained())
    assert torch.equal(torch.get_rng_state(), before)
    assert not equal(trained(), trained(seed=b"another"))


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_the_number_of_threads_changes_no_bit(name):
    threads, results = torch.get_num_threads(), []
    inputs = IMAGES if name == "small_cnn" else ROWS
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            model = network(name=name)
            fit(model, inputs)
            results.append({**networks.parameters_of(model), "embedded": features(model, inputs)})
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert equal(*results)


def test_training_improves_what_evaluation_measures():
    model = network()
    before = evaluate(model, ROWS, LABELS, regression=False)
    first, last = fit(model, epochs=1), fit(model, epochs=20)
    after = evaluate(model, ROWS, LABELS, regression=False)
    assert last < first
    assert after.loss < before.loss
    assert after.correct > max(before.correct, 60)
    assert after.rows == 70


def test_a_regression_is_trained_on_squared_errors():
    model = network(1, norm="none")
    fit(model, ROWS, NUMBERS, regression=True, optimiser=Optimiser(rate=0.02), epochs=40)
    result = evaluate(model, ROWS, NUMBERS, regression=True)
    assert result.loss < 0.1 * NUMBERS.var()
    assert result.correct == pytest.approx(-result.loss * result.rows)


def test_labels_may_be_probabilities_of_classes():
    soft = functional.one_hot(LABELS, 3).float()
    hard, same = trained(norm="none"), trained(labels=soft, norm="none")
    for name, tensor in hard.items():
        torch.testing.assert_close(same[name], tensor, atol=1e-6, rtol=1e-5)


def test_equal_row_weights_change_nothing_and_a_row_of_weight_zero_is_not_learned_from():
    assert equal(trained(weights=torch.ones(70)), trained(weights=torch.full((70,), 0.5)))
    weights = torch.ones(70)
    weights[:35] = 0.0
    wrong = LABELS.clone()
    wrong[:35] = 2 - wrong[:35]
    assert equal(trained(weights=weights), trained(weights=weights, labels=wrong))


def test_the_proximal_term_is_the_gradient_of_its_formula():
    mu, anchor = 0.3, {n: t + 0.1 if t.is_floating_point() else t for n, t in networks.parameters_of(network()).items()}
    plain = network()
    plain.train()
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.1)
    for batch in batches(b"client", torch.arange(70).numpy(), 2, 16):
        optimiser.zero_grad()
        loss = functional.cross_entropy(plain(ROWS[batch.rows]), LABELS[batch.rows])
        distance = sum(((p - anchor[name]) ** 2).sum() for name, p in plain.named_parameters())
        (loss + mu / 2 * distance).backward()
        optimiser.step()
    expected = networks.parameters_of(plain)
    for name, tensor in trained(proximal=mu, anchor=anchor).items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-5, rtol=1e-5)


def test_a_proximal_term_of_zero_equals_its_absence_bit_for_bit():
    anchor = {name: tensor * 0 for name, tensor in networks.parameters_of(network()).items()}
    assert equal(trained(proximal=0.0, anchor=anchor), trained())


def test_frozen_parameters_stay_and_the_others_are_trained():
    model = network()
    model.get_submodule("hidden1").requires_grad_(requires_grad=False)
    before = networks.parameters_of(model)
    fit(model, proximal=0.1, anchor=before)
    after = networks.parameters_of(model)
    assert torch.equal(after["hidden1.linear.weight"], before["hidden1.linear.weight"])
    assert not torch.equal(after["head.weight"], before["head.weight"])


def test_every_step_is_told_once_it_is_done():
    told: list[int] = []
    fit(network(), on_step=told.append)
    assert told == list(range(1, 2 * len(batch_sizes(70, 16)) + 1))


@pytest.mark.parametrize(("rows", "batch_rows"), [(1, 16), (5, 1), (5, 2)])
def test_batch_normalisation_with_a_row_alone_in_its_batch_is_refused_before_anything_is_trained(rows, batch_rows):
    model = network()
    before = networks.parameters_of(model)
    with pytest.raises(ImpossibleJob, match="leave one row alone") as raised:
        fit(model, ROWS[:rows], LABELS[:rows], batch_rows=batch_rows)
    assert "group" in raised.value.fix
    assert equal(before, networks.parameters_of(model))


@pytest.mark.parametrize("norm", ["none", "group"])
def test_other_networks_train_on_a_single_row(norm):
    assert fit(network(norm=norm), ROWS[:1], LABELS[:1]) > 0


def test_a_client_without_rows_is_refused():
    with pytest.raises(ImpossibleJob, match="no rows"):
        fit(network(), ROWS[:0], LABELS[:0])


def test_a_rate_that_leaves_the_numbers_is_named():
    with pytest.raises(Diverged, match="not a number") as raised:
        fit(network(1, norm="none"), ROWS, NUMBERS, regression=True, optimiser=Optimiser(rate=1e6))
    assert "rate" in raised.value.fix


def test_measuring_and_embedding_leave_the_model_as_it_was_and_keep_no_gradients():
    model = network()
    before = networks.parameters_of(model)
    many = ROWS.repeat(30, 1)  # more than are measured at once
    embedded = features(model[:-1], many)
    assert embedded.shape == (2100, 32)
    assert not embedded.requires_grad
    assert torch.allclose(embedded[:70], features(model[:-1], ROWS), atol=1e-6)
    assert evaluate(model, many, LABELS.repeat(30), regression=False).rows == 2100
    assert equal(before, networks.parameters_of(model))
