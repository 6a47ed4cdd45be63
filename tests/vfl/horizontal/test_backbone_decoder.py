"""Backbone-decoder in a federation: what travels to whom, and what comes back (backbone_decoder.md)."""

import hashlib
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from rounds_federation import AGGREGATOR, roles, run, setups, spec
from safetensors.torch import load

from vfl.errors import RemoteProtocolError
from vfl.flow import Delivery, Flow, Receive, Send, run_together
from vfl.horizontal.backbone_decoder.second_backbone import rebuild
from vfl.horizontal.mean import WeightedMean
from vfl.horizontal.network import first_model
from vfl.horizontal.rows import derived, examples_of
from vfl.messages import ClientReady, Published, RoundReply, RoundTask
from vfl.models.local_training import evaluate, features, train
from vfl.models.networks import load_parameters, norm_statistics_names, parameters_of
from vfl.models.split import cut
from vfl.protocols.rounds import client
from vfl.reports import Outcome, RoundDone
from vfl.setup import Setup, Table
from vfl.spec.rounds import RoundsSpec

ALL_TABLES = ("test", "validation", "public", "first")


def job(clients: int = 3, rounds: int = 3, *, terms: str = 'derive = "student"', cut: str = "features", **more: Any):
    more = {"parts": ["backbone_decoder"], "tables": ALL_TABLES, "hidden": (48, 24)} | more
    table = f'[rounds.backbone_decoder]\ncut = "{cut}"\nstudent_hidden = [16]\nalign_epochs = 5\n{terms}\n'
    return spec(clients, rounds, **more | {"extra": more.get("extra", "") + "\n" + table})


def tasks_to(together, name: str) -> list[RoundTask]:
    return [
        line.message for line in together.transcript if line.receiver == name and isinstance(line.message, RoundTask)
    ]


def backbone_of(together) -> bytes:
    found: list[bytes] = [getattr(line.message, "backbone", b"") for line in together.transcript]
    return next(body for body in found if body)


def windows(blob: bytes, width: int = 64) -> set[bytes]:
    return {blob[start : start + width] for start in range(len(blob) - width + 1)}


# What travels


def test_a_client_is_sent_the_backbone_in_its_first_round_and_never_again():
    together = run(job(rounds=4))
    forbidden = windows(backbone_of(together))
    for name in ("c0", "c1", "c2"):
        first, *later = tasks_to(together, name)
        assert first.backbone == backbone_of(together)
        assert hashlib.sha256(first.backbone).digest() == first.backbone_digest
        assert {task.backbone_digest for task in later} == {first.backbone_digest}
        after = [line.message for line in together.transcript if name in {line.sender, line.receiver}]
        after = after[after.index(first) + 1 :]
        assert len(after) == 3 + 3 + 2  # replies, tasks, the last reply and the published decoder
        for message in after:
            for value in (getattr(message, "parameters", b""), getattr(message, "backbone", b"")):
                assert forbidden.isdisjoint(windows(value))


def test_a_later_round_carries_the_decoder_and_a_header_of_fixed_size():
    one, other = run(job(rounds=3)), run(job(rounds=3, hidden=(96, 24), terms='derive = "identity"'))
    for together in (one, other):
        sizes = {
            line.payload_bytes - len(line.message.parameters)
            for line in together.transcript
            if isinstance(line.message, RoundTask) and not line.message.backbone
        }
        assert len(sizes) == 1
        assert sizes.pop() < 200
        assert len({len(task.parameters) for task in tasks_to(together, "c0")}) == 1


def test_rounds_in_which_all_hold_the_backbone_carry_a_twentieth_of_whole_model_averaging():
    wide: dict[str, Any] = {"hidden": (256, 128), "tables": ("test", "public"), "rounds": 2}
    ours, whole = run(job(**wide)), run(spec(**wide))
    for direction in ("bytes_sent", "bytes_received"):
        assert ours.results[AGGREGATOR].series[direction][1] <= 0.05 * whole.results[AGGREGATOR].series[direction][1]


