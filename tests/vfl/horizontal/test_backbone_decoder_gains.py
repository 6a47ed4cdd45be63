"""What backbone-decoder gains where a domain has shifted, and what it costs (backbone_decoder.md)."""

import hashlib
import statistics
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from rounds_federation import AGGREGATOR, roles, run, setups, spec
from safetensors.torch import load
from sklearn.datasets import load_digits

from vfl.codecs.parameters import Format, expected_bytes
from vfl.flow import run_together
from vfl.horizontal.backbone_decoder import second_backbone as second
from vfl.horizontal.network import first_model, save_parameters
from vfl.horizontal.update_encoding import like
from vfl.messages import RoundReply, RoundTask
from vfl.models.networks import parameters_of
from vfl.reports import RoundDone
from vfl.setup import Setup, Table
from vfl.spec.rounds import RoundsSpec

TABLES = ("test", "validation", "public", "first")
SIZES = {"first": 560, "validation": 80, "test": 357}
"""Rows of the aggregator; the clients have the other 800."""


def job(terms: str, *, cut: str = "features", extra: str = "", **more: Any) -> RoundsSpec:
    parts = ["backbone_decoder", *more.pop("others", [])]
    table = f'{extra}\n[rounds.backbone_decoder]\ncut = "{cut}"\n{terms}\n'
    return spec(parts=parts, extra=table, tables=TABLES, **more)


