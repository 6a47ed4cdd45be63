"""Training on packed weights, layer by layer: steps are not lost in rounding, and nothing else changes (R3.6, R3.7)."""

from collections import OrderedDict
from dataclasses import replace
from functools import partial

import msgspec
import numpy as np
import pytest
import torch
from census import census
from rounds_federation import AGGREGATOR, run, setups, spec
from torch import nn

from vfl.errors import Diverged
from vfl.horizontal.compressed_sync.client import Momenta, train_in_layers, train_whole
from vfl.horizontal.compressed_sync.formats import stored_format
from vfl.horizontal.compressed_sync.layerwise import PackedWeight, Packing
from vfl.horizontal.compressed_sync.momentum import pack, unpack
from vfl.horizontal.hooks import ClientHooks, Examples, Work
from vfl.horizontal.network import network_of
from vfl.horizontal.rows import examples_of
from vfl.horizontal.update_encoding import RAW, like, write
from vfl.models.networks import Parameters, parameters_of
from vfl.reports import RoundDone
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import CompressedSync, RoundsTrain
from vfl.spec.sections import Optimiser

HIDDEN = (64, 48)
SHAPE = (64, 64)
START = torch.from_numpy(np.random.default_rng(5).standard_normal(SHAPE).astype(np.float32))


def packing(optimiser: Optimiser | None = None, *, stochastic: bool = True, keep_optimiser: bool = False) -> Packing:
    return Packing("block", stochastic, optimiser or Optimiser(rate=1.0), keep_optimiser, 0.0, torch.float32)


def weight(how: Packing, bits: int = 4, seed: bytes = b"seed") -> PackedWeight:
    return PackedWeight(START.clone, bits, how, seed)


# -- rounding, as codecs.md has it


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_a_constant_gradient_far_below_a_step_moves_a_weight_by_its_sum_in_expectation(bits):
    step = float(START.abs().max()) / (2 ** (bits - 1) - 1)
    gradient = torch.full(SHAPE, -step / 100)
    held = weight(packing(), bits)
    before = held.value()
    for _ in range(50):
        held.step(gradient)
    assert float((held.value() - before).mean()) == pytest.approx(50 * step / 100, rel=0.1)


@pytest.mark.parametrize("bits", [4, 6])
def test_rounded_to_the_nearest_it_moves_by_nothing(bits):
    step = float(START.abs().max()) / (2 ** (bits - 1) - 1)
    held = weight(packing(stochastic=False), bits)
    before = held.value()
    for _ in range(50):
        held.step(torch.full(SHAPE, -step / 100))
    # The largest value of each block of 64 sets the block's step and moves with it; the others stay on their codes.
    codes = (held.value().reshape(-1, 64) / held.value().reshape(-1, 64).abs().amax(1, keepdim=True)).round(decimals=3)
    codes_before = (before.reshape(-1, 64) / before.reshape(-1, 64).abs().amax(1, keepdim=True)).round(decimals=3)
    assert torch.equal(codes, codes_before)


def test_a_weight_without_gradient_stays_where_it_is_step_after_step():
    held = weight(packing())
    before = held.value()
    for _ in range(20):
        held.step(torch.zeros(SHAPE))
    assert torch.equal(held.value(), before)


def test_a_gradient_that_is_not_finite_ends_training_by_name():
    with pytest.raises(Diverged):
        weight(packing()).step(torch.full(SHAPE, float("nan")))


# -- the same training, layer by layer


def work_of(training: RoundsSpec, epochs: int = 2) -> Work:
    return Work(
        spec=training,
        build=partial(network_of, training, b"start"),
        examples=examples_of(training, setups(training)["c0"].table, "training"),
        round=1,
        epochs=epochs,
        rate=training.train.optimiser.rate,
        seed=bytes(32),
        reply_bits=4,
    )


def task(train: RoundsTrain | None = None, norm: str = "none", epochs: int = 2) -> tuple[Work, Parameters]:
    training = msgspec.structs.replace(
        spec(3, hidden=HIDDEN, norm=norm), train=train or RoundsTrain(batch_rows=16, optimiser=Optimiser(rate=0.1))
    )
    work = work_of(training, epochs)
    return work, parameters_of(work.build())


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize(
    "train",
    [
        RoundsTrain(batch_rows=16, proximal=0.1),
        RoundsTrain(batch_rows=16, optimiser=Optimiser(rate=0.1, momentum=0.9, weight_decay=1e-3)),
        RoundsTrain(batch_rows=16, optimiser=Optimiser(name="adam", rate=0.01)),
    ],
    ids=["proximal", "momentum", "adam"],
)
def test_where_nothing_is_lost_training_in_layers_is_training_bit_for_bit(norm, train):
    work, start = task(train, norm)
    body = write(start)
    one = train_whole(work.build(), body, RAW, work, CompressedSync(codec="none"), {})
    other = train_in_layers(work.build(), body, RAW, work, CompressedSync(codec="none", storage="layers"), {})
    assert other.loss == one.loss
    for name, value in one.values.items():
        assert torch.equal(other.values[name](), value())


def test_a_convolution_is_trained_in_layers_like_any_layer():
    training = spec(3)
    model = msgspec.structs.replace(training.model, network="small_cnn", hidden=(16, 16, 32), input_shape=(1, 8, 8))
    training = msgspec.structs.replace(training, model=model)
    work = work_of(training, epochs=1)
    body = write(parameters_of(work.build()))
    one = train_whole(work.build(), body, RAW, work, CompressedSync(codec="none"), {})
    other = train_in_layers(work.build(), body, RAW, work, CompressedSync(codec="none", storage="layers"), {})
    assert all(torch.equal(other.values[name](), value()) for name, value in one.values.items())