def test_a_reply_never_holds_a_backbone_and_names_its_digest():
    together = run(job())
    digest = hashlib.sha256(backbone_of(together)).digest()
    replies = [line.message for line in together.transcript if isinstance(line.message, RoundReply)]
    assert {reply.backbone_digest for reply in replies} == {digest}
    assert len({len(reply.parameters) for reply in replies}) == 1


def test_a_client_that_was_never_chosen_gets_the_backbone_with_the_published_decoder():
    together = run(job(clients=4, rounds=1, per_round=1))
    given = {line.receiver: m.backbone for line in together.transcript if isinstance(m := line.message, Published)}
    chosen = {line.receiver for line in together.transcript if isinstance(line.message, RoundTask)}
    assert {name for name, backbone in given.items() if backbone} == set(given) - chosen
    assert len({together.results[name].state for name in given}) == 1


def test_what_a_client_keeps_is_the_second_model_it_trained():
    together, given = run(job()), setups(job())
    state = load(together.results["c1"].state)
    backbone = rebuild(job(), backbone_of(together))
    assert all(torch.equal(state[name], values) for name, values in parameters_of(backbone).items())
    decoder = cut(first_model(given[AGGREGATOR]), "features").decoder
    load_parameters(decoder, {name: state[name] for name in parameters_of(decoder)})
    tests = examples_of(job(), given[AGGREGATOR].tables["test"], "test")
    assert tests.labels is not None
    found = evaluate(decoder, features(backbone, tests.inputs), tests.labels, regression=False)
    assert together.results[AGGREGATOR].metrics["second_model_after"] == found.correct / found.rows


def replies(together) -> list[float]:
    return [fact.measures["replies"] for fact in together.reports[AGGREGATOR] if isinstance(fact, RoundDone)]


# Clients that come late, leave, or lose what they held


def late_by(setup: Setup[RoundsSpec], seconds: float) -> Flow[Outcome]:
    yield Receive(AGGREGATOR, seconds)
    return (yield from client(setup))


def back_after(setup: Setup[RoundsSpec], tasks: int, seconds: float) -> Flow[Outcome]:
    """Vanishes with its last of so many tasks unanswered, and comes back later as a fresh process."""
    role, answer = client(setup), None
    while tasks:
        effect = role.send(answer)
        answer = yield effect
        tasks -= isinstance(effect, Receive) and isinstance(getattr(answer, "message", None), RoundTask)
    yield Receive(AGGREGATOR, seconds)
    return (yield from client(setup))


def forgetful(setup: Setup[RoundsSpec], after: int) -> Flow[Outcome]:
    """Loses what it held after so many replies without having left."""
    role, answer, replies = client(setup), None, 0
    try:
        while True:
            effect = role.send(answer)
            answer = yield effect
            replies += isinstance(effect, Send) and isinstance(effect.message, RoundReply)
            if replies == after:
                replies, role, answer = after + 1, client(setup), Delivery(None)
                assert isinstance(next(role), Send)  # its greeting stays unsaid
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome


def rounds_with_backbone(together, name: str) -> list[int]:
    return [task.round for task in tasks_to(together, name) if task.backbone]


def test_only_a_late_joiner_and_a_client_that_comes_back_empty_are_sent_the_backbone_after_the_first_round():
    flows, given = roles(setups(job(rounds=5, extra="quorum = 0.3"))), setups(job(rounds=5, extra="quorum = 0.3"))
    flows["c0"] = late_by(given["c0"], 601)
    flows["c1"] = back_after(given["c1"], 1, 2)
    together = run_together(flows)
    assert replies(together) == [1, 3, 3, 3, 3]
    assert rounds_with_backbone(together, "c2") == [1]
    assert rounds_with_backbone(together, "c0") == [2]
    assert rounds_with_backbone(together, "c1") == [1, 2]
    assert all(together.results[name].state == together.results["c2"].state for name in ("c0", "c1"))