def turned_digits(this: RoundsSpec, seed: int) -> dict[str, Setup[RoundsSpec]]:
    """The first model knows digits upright; the clients have them turned by 90 degrees, and so do public rows."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    upright, labels = digits.data[order], digits.target[order].astype(float)
    turned = np.rot90(upright.reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64)
    given, start = setups(this), 0
    own = {}
    for use, rows in SIZES.items():
        part = slice(start, start := start + rows)
        own[use] = Table(bytes(32), (upright if use == "first" else turned)[part], labels[part])
        if use == "first":
            own["public"] = Table(bytes(32), turned[part])
    dealt = np.array_split(np.arange(start, len(labels)), len(this.roster.clients))
    joint = hashlib.sha256(b"%d" % seed).digest()
    parts = dict(zip(this.roster.clients, dealt, strict=True))
    tables = {name: {"rows": Table(bytes(32), turned[at], labels[at])} for name, at in parts.items()} | {
        AGGREGATOR: own
    }
    dealt_to = {party: replace(setup, tables=tables[party], joint_seed=joint) for party, setup in given.items()}
    trained = save_parameters(parameters_of(first_model(dealt_to[AGGREGATOR])))
    del own["first"]
    return dealt_to | {AGGREGATOR: replace(dealt_to[AGGREGATOR], tables=own, model=trained)}


def test_three_seeds_keep_nine_tenths_of_the_gain_of_decoder_averaging_with_an_eighth_of_the_backbone():
    kept: dict[str, list[float]] = {"student": [], "low_rank": []}
    settings = {"identity": "", "student": "student_hidden = [48]", "low_rank": "rank = 22\ntranslator = false"}
    for seed in range(3):
        found, given = {}, turned_digits(job("", clients=5, hidden=(512, 512)), seed)
        for derive, terms in settings.items():
            aligned = f'derive = "{derive}"\nalign_epochs = 60\nalign_rate = 0.003\n{terms}'
            this = job(aligned, clients=5, rounds=6, hidden=(512, 512))
            parties = {party: replace(setup, spec=this) for party, setup in given.items()}
            found[derive] = run_together(roles(parties)).results[AGGREGATOR].metrics
        bound = found["identity"]["second_model_after"] - found["identity"]["first_model_before"]
        assert bound > 0.5
        for derive, shares in kept.items():
            metrics = found[derive]
            assert metrics["second_backbone_parameters"] <= metrics["first_backbone_parameters"] / 8
            shares.append(metrics["first_model_gain"] / bound)
    assert all(statistics.fmean(shares) >= 0.9 for shares in kept.values()), kept


# Beside compressed-sync

COMPRESSED: dict[str, Any] = {"others": ["compressed_sync"], "hidden": (96, 120)}


def messages(together, kind: type) -> list[Any]:
    return [line.message for line in together.transcript if isinstance(line.message, kind)]


@pytest.mark.parametrize("bits", [3, 8])
def test_a_backbone_travels_at_its_own_bits_and_a_decoder_at_the_parts(bits):
    terms = 'derive = "identity"\ncarry_back = "copy"'
    this = job(terms, extra=f"[rounds.compressed_sync]\nbackbone_bits = {bits}\nreply_bits = 2", **COMPRESSED)
    together = run(this)
    bodies = {task.backbone for task in messages(together, RoundTask) if task.backbone}
    expected = like(parameters_of(second.blank_backbone(this)))
    assert {len(body) for body in bodies} == {1 + expected_bytes(expected, Format("rotation", bits, unbiased=False))}
    assert (
        bits / 32 < len(bodies.pop()) / expected_bytes(expected, Format("none", 32, unbiased=False)) < bits / 32 + 0.04
    )
    assert max(len(reply.parameters) for reply in messages(together, RoundReply)) < 4 * 1210 / 8
    held = [together.results[name].state for name in this.roster.clients]
    assert len(set(held)) == 1
    assert {"hidden1.linear.weight", "features.linear.weight", "head.weight"} <= load(held[0]).keys()


def test_a_codec_that_loses_nothing_is_the_absence_of_compressed_sync():
    terms = 'derive = "student"\nstudent_hidden = [24]\nalign_epochs = 2'
    neutral = run(job(terms, extra='[rounds.compressed_sync]\ncodec = "none"', **COMPRESSED))
    absent = run(job(terms, hidden=COMPRESSED["hidden"]))
    assert neutral.results[AGGREGATOR].state == absent.results[AGGREGATOR].state
    assert all(neutral.results[name].state == absent.results[name].state for name in ("c0", "c1", "c2"))
    backbones = [{task.backbone for task in messages(one, RoundTask)} for one in (neutral, absent)]
    assert backbones[0] == backbones[1]


@pytest.mark.parametrize("derive", ["prune", "quantise", "low_rank", "layers"])
def test_every_derivation_goes_on_from_a_saved_state_beside_compressed_sync(derive):
    terms = f'derive = "{derive}"\nrank = 8\nalign_epochs = 2\ndebias = true'
    this = job(terms, rounds=3, others=["compressed_sync"], hidden=(96, 64, 64), norm="batch")
    whole = run(this)
    states = (fact.state for fact in whole.reports[AGGREGATOR] if isinstance(fact, RoundDone))
    continued = run(this, saved=next(states))
    assert continued.results[AGGREGATOR].state == whole.results[AGGREGATOR].state
    assert continued.results[AGGREGATOR].metrics == whole.results[AGGREGATOR].metrics
    kept = load(whole.results[AGGREGATOR].state)
    assert all(bool(torch.isfinite(values).all()) for values in kept.values())


# Beside secure sums, and measured on the clients' rows

DECODER_ONLY = 'derive = "quantise"\ncarry_back = "copy"'


def test_beside_secure_sums_a_backbone_is_sent_once_to_whoever_trained_with_it():
    secure, plain = job(DECODER_ONLY, extra="secure_sum = true", clients=4), job(DECODER_ONLY, clients=4)
    together, open_to_all = run(secure), run(plain)
    assert [bool(task.backbone) for task in messages(together, RoundTask)] == [True] * 4 + [False] * 4
    assert not messages(together, RoundReply)
    kept, expected = (load(one.results[AGGREGATOR].state) for one in (together, open_to_all))
    assert torch.allclose(kept["head.weight"], expected["head.weight"], atol=0.01)


def test_without_test_rows_clients_measure_the_decoder_behind_their_backbone():
    central, given = job(DECODER_ONLY, clients=4), setups(job(DECODER_ONLY, clients=4))
    test = given[AGGREGATOR].tables["test"]
    assert test.labels is not None
    names = central.roster.clients
    data = {AGGREGATOR: msgspec.structs.replace(central.data[AGGREGATOR], test="")}
    data |= {name: msgspec.structs.replace(central.data[name], test="held-out") for name in names}
    spread = msgspec.structs.replace(central, data=data)
    for at, name in enumerate(names):
        part = slice(50 * at, 50 * at + 50)
        tables = {**given[name].tables, "test": Table(bytes(32), test.columns[part], test.labels[part])}
        given[name] = replace(given[name], spec=spread, tables=tables)
    own = {use: table for use, table in given[AGGREGATOR].tables.items() if use != "test"}
    given[AGGREGATOR] = replace(given[AGGREGATOR], spec=spread, tables=own)
    together, expected = run_together(roles(given)).results[AGGREGATOR], run(central).results[AGGREGATOR]
    assert together.series["accuracy"] == pytest.approx(expected.series["accuracy"])
    assert together.state == expected.state
    assert "first_model_after" not in together.metrics
    assert "the first model has the decoder that was carried back by copy" in [
        notice.text for notice in together.notices
    ]


def test_beside_model_inversion_the_decoder_is_carried_back_by_every_rule():
    terms = 'derive = "student"\nstudent_hidden = [24]\nalign_epochs = 2\ncarry_each_round = true'
    inversion = '[rounds.model_inversion]\nspace = "features"\nwarm_up = 1\nsteps = 5\nserver_steps = 5'
    outcome = run(job(terms, others=["model_inversion"], extra=inversion, hidden=(48, 24))).results[AGGREGATOR]
    assert {f"first_model_after_{rule}" for rule in ("copy", "delta", "distil")} <= outcome.metrics.keys()
    assert outcome.series["first_model_accuracy"][-1] == outcome.metrics["first_model_after"]
    assert load(outcome.state)["head.weight"].shape == (10, 24)