def test_what_was_received_in_blocks_of_64_is_packed_again_without_a_loss():
    work, start = task(epochs=0)
    terms = CompressedSync(storage="layers", stored_bits=3)
    stored = stored_format(terms, like(start))
    assert stored.codec == "block"
    trained = train_in_layers(work.build(), write(start, stored, b"seed"), stored, work, terms, {})
    assert all(not trained.changes[name]().any() for name in ("hidden1.linear.weight", "features.linear.weight"))


def test_a_part_that_looks_at_the_trained_model_gets_all_of_it():
    seen: list[set[str]] = []

    class Zeroing(ClientHooks):
        amends = True

        def amend(self, module: nn.Sequential, received: Parameters) -> None:
            seen.append({name for name, values in module.state_dict().items() if values.shape == received[name].shape})
            with torch.no_grad():
                module.get_parameter("features.linear.weight").zero_()

    work, start = task()
    terms = CompressedSync(storage="layers")
    stored = stored_format(terms, like(start))
    amended = replace(work, parts=(Zeroing(),))
    trained = train_in_layers(work.build(), write(start, stored, b"seed"), stored, amended, terms, {})
    assert seen == [set(start)]
    assert not trained.values["features.linear.weight"]().any()


def test_a_part_that_looks_at_the_received_model_gets_all_of_it_and_may_say_what_is_trained():
    work, start = task()
    seen: list[Parameters] = []

    class Watching(ClientHooks):
        augments = True

        def augment(self, round_number: int, module: nn.Sequential, rows: Examples) -> tuple[nn.Sequential, Examples]:
            seen.append(parameters_of(module))
            watching = nn.Sequential(OrderedDict(module.named_children()))
            return watching, replace(rows, weights=torch.ones(rows.rows))

    body, augmented = write(start), replace(work, parts=(Watching(),))
    one = train_whole(work.build(), body, RAW, augmented, CompressedSync(codec="none"), {})
    other = train_in_layers(work.build(), body, RAW, augmented, CompressedSync(codec="none", storage="layers"), {})
    assert all(torch.equal(values, start[name]) for held in seen for name, values in held.items())
    assert len(seen) == 2
    assert all(torch.equal(other.values[name](), value()) for name, value in one.values.items())


@pytest.mark.parametrize("storage", ["model", "layers"])
def test_bf16_products_come_close_to_those_of_fp32(storage):
    work, start = task()
    body = write(start)
    exact = train_whole(work.build(), body, RAW, work, CompressedSync(codec="none"), {})
    train = train_whole if storage == "model" else train_in_layers
    terms = CompressedSync(codec="none", storage=storage, precision="bf16")
    coarse = train(work.build(), body, RAW, work, terms, {})
    assert 0 < abs(coarse.loss - exact.loss) < 0.01
    for name, value in exact.values.items():
        assert float((coarse.values[name]() - value()).norm()) < 0.05 * float(value().norm()) + 1e-2


# -- momentum that is kept (R3.7)


def keeping(storage: str) -> RoundsSpec:
    training = spec(3, 3, parts=["compressed_sync"], hidden=HIDDEN)
    terms = CompressedSync(storage=storage, keep_optimiser=True)  # type: ignore[arg-type]
    rounds = msgspec.structs.replace(training.rounds, compressed_sync=terms)
    settings = RoundsTrain(batch_rows=32, optimiser=Optimiser(rate=0.05, momentum=0.9))
    return msgspec.structs.replace(training, rounds=rounds, train=settings)


@pytest.mark.parametrize("storage", ["model", "layers"])
def test_momentum_is_kept_between_rounds_at_a_quarter_of_its_size(storage):
    together = run(keeping(storage))
    state = next(fact.state for fact in together.reports["c1"] if isinstance(fact, RoundDone))
    momenta = msgspec.msgpack.decode(msgspec.msgpack.decode(state)["memories"]["compressed_sync"], type=Momenta)
    network = parameters_of(network_of(keeping(storage), bytes(32)))
    assert momenta.keys() == network.keys()
    for name in ("hidden1.linear.weight", "features.linear.weight"):
        assert len(momenta[name]) < 1.04 * network[name].numel() + 4
    assert np.linalg.norm(unpack(momenta["head.bias"], (10,))) > 0


def test_packed_momentum_is_close_to_what_it_was_and_right_in_the_mean():
    start = START.numpy()
    decoded = [unpack(pack(start, bytes([seed])), start.shape) for seed in range(16)]
    one, mean = np.linalg.norm(decoded[0] - start), np.linalg.norm(np.mean(decoded, axis=0) - start)
    assert one < 0.01 * np.linalg.norm(start)
    assert mean < one / 3


def test_between_steps_momentum_in_layers_is_packed_too():
    training = keeping("layers")
    work, terms = work_of(training), training.compressed_sync
    assert terms is not None
    start = parameters_of(work.build())
    stored = stored_format(terms, like(start))
    body = write(start, stored, b"seed")
    del start
    between: list[list[int]] = []
    with census() as alive:
        module = work.build()
        trained = train_in_layers(module, body, stored, work, terms, {}, lambda _step: between.append(alive()))
    assert between == [[]] * 4
    assert {"hidden1.linear.weight", "head.bias"} <= trained.momenta.keys()


def test_kept_momentum_changes_what_the_next_round_does():
    kept, fresh = (
        run(keeping("model")),
        run(
            msgspec.structs.replace(
                keeping("model"),
                rounds=msgspec.structs.replace(keeping("model").rounds, compressed_sync=CompressedSync()),
            )
        ),
    )
    first, second = (together.results[AGGREGATOR].series["loss"] for together in (kept, fresh))
    assert first[0] == second[0]
    assert first[1] != second[1]
