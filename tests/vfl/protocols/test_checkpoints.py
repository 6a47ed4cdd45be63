"""A training that goes on from a checkpoint ends as if it had never stopped."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from crypto.ckks_parameters import PRESETS
from vfl.flow import run_together
from vfl.kinds import flow_of
from vfl.models.tensors import load_state, load_tensors, save_state
from vfl.reports import CheckpointReached
from vfl.setup import Setup
from vfl.spec.split import Split
from vfl.spec.training import StopEarly

EMBEDDINGS = 'layout = "embeddings", bottom = { kind = "mlp", hidden = [4], out = 3 }'
NETWORK = 'layout = "features", top = { kind = "mlp", hidden = [3] }'
CLEAR = {
    "a linear model": {},
    "a network with Adam": {"model": NETWORK, "optimiser_name": "adam", "optimiser_momentum": 0.0},
    "a bottom model under noise": {"model": EMBEDDINGS, "cut_noise": 'method = "isotropic", scale = 0.5'},
    "two feature parties": {"feature_parties": 2},
}


def run(setups: dict[str, Setup[Any]]):
    return run_together({party: flow_of(setup) for party, setup in setups.items()})


def checkpoints(together, party: str) -> dict[int, bytes]:
    return {each.step: each.state for each in together.reports[party] if isinstance(each, CheckpointReached)}


def going_on(setups: dict[str, Setup[Any]], together, step: int) -> dict[str, Setup[Any]]:
    """The same parties after that step, with nothing but their checkpoints."""
    return {party: replace(setup, saved=checkpoints(together, party)[step]) for party, setup in setups.items()}


def outcomes(together) -> dict[str, bytes]:
    return {party: msgspec.msgpack.encode(outcome) for party, outcome in together.results.items()}


@pytest.mark.parametrize("options", CLEAR.values(), ids=CLEAR.keys())
def test_in_clear_a_training_ends_bit_by_bit_alike_from_whichever_checkpoint_it_goes_on(
    make_setups, breast_cancer, options
):
    setups = make_setups(breast_cancer, encryption_scheme="none", train_epochs=4, train_checkpoint_steps=5, **options)
    whole = run(setups)
    steps = list(checkpoints(whole, "bank"))
    assert steps == list(checkpoints(whole, "telco-0")) == [5, 10, 15, 16]
    for step in steps:
        assert outcomes(run(going_on(setups, whole, step))) == outcomes(whole), step


def test_a_training_that_ended_early_stays_ended_and_keeps_its_best_weights(make_setups, breast_cancer):
    setups = make_setups(
        breast_cancer, encryption_scheme="none", train_epochs=30, train_checkpoint_steps=1, optimiser_rate=3.0
    )
    spec = setups["bank"].spec
    train = msgspec.structs.replace(spec.train, stop_early=StopEarly(patience=2))
    spec = msgspec.structs.replace(spec, train=train, split=Split(validation=0.2))
    setups = {party: replace(setup, spec=spec) for party, setup in setups.items()}
    whole = run(setups)
    steps = list(checkpoints(whole, "bank"))
    assert steps[-1] < 90
    for step in (steps[0], steps[-2], steps[-1]):
        assert outcomes(run(going_on(setups, whole, step))) == outcomes(whole), step


@pytest.mark.parametrize("options", [{}, {"model": NETWORK}, {"model": EMBEDDINGS, "cut_noise": 'method = "none"'}])
def test_under_encryption_the_weights_are_the_same_but_for_the_noise_and_no_key_or_mask_comes_again(
    make_setups, breast_cancer, monkeypatch, options
):
    """Without noise on the replies, which exists under tests/ only, to see what else differs."""
    setups = make_setups(breast_cancer, train_checkpoint_steps=1, train_batch_rows=256, **options)
    preset = setups["bank"].spec.ckks.preset
    monkeypatch.setitem(PRESETS, preset, replace(PRESETS[preset], noise=0.0, output_noise=0.0))
    whole = run(setups)
    again = run(going_on(setups, whole, 2))
    for party in ("bank", "telco-0"):
        trained, gone_on = (load_tensors(each.results[party].state) for each in (whole, again))
        for name, tensor in trained.items():
            if tensor.dtype == np.float64 and tensor.size:
                assert np.abs(gone_on[name] - tensor).max() <= 1e-3 * np.abs(tensor).max(), name
        assert again.results[party].operations.keys() == whole.results[party].operations.keys()
    for kind, field in (("PublicKeys", "public"), ("EncryptedEmbedding", "columns"), ("MaskedGradient", "masked")):
        sent = [
            getattr(line.message, field) for each in (whole, again) for line in each.transcript if line.kind == kind
        ]
        assert len({repr(value) for value in sent}) == len(sent) > 1


def test_noise_comes_again_for_the_same_embedding_and_is_other_noise_for_another(make_setups, breast_cancer):
    own = make_setups(breast_cancer)["bank"].own_stream
    first = own("cut noise 3", b"embedding")
    assert first(16) == own("cut noise 3", b"embedding")(16)
    assert len({first(16), first(16), own("cut noise 4", b"embedding")(16), own("cut noise 3", b"other")(16)}) == 4


def test_a_training_that_names_no_interval_has_about_fifty_checkpoints(make_setups, breast_cancer):
    train = make_setups(breast_cancer)["bank"].spec.train
    assert [train.checkpoint_interval(steps) for steps in (1, 50, 51, 5000)] == [1, 1, 2, 100]
    assert [step for step in range(1, 104) if train.has_checkpoint(step, 103)][-2:] == [102, 103]


def test_a_checkpoint_keeps_every_bit():
    state: dict[str, Any] = {
        "a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3), 3: [float("inf"), None, True]},
        "n": np.float64(2),
    }
    read = load_state(save_state(state))
    assert read["a"]["b"].dtype == np.float32
    assert np.array_equal(read["a"]["b"], state["a"]["b"])
    assert (read["a"][3], read["n"]) == (state["a"][3], 2.0)