def test_a_client_that_lost_its_backbone_says_so_and_is_sent_it_next_time():
    flows, given = roles(setups(job(rounds=4))), setups(job(rounds=4))
    flows["c1"] = forgetful(given["c1"], 2)
    together = run_together(flows)
    assert rounds_with_backbone(together, "c1") == [1, 4]
    assert replies(together) == [3, 3, 2, 3]
    empty = [m for line in together.transcript if isinstance(m := line.message, RoundReply) and not m.rows]
    assert [(reply.round, reply.parameters, reply.backbone_digest) for reply in empty] == [(3, b"", b"")]
    assert together.results["c1"].state == together.results["c0"].state


@pytest.mark.parametrize("what", ["backbone", "backbone_digest"])
def test_a_backbone_other_than_its_name_or_its_terms_is_refused(what):
    honest = tasks_to(run(job(rounds=1)), "c0")[0]
    body = honest.backbone[:-1]
    bad = replace_fields(honest, backbone=body)
    if what == "backbone":
        bad = replace_fields(bad, backbone_digest=hashlib.sha256(body).digest())
    role = client(setups(job(rounds=1))["c0"])
    assert isinstance(next(role), Send)
    assert isinstance(role.send(None), Receive)
    with pytest.raises(
        RemoteProtocolError, match="cannot be read" if what == "backbone" else "does not have the digest"
    ):
        role.send(Delivery(bad))


def replace_fields(task: RoundTask, **values: bytes) -> RoundTask:
    fields = {name: getattr(task, name) for name in task.__struct_fields__}
    return RoundTask(**fields | values)


def test_a_client_says_what_it_holds_when_it_greets():
    greetings = [line.message for line in run(job()).transcript if isinstance(line.message, ClientReady)]
    assert {greeting.backbone_digest for greeting in greetings} == {b""}


# What it equals


@pytest.mark.parametrize(("cut_at", "norm"), [("features", "none"), ("hidden1", "none"), ("hidden1", "batch")])
def test_identity_and_copy_are_decoder_only_averaging_bit_for_bit(cut_at, norm):
    this = job(terms='derive = "identity"\ncarry_back = "copy"', cut=cut_at, norm=norm, tables=("test", "first"))
    given = setups(this)
    whole = first_model(given[AGGREGATOR])
    backbone, decoder = cut(whole, cut_at).backbone, cut(whole, cut_at).decoder
    weights = parameters_of(decoder)
    for number in (1, 2, 3):
        mean = WeightedMean(norm_statistics_names(weights))
        for name in this.roster.clients:
            rows = examples_of(this, given[name].table, "training")
            assert rows.labels is not None
            load_parameters(decoder, weights)
            train(
                decoder,
                features(backbone, rows.inputs),
                rows.labels,
                epochs=1,
                batch_rows=32,
                optimiser=this.train.optimiser,
                seed=derived(given[name].private_seed, name, number),
                regression=False,
            )
            mean.add(parameters_of(decoder), rows.rows)
        weights = mean.mean()
    kept = load(run(this).results[AGGREGATOR].state)
    expected = parameters_of(backbone) | weights
    assert kept.keys() == expected.keys()
    assert all(torch.equal(kept[name], values) for name, values in expected.items())


@pytest.mark.parametrize("derive", ["student", "prune"])
def test_a_run_continued_from_a_saved_state_equals_the_uninterrupted_one(derive):
    this = job(
        rounds=4, per_round=2, terms=f'derive = "{derive}"\ncarry_each_round = true', norm="batch", cut="hidden1"
    )
    whole = run(this)
    states = (fact.state for fact in whole.reports[AGGREGATOR] if isinstance(fact, RoundDone))
    continued = run(this, saved=next(itertools.islice(states, 1, None)))
    # the clients are fresh and hold nothing: they are sent the backbone again, all else is the same
    assert continued.results[AGGREGATOR].state == whole.results[AGGREGATOR].state
    assert continued.results[AGGREGATOR].metrics == whole.results[AGGREGATOR].metrics
    assert continued.results[AGGREGATOR].series["accuracy"] == whole.results[AGGREGATOR].series["accuracy"]
    assert continued.results["c0"].state == whole.results["c0"].state


