"""The networks of horizontal rounds: chains of named blocks whose every first weight comes from one generator."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from vfl.errors import ImpossibleJob
from vfl.models import networks
from vfl.models.local_training import evaluate, train
from vfl.planning.model_size import weights_of
from vfl.schedule import held_out
from vfl.spec.network_names import block_names, cut_names
from vfl.spec.sections import Optimiser

SHAPES = {"mlp": (64,), "small_cnn": (1, 8, 8)}


def network(name="mlp", *, outputs=10, hidden=(), norm="batch", seed=0, input_shape=None):
    generator = torch.Generator().manual_seed(seed)
    shape = input_shape or SHAPES[name]
    return networks.build(name, shape, outputs, hidden=hidden, norm=norm, generator=generator)


def some_rows(count, name="mlp"):
    return torch.rand((count, *SHAPES[name]), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize(
    ("name", "hidden", "blocks"),
    [
        ("mlp", (32,), ("features", "head")),
        ("mlp", (32, 16, 16), ("hidden1", "hidden2", "features", "head")),
        ("small_cnn", (8, 16), ("stem", "features", "head")),
        ("small_cnn", (), ("stem", "block1", "block2", "features", "head")),
    ],
)
def test_a_network_is_a_chain_of_the_blocks_that_names_alone_foretell(name, hidden, blocks, norm):
    built = network(name, hidden=hidden, norm=norm)
    assert tuple(block for block, _ in built.named_children()) == blocks == block_names(name, hidden)
    assert cut_names(name, hidden) == blocks[:-1]
    assert isinstance(built.head, torch.nn.Linear)
    assert built(some_rows(4, name)).shape == (4, 10)


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize(
    ("name", "shape", "hidden"),
    [
        ("mlp", (7,), (5,)),
        ("mlp", (2, 3, 4), (9, 9, 4)),
        ("small_cnn", (1, 8, 8), (4, 4, 8)),
        ("small_cnn", (3, 28, 20), (16, 32, 32, 64)),
        ("small_cnn", (2, 40, 5), (3, 3, 6, 6, 10)),
    ],
)
def test_a_networks_size_is_counted_without_building_it(name, shape, hidden, norm):
    built = network(name, input_shape=shape, hidden=hidden, norm=norm)
    values = sum(
        tensor.numel() for key, tensor in built.state_dict().items() if not key.endswith("num_batches_tracked")
    )
    assert weights_of(name, shape, hidden, 10, norm) == values


@pytest.mark.parametrize("side", [8, 12, 28])
def test_a_small_cnn_reads_pictures_of_eight_to_twenty_eight_pixels(side):
    built = network("small_cnn", input_shape=(1, side, side))
    assert built(torch.zeros(2, 1, side, side)).shape == (2, 10)


def test_an_mlp_reads_pictures_too():
    assert network("mlp", input_shape=(1, 8, 8))(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(("name", "hidden"), [("mlp", (16, 16, 16, 8)), ("small_cnn", (8, 8, 8, 16))])
def test_a_block_between_equal_widths_can_be_left_out(name, hidden):
    whole = network(name, hidden=hidden)
    without = torch.nn.Sequential(*[block for k, block in enumerate(whole) if k != 1])
    assert without(some_rows(4, name)).shape == (4, 10)


@pytest.mark.parametrize("name", ["mlp", "small_cnn"])
def test_the_generator_decides_all_weights_and_the_global_one_is_left_alone(name):
    before = torch.get_rng_state()
    first, again, other = (networks.parameters_of(network(name, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[tensor], again[tensor]) for tensor in first)
    assert not torch.equal(first["features.linear.weight"], other["features.linear.weight"])
    assert all(torch.isfinite(tensor).all() for tensor in first.values())
    assert {str(tensor.dtype) for tensor in first.values()} == {"torch.float32", "torch.int64"}


@pytest.mark.parametrize(
    ("settings", "happened", "way_out"),
    [
        ({"name": "transformer", "input_shape": (4,)}, "no network 'transformer'", "mlp, small_cnn"),
        ({"norm": "layer"}, "no normalisation 'layer'", "none, batch, group"),
        ({"hidden": (16, 0)}, "without neurons", "at least 1"),
        ({"name": "small_cnn", "hidden": (16,)}, "at least 2 widths", "stem"),
        ({"name": "small_cnn", "input_shape": (64,)}, "cannot read rows", "mlp"),
        ({"name": "small_cnn", "input_shape": (1, 2, 2)}, "cannot read rows", "4 x 4"),
        ({"outputs": 0}, "to 0 outputs", "one output per class"),
        ({"input_shape": (0,)}, "no network maps rows", "input column"),
    ],
)
def test_settings_that_make_no_network_are_refused_with_the_way_out(settings, happened, way_out):
    with pytest.raises(ImpossibleJob, match=happened) as raised:
        network(**settings)
    assert way_out in raised.value.fix


def test_parameters_are_a_copy_of_the_whole_state_in_its_order():
    built = network()
    taken = networks.parameters_of(built)
    assert list(taken) == list(built.state_dict()) == list(networks.shapes_of(built))
    assert {"features.norm.running_mean", "features.norm.num_batches_tracked"} <= taken.keys()
    kept = taken["head.weight"].clone()
    with torch.no_grad():
        built.head.weight.zero_()
    assert torch.equal(taken["head.weight"], kept)


def test_loading_overwrites_every_tensor_and_stays_apart_from_what_was_loaded():
    source, target = network(seed=0), network(seed=1)
    taken = networks.parameters_of(source)
    networks.load_parameters(target, taken)
    taken["head.weight"].zero_()
    assert torch.equal(target.head.weight, source.head.weight)
    assert torch.equal(target(some_rows(5)), source(some_rows(5)))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda p: p.pop("head.bias"), "head.bias is .10,. in the model and absent"),
        (lambda p: p.update(extra=torch.zeros(1)), "extra is absent in the model"),
        (lambda p: p.update({"head.bias": torch.zeros(3)}), "head.bias is .10,. .* and .3,."),
    ],
)
def test_parameters_of_another_model_are_refused_by_the_name_of_a_tensor(change, named):
    built = network()
    parameters = networks.parameters_of(built)
    change(parameters)
    with pytest.raises(ValueError, match=named):
        networks.load_parameters(built, parameters)


def test_parameters_survive_the_way_through_arrays_that_cannot_be_written():
    parameters = networks.parameters_of(network("small_cnn"))
    arrays = {
        name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)
        for name, array in networks.to_arrays(parameters).items()
    }
    back = networks.from_arrays(arrays)
    assert list(back) == list(parameters)
    for name, tensor in parameters.items():
        assert torch.equal(back[name], tensor)
        assert back[name].dtype == tensor.dtype


def test_norm_statistics_pooled_by_their_formula_are_those_of_the_joined_rows():
    built = network(hidden=(16,))
    built.features.norm.momentum = 1.0  # the statistics of the last batch alone
    parts = [some_rows(40)[:10], some_rows(40)[10:] * 2 + 1]
    states = []
    for rows in (*parts, torch.cat(parts)):
        built.train()(rows)
        states.append(networks.parameters_of(built))
    shares = [len(rows) / 40 for rows in parts]
    (names,) = networks.norm_statistics_names(states[0])
    mean = sum(p * s[names.mean] for p, s in zip(shares, states, strict=False))
    # torch keeps the variance over n - 1; the formula is about that over n.
    spread = [s[names.variance] * (len(r) - 1) / len(r) for s, r in zip(states, parts, strict=False)]
    square = sum(p * (v + s[names.mean] ** 2) for p, v, s in zip(shares, spread, states, strict=False))
    torch.testing.assert_close(mean, states[2][names.mean])
    torch.testing.assert_close(square - mean**2, states[2][names.variance] * 39 / 40)


def test_only_batch_norms_have_statistics_and_each_is_found_by_name():
    cnn = network("small_cnn")
    layers = networks.batch_norm_layers(cnn)
    assert list(layers) == ["stem.norm", "block1.norm", "block2.norm", "features.norm"]
    pairs = networks.norm_statistics_names(networks.parameters_of(cnn))
    assert {pair.mean for pair in pairs} == {f"{name}.running_mean" for name in layers}
    assert not networks.norm_statistics_names(networks.parameters_of(network("small_cnn", norm="group")))


def test_a_small_cnn_reads_digits_as_well_as_the_design_measured():
    pixels, digits = load_digits(return_X_y=True)
    rows, labels = torch.tensor(pixels / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(digits)
    training, test = (torch.from_numpy(part) for part in held_out(b"digits", len(rows), 0.2))
    built = network("small_cnn")
    settings = Optimiser(rate=0.05, momentum=0.9)
    train(
        built,
        rows[training],
        labels[training],
        epochs=15,
        batch_rows=32,
        optimiser=settings,
        seed=b"batches",
        regression=False,
    )
    result = evaluate(built, rows[test], labels[test], regression=False)
    assert result.correct / result.rows >= 0.98
