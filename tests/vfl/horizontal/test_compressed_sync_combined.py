"""Compression together with other parts: codes of a decoder every round, of a backbone once (rounds.md)."""

import math

import pytest
import torch
from rounds_federation import AGGREGATOR, run, spec
from safetensors.torch import load

from vfl.flow import Together
from vfl.messages import Published, RoundReply, RoundTask
from vfl.models.networks import norm_statistics_names
from vfl.reports import Outcome, RoundDone
from vfl.spec.rounds import RoundsSpec

BACKBONE = """
[rounds.backbone_decoder]
cut = "hidden1"
derive = "student"
student_hidden = [32]
align_epochs = 5
distil_epochs = 2
"""
COMPRESSED = """
[rounds.compressed_sync]
stored_bits = 4
reply_bits = 4
"""
SHARED = """
[rounds.shared_data]
rule = "feddu"
"""
HIDDEN = (96, 64, 48)
PARTS = {"compressed_sync": COMPRESSED, "shared_data": SHARED, "backbone_decoder": BACKBONE}


def job(*parts: str, rounds: int = 3, extra: str = "", norm: str = "none") -> RoundsSpec:
    return spec(
        6,
        rounds,
        parts=parts,
        per_round=3,
        hidden=HIDDEN,
        norm=norm,
        tables=("test", "validation", "public", *(["shared"] if "shared_data" in parts else [])),
        extra=extra + "".join(PARTS[part] for part in parts),
    )


@pytest.fixture(scope="module")
def together():
    return run(job("compressed_sync", "backbone_decoder"))


@pytest.fixture(scope="module")
def uncompressed():
    return run(job("backbone_decoder"))


def tasks(together: Together[Outcome]) -> list[tuple[str, RoundTask]]:
    return [(sent.receiver, sent.message) for sent in together.transcript if isinstance(sent.message, RoundTask)]


def test_a_backbone_travels_once_to_each_client_at_eight_bits_and_decoders_at_four(together, uncompressed):
    seen: set[str] = set()
    for client, task in tasks(together):
        assert bool(task.backbone) == (client not in seen)
        seen.add(client)
    small, large = (next(task.backbone for _, task in tasks(one) if task.backbone) for one in (together, uncompressed))
    weights = 64 * 32 + 32 * 96  # of the student, and of the translator behind it
    assert len(large) - len(small) == pytest.approx(3 * weights, rel=0.05)
    decoders = {len(task.parameters) for _, task in tasks(together)}
    replies = {len(s.message.parameters) for s in together.transcript if isinstance(s.message, RoundReply)}
    codes = 96 * 64 + 64 * 48
    (plain,) = {len(task.parameters) for _, task in tasks(uncompressed)}
    assert decoders == replies
    assert plain - decoders.pop() == pytest.approx(3.5 * codes, rel=0.02)


def test_the_bytes_of_all_parts_are_in_the_report(together):
    outcome = together.results[AGGREGATOR]
    for series, kind in (("bytes_sent", "RoundTask"), ("bytes_received", "RoundReply")):
        assert sum(outcome.series[series]) == sum(s.payload_bytes for s in together.transcript if s.kind == kind)
    assert outcome.metrics["parameter_bytes_stored"] < 0.25 * outcome.metrics["parameter_bytes_at_full_precision"]
    assert outcome.metrics["second_backbone_bytes"] < 0.5 * outcome.metrics["first_backbone_bytes"]


def test_the_first_model_is_carried_back_and_clients_keep_the_second(together):
    first = load(together.results[AGGREGATOR].state)
    assert first["hidden1.linear.weight"].shape == (96, 64)
    kept = load(together.results["c0"].state)
    assert kept["hidden1.linear.weight"].shape == (32, 64)
    published = {sent.message.parameters for sent in together.transcript if isinstance(sent.message, Published)}
    assert len(published) == 1
    assert {"first_model_after", "second_model_after", "stored_accuracy"} <= together.results[AGGREGATOR].metrics.keys()


def test_continued_from_saved_state_it_ends_as_if_it_had_not_stopped(together):
    states = [fact.state for fact in together.reports[AGGREGATOR] if isinstance(fact, RoundDone)]
    continued = run(job("compressed_sync", "backbone_decoder"), saved=states[0])
    last = [fact.state for fact in continued.reports[AGGREGATOR] if isinstance(fact, RoundDone)][-1]
    one, other = load(last), load(states[-1])
    assert one.keys() == other.keys()
    # But for the counts of bytes: clients that are new here were sent the backbone again.
    assert all(torch.equal(values, other[name]) for name, values in one.items() if not name.endswith("numbers"))
    assert continued.results[AGGREGATOR].state == together.results[AGGREGATOR].state


def test_three_parts_run_in_one_job():
    together = run(job("compressed_sync", "shared_data", "backbone_decoder"))
    outcome = together.results[AGGREGATOR]
    assert len(outcome.series["accuracy"]) == 3
    assert len(outcome.series["stored_error"]) == 3
    assert math.isfinite(outcome.metrics["first_model_after"])
    assert max(len(task.parameters) for _, task in tasks(together)) == outcome.metrics["parameter_bytes_stored"]


def test_a_codec_that_loses_nothing_changes_nothing_beside_another_part(uncompressed):
    text = COMPRESSED.replace("stored_bits = 4\nreply_bits = 4", 'codec = "none"')
    beside = run(
        spec(
            6,
            3,
            parts=("compressed_sync", "backbone_decoder"),
            per_round=3,
            hidden=HIDDEN,
            tables=("test", "validation", "public"),
            extra=text + BACKBONE,
        )
    )
    assert beside.results[AGGREGATOR].series["accuracy"] == uncompressed.results[AGGREGATOR].series["accuracy"]
    one, other = load(beside.results[AGGREGATOR].state), load(uncompressed.results[AGGREGATOR].state)
    assert all(torch.equal(values, other[name]) for name, values in one.items())


def test_means_and_variances_of_norms_travel_whole_and_are_pooled():
    extra = COMPRESSED.replace("[rounds.compressed_sync]", '[rounds.compressed_sync]\nprecision = "bf16"')
    together = run(spec(3, 2, parts=("compressed_sync",), hidden=HIDDEN, norm="batch", extra=extra))
    final = load(together.results[AGGREGATOR].state)
    pooled = norm_statistics_names(final)
    assert len(pooled) == 3
    assert all(bool((final[one.variance] > 0).all()) for one in pooled)
    assert int(final["hidden1.norm.num_batches_tracked"]) > 0