# Carrying back


def metrics_of(this: RoundsSpec) -> dict[str, float]:
    return run(this).results[AGGREGATOR].metrics


def test_the_report_has_the_three_models_their_gains_and_the_emulator_gap():
    outcome = run(job()).results[AGGREGATOR]
    found = outcome.metrics
    assert found["first_model_gain"] == found["first_model_after"] - found["first_model_before"]
    assert found["second_model_gain"] == found["second_model_after"] - found["second_model_before"]
    assert found["emulator_gap"] == found["first_model_before"] - found["second_model_before"]
    assert found["second_model_after"] == found["accuracy"] == outcome.series["accuracy"][-1]
    assert {f"first_model_after_{rule}" for rule in ("copy", "delta", "distil")} <= found.keys()
    assert found["second_backbone_parameters"] == 64 * 16 + 16 + 16 * 24 + 24
    assert found["second_backbone_multiply_adds"] == 64 * 16 + 16 * 24
    assert found["first_backbone_multiply_adds"] == 64 * 48 + 48 * 24
    assert 0 < found["second_backbone_alignment_error"] < 0.3
    second, decoder = found["second_backbone_parameters"], found["decoder_parameters"]
    assert decoder == 24 * 10 + 10
    assert found["client_bytes"] == 4 * (second + 2 * decoder)
    assert found["whole_model_bytes"] == 8 * (found["first_backbone_parameters"] + decoder)
    assert found["second_backbone_bytes"] == len(backbone_of(run(job())))
    assert any("second backbone by student: 1,448 of 4,296 parameters" in notice.text for notice in outcome.notices)
    assert any("on test rows the first model had" in notice.text for notice in outcome.notices)


def test_the_model_that_is_kept_is_the_first_one_with_another_decoder():
    this = job()
    kept, first = load(run(this).results[AGGREGATOR].state), parameters_of(first_model(setups(this)[AGGREGATOR]))
    assert kept.keys() == first.keys()
    assert all(torch.equal(kept[name], first[name]) == (not name.startswith("head")) for name in first)


def with_public(this: RoundsSpec, columns) -> dict[str, Setup[RoundsSpec]]:
    given = setups(this)
    given[AGGREGATOR] = replace(
        given[AGGREGATOR], tables={**given[AGGREGATOR].tables, "public": Table(bytes(32), columns)}
    )
    return given


def test_public_rows_of_the_wrong_domain_make_best_keep_the_old_decoder_and_say_so():
    this = job(terms='derive = "student"', hidden=(48, 24), tables=ALL_TABLES)
    noise = np.random.default_rng(0).choice([0.0, 16.0], size=(200, 64), p=[0.98, 0.02])
    outcome = run_together(roles(with_public(this, noise))).results[AGGREGATOR]
    first = parameters_of(first_model(setups(this)[AGGREGATOR]))
    assert all(torch.equal(values, first[name]) for name, values in load(outcome.state).items())
    assert outcome.metrics["first_model_gain"] == 0
    assert any("no decoder beats the old one on the validation rows" in notice.text for notice in outcome.notices)


def test_best_keeps_what_does_best_on_the_validation_rows_not_on_the_test_rows():
    this = job()
    kept = load(run(this).results[AGGREGATOR].state)
    for rule in ("copy", "delta", "distil"):
        other = load(run(job(terms=f'derive = "student"\ncarry_back = "{rule}"')).results[AGGREGATOR].state)
        validation = examples_of(this, setups(this)[AGGREGATOR].tables["validation"], "validation")
        assert correct(this, kept, validation) >= correct(this, other, validation)


def correct(this: RoundsSpec, state, rows) -> float:
    module = first_model(setups(this)[AGGREGATOR])
    load_parameters(module, state)
    return evaluate(module, rows.inputs, rows.labels, regression=False).correct


def test_without_validation_rows_best_distils_and_without_public_ones_it_copies():
    tables = ("test", "public", "first")
    assert "first_model_after_distil" in metrics_of(job(tables=tables))
    assert "first_model_after_copy" not in metrics_of(job(tables=tables))
    found = metrics_of(job(terms='derive = "quantise"', tables=("test", "first")))
    assert found["first_model_after"] == found["first_model_after_copy"]
    assert "second_backbone_alignment_error" not in found


def test_delta_moves_the_first_decoder_by_a_share_of_what_the_second_learnt():
    start = parameters_of(first_model(setups(job())[AGGREGATOR]))
    copy, half = (
        load(run(job(terms=f'derive = "quantise"\ncarry_back = {rule}')).results[AGGREGATOR].state)
        for rule in ('"copy"', '"delta"\ndelta_scale = 0.5')
    )
    middle = (start["head.weight"] + copy["head.weight"]) / 2
    assert torch.allclose(half["head.weight"], middle, atol=1e-6)


def test_the_first_model_can_be_measured_after_every_round():
    outcome = run(job(terms='derive = "student"\ncarry_each_round = true')).results[AGGREGATOR]
    assert len(outcome.series["first_model_accuracy"]) == 3
    assert outcome.series["first_model_accuracy"][-1] == outcome.metrics["first_model_after"]


def test_a_student_without_translator_trains_a_decoder_of_its_own_width_and_is_distilled_back():
    narrow = job(terms='derive = "student"\ntranslator = false\ncarry_back = "distil"')
    together = run(narrow)
    assert load(together.results["c0"].state)["head.weight"].shape == (10, 16)
    assert load(together.results[AGGREGATOR].state)["head.weight"].shape == (10, 24)
    with_it = run(job(terms='derive = "student"\ncarry_back = "distil"'))
    assert together.results[AGGREGATOR].metrics["second_model_before"] == pytest.approx(
        with_it.results[AGGREGATOR].metrics["second_model_before"], abs=0.011
    )  # the translator is folded into the decoder


# Beyond the document


def only_classes(setup: Setup[RoundsSpec], classes: set[int]) -> Setup[RoundsSpec]:
    table = setup.table
    assert table.labels is not None
    rows = np.isin(table.labels, list(classes))
    return replace(setup, tables={"rows": Table(table.ids_digest, table.columns[rows], table.labels[rows])})


def test_with_preserve_a_client_returns_the_rows_of_classes_it_lacks_as_it_got_them():
    this = job(clients=1, rounds=1, terms='derive = "identity"\npreserve = true\ncarry_back = "copy"')
    given = setups(this)
    given["c0"] = only_classes(given["c0"], {0, 1, 2})
    kept, start = (
        load(run_together(roles(given)).results[AGGREGATOR].state),
        parameters_of(first_model(given[AGGREGATOR])),
    )
    for name in ("head.weight", "head.bias"):
        assert torch.equal(kept[name][3:], start[name][3:])
        assert not torch.equal(kept[name][:3], start[name][:3])


def test_with_debias_no_direction_of_the_last_layer_is_common_to_all_classes():
    this = job(terms='derive = "identity"\ndebias = true\ncarry_back = "copy"')
    together = run(this)
    assert load(together.results[AGGREGATOR].state)["head.weight"].mean(0).abs().max() < 1e-7
    plain = metrics_of(job(terms='derive = "identity"\ncarry_back = "copy"'))
    assert together.results[AGGREGATOR].metrics["first_model_after"] == pytest.approx(
        plain["first_model_after"], abs=0.011
    )
