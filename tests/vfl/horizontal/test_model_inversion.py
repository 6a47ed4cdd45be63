"""Model-inversion as a part of rounds: what a client adds, what the aggregator trains on, and what never leaves."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace as replace_spec
from rounds_federation import AGGREGATOR, roles, setups, spec
from rounds_federation import run as run_job
from safetensors.torch import load
from sklearn.datasets import load_digits

from vfl.errors import SpecConflict, SpecError
from vfl.flow import run_together
from vfl.horizontal.model_inversion import aggregator as retraining
from vfl.horizontal.model_inversion.balance import drawn, entropy, missing
from vfl.horizontal.model_inversion.inversion import Inverted, Space, invert
from vfl.horizontal.model_inversion.leak_meter import membership_auc, nearness
from vfl.horizontal.model_inversion.mid_network_inputs import MidNetworkInputs, marked
from vfl.horizontal.model_inversion.part import part
from vfl.horizontal.parts import PARTS
from vfl.horizontal.update_encoding import like, read
from vfl.kinds import kind_of
from vfl.messages import RoundReply, RoundTask
from vfl.models.local_training import features, train
from vfl.models.networks import build, load_parameters, parameters_of
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import ModelInversion

ROWS = 155
QUICK = "warm_up = 2, rows_per_class = 6, steps = 40, server_steps = 15, server_rows = 20"


def job(terms: str = "", **settings):
    """Three clients on digits; the search is short, and its filter lets all through that has the right label."""
    table = f"model_inversion = {{{QUICK}, confidence = 0.2{', ' * bool(terms)}{terms}}}"
    given: dict[str, Any] = {"parts": ["model_inversion"], "rounds": 3, "norm": "batch", "extra": table} | settings
    return spec(**given)


def run(given):
    """With rows enough for a mean that is better than guessing after two rounds."""
    return run_job(given, rows_each=ROWS)


def rounds_of(together, party: str):
    return [fact for fact in together.reports[party] if hasattr(fact, "measures")]


@pytest.fixture(scope="module")
def both():
    """A job whose clients and aggregator invert from round 2 on."""
    return run(job())


# What a client adds


def test_missing_rows_even_out_the_classes():
    terms = ModelInversion()
    assert missing([10, 4, 0], terms) == [0, 6, 10]
    assert missing([10, 4, 0], ModelInversion(balance=0.5)) == [0, 1, 5]
    assert missing([10, 4, 0], ModelInversion(classes="all", rows_per_class=3)) == [3, 9, 13]


def test_a_limit_on_the_ratio_thins_all_classes_alike():
    assert missing([10, 5, 0], ModelInversion(max_ratio=0.4)) == [0, 2, 4]


@pytest.mark.parametrize("counts", [[50, 0, 0, 0], [40, 30, 2, 0], [9, 8, 7, 1]])
def test_entropy_rises_to_one(counts):
    added = [count + more for count, more in zip(counts, missing(counts, ModelInversion()), strict=True)]
    assert entropy(added) == pytest.approx(1.0, abs=0.01)
    assert entropy(added) > entropy(counts)


def test_a_limit_of_one_leaves_two_of_ten_classes_at_nine_tenths_of_the_entropy():
    counts = [50, 50] + [0] * 8
    wanted = missing(counts, ModelInversion(max_ratio=1.0))
    assert entropy([count + more for count, more in zip(counts, wanted, strict=True)]) == pytest.approx(0.90, abs=0.01)


def pool(*labels: int, shape: tuple[int, ...] = (4,)) -> Inverted:
    rows = torch.rand(len(labels), *shape, generator=torch.Generator().manual_seed(1))
    return Inverted(rows, torch.tensor(labels), torch.ones(len(labels), dtype=torch.bool))


def test_rows_are_drawn_by_class_and_a_class_without_rows_stays_without():
    _, labels = drawn(pool(0, 0, 2), [3, 4, 2], Space((4,)), b"seed")
    assert labels.tolist() == [0, 0, 0, 2, 2]


def test_drawn_rows_move_a_little_and_stay_in_range():
    found = pool(0)
    inputs, _ = drawn(found, [200], Space((4,)), b"seed")
    apart = (inputs - found.inputs).abs()
    assert 0 < apart.max() < 0.05
    assert inputs.min() >= 0
    assert inputs.max() <= 1


def test_marked_rows_enter_where_they_belong_and_come_out_in_order():
    draws = torch.Generator().manual_seed(1)
    module = build("mlp", (5,), 3, hidden=(4,), norm="none", generator=draws)
    rows, features = torch.rand(2, 5, generator=draws), torch.rand(3, 4, generator=draws)
    both = marked(rows, features)[torch.tensor([4, 0, 2, 1, 3])]
    scores = MidNetworkInputs(module, "features", (5,), (4,))(both)
    expected = torch.cat([module(rows), module.get_submodule("head")(features)])
    assert torch.allclose(scores, expected[torch.tensor([4, 0, 2, 1, 3])])


# In a job


def test_where_none_is_plain_averaging_to_the_bit():
    plain = run(spec(rounds=3, norm="batch"))
    neutral = run(job('where = "none"'))
    assert neutral.results[AGGREGATOR].state == plain.results[AGGREGATOR].state
    assert [sent.message for sent in neutral.transcript] == [sent.message for sent in plain.transcript]


def test_messages_are_those_of_plain_averaging_and_no_larger(both):
    plain = run(spec(rounds=3, norm="batch"))
    assert [sent[:3] for sent in both.transcript] == [sent[:3] for sent in plain.transcript]
    for inverting, usual in zip(both.transcript, plain.transcript, strict=True):
        assert abs(inverting.payload_bytes - usual.payload_bytes) < 8  # a rate or a loss may take a byte more


def test_a_reply_counts_own_rows_alone(both):
    told = {(sent.sender, sent.message.rows) for sent in both.transcript if isinstance(sent.message, RoundReply)}
    assert told == {("c0", ROWS), ("c1", ROWS + 7), ("c2", ROWS + 14)}


def test_nothing_is_inverted_before_the_warm_up(both):
    first, second, _ = rounds_of(both, "c0")
    assert first.measures["inverted_rows"] == 0
    assert second.measures["inverted_rows"] > 0
    assert both.results[AGGREGATOR].series["inverted_rows"][0] == 0


def test_classes_of_a_client_come_nearer_to_even(both):
    for fact in rounds_of(both, "c1")[1:]:
        assert fact.measures["entropy_before"] < fact.measures["entropy_after"] <= 1


def test_a_client_inverts_what_it_received_before_it_replies(monkeypatch):
    inverted, order = [], []

    def noted(module, labels, space, search, seed, student):
        inverted.append(parameters_of(module))
        order.append("inverts")
        return invert(module, labels, space, search, seed, student)

    monkeypatch.setitem(PARTS, "model_inversion", lambda: part(noted))
    together = run(job('where = "clients"', clients=1, rounds=2))
    task = [sent.message for sent in together.transcript if isinstance(sent.message, RoundTask)][1]
    received = read(task.parameters, like(inverted[0]))
    assert len(inverted) == 1
    assert all(torch.equal(values, inverted[0][name]) for name, values in received.items())


def test_the_aggregator_inverts_each_reply_and_not_their_mean(monkeypatch):
    inverted = []

    def noted(module, labels, space, search, seed, student):
        inverted.append(parameters_of(module))
        return invert(module, labels, space, search, seed, student)

    monkeypatch.setitem(PARTS, "model_inversion", lambda: part(noted))
    together = run(job('where = "aggregator"', rounds=2))
    replies = [sent.message for sent in together.transcript if isinstance(sent.message, RoundReply)][3:]
    for reply, parameters in zip(replies, inverted, strict=True):
        sent = read(reply.parameters, like(parameters))
        assert all(torch.equal(values, parameters[name]) for name, values in sent.items())


def test_a_client_seeks_rows_of_all_classes_as_the_statistics_are_of_all(monkeypatch):
    sought = []

    def noted(module, labels, space, search, seed, student):
        sought.append(torch.bincount(labels).tolist())
        return invert(module, labels, space, search, seed, student)

    monkeypatch.setitem(PARTS, "model_inversion", lambda: part(noted))
    run(job('where = "clients"', clients=1, rounds=2))
    assert sought == [[6] * 10]


def test_a_soft_label_is_the_answer_of_the_model_in_which_the_row_was_found(monkeypatch):
    answers, trained = [], []

    def noted(module, labels, space, search, seed, student):
        found = invert(module, labels, space, search, seed, student)
        answers.append(features(module, found.filtered().inputs).softmax(1))
        return found

    def watched(module, inputs, labels, **settings):
        trained.append(labels)
        return train(module, inputs, labels, **settings)

    monkeypatch.setitem(PARTS, "model_inversion", lambda: part(noted))
    monkeypatch.setattr(retraining, "train", watched)
    run(job('where = "aggregator", labels = "soft"', rounds=2))
    assert len(answers) == 3
    torch.testing.assert_close(trained[0], torch.cat(answers))


def test_rows_are_found_anew_after_so_many_rounds(monkeypatch):
    rounds = []

    def noted(module, labels, space, search, seed, student):
        rounds.append(seed)
        return invert(module, labels, space, search, seed, student)

    monkeypatch.setitem(PARTS, "model_inversion", lambda: part(noted))
    run(job('where = "clients", refresh = 2', clients=1, rounds=5))
    assert len(rounds) == 2  # in rounds 2 and 4


@pytest.mark.parametrize("where", ["clients", "aggregator"])
def test_the_part_skips_itself_and_says_so_where_the_filter_keeps_too_little(where):
    table = f'model_inversion = {{{QUICK}, confidence = 0.999999, where = "{where}", leak_meter = false}}'
    skipped, plain = run(job(extra=table)), run(spec(rounds=3, norm="batch"))
    assert skipped.results[AGGREGATOR].state == plain.results[AGGREGATOR].state
    if where == "clients":
        assert "did nothing in rounds 2, 3" in skipped.results["c0"].notices[0].text
    else:
        assert skipped.results[AGGREGATOR].series["inverted_kept"][1:] == [0.0, 0.0]


def test_a_client_that_comes_back_goes_on_as_if_it_had_stayed():
    given = setups(job('where = "clients", refresh = 5', rounds=4))
    whole = run_together(roles(given))
    half = setups(job('where = "clients", refresh = 5', rounds=4))
    states = {party: [fact.state for fact in rounds_of(whole, party)][2] for party in half}
    again = run_together(roles({party: replace(setup, saved=states[party]) for party, setup in half.items()}))
    assert again.results[AGGREGATOR].state == whole.results[AGGREGATOR].state


@pytest.mark.parametrize("norm", ["none", "group"])
def test_a_model_without_batch_norm_is_observed_instead(norm):
    together = run(job(norm=norm))
    final = load(together.results[AGGREGATOR].state)
    assert final["head.observed_running_mean"].abs().sum() > 0
    assert together.results[AGGREGATOR].series["inverted_rows"][-1] > 0
    plain = build("mlp", (64,), 10, hidden=(32, 16), norm=norm, generator=torch.Generator().manual_seed(1))
    load_parameters(plain, final)  # whoever keeps the model needs no statistics


@pytest.mark.parametrize("cut", ["features", "hidden1"])
def test_features_are_sought_behind_a_block(cut):
    together = run(job(f'space = "features", cut = "{cut}"'))
    assert rounds_of(together, "c0")[-1].measures["inverted_rows"] > 0
    assert together.results[AGGREGATOR].series["inverted_rows"][-1] > 0


@pytest.mark.parametrize("terms", ['kind = "generator"', 'labels = "soft"', 'classes = "all"', "max_ratio = 0.5"])
def test_every_setting_runs(terms):
    assert run(job(terms)).results[AGGREGATOR].series["inverted_rows"][-1] > 0


def test_one_shot_trains_a_single_mean():
    terms = "warm_up = 1, rows_per_class = 6, server_steps = 15, confidence = 0.2, server_epochs = 3"
    table = f'model_inversion = {{{terms}, where = "aggregator", labels = "soft"}}'
    together = run_job(job(rounds=1, extra=table), rows_each=400)
    assert len(together.results[AGGREGATOR].series["accuracy"]) == 1
    assert together.results[AGGREGATOR].series["inverted_rows"][0] > 0


# With other parts


@pytest.mark.parametrize(
    "other",
    ["", ', storage = "layers"', ', codec = "half"', ', precision = "bf16"'],
)
def test_compressed_models_are_inverted_as_well(other):
    table = f"model_inversion = {{{QUICK}, confidence = 0.2}}\ncompressed_sync = {{reply_bits = 8{other}}}"
    together = run(job(parts=["compressed_sync", "model_inversion"], extra=table))
    assert rounds_of(together, "c0")[-1].measures["inverted_rows"] > 0
    assert together.results[AGGREGATOR].series["inverted_rows"][-1] > 0


def test_a_decoder_is_inverted_behind_its_backbone():
    table = f'model_inversion = {{{QUICK}, confidence = 0.2, space = "features"}}\n'
    table += 'backbone_decoder = {cut = "hidden1", derive = "identity", carry_back = "copy", translator = false}'
    together = run(job(parts=["model_inversion", "backbone_decoder"], extra=table))
    assert rounds_of(together, "c0")[-1].measures["inverted_rows"] > 0
    assert together.results[AGGREGATOR].series["inverted_rows"][-1] > 0


# What is refused


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("X1", {"extra": "secure_sum = true\nmodel_inversion = {where = 'both'}"}),
        ("X1", {"extra": "secure_sum = true\nmodel_inversion = {where = 'aggregator'}"}),
        (
            "X7",
            {
                "parts": ["model_inversion", "backbone_decoder"],
                "extra": "backbone_decoder = {cut = 'features', derive = 'identity', carry_back = 'copy'}",
            },
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(name, settings):
    with pytest.raises(SpecConflict, match=name):
        job(**settings)


def test_a_regression_has_no_classes_to_balance():
    given = job()
    with pytest.raises(SpecConflict, match="X6"):
        replace_spec(given, job=replace_spec(given.job, task="regression", classes=0))


@pytest.mark.parametrize("terms", ["weight = 0.0", "balance = 1.5", "refresh = 0", 'space = "features", cut = "head"'])
def test_numbers_out_of_range_are_refused(terms):
    with pytest.raises(SpecError, match="model_inversion"):
        job(terms)


# The leak meter


def test_copies_of_training_rows_are_flagged_and_rows_of_the_same_kind_are_not():
    rows = load_digits().data
    training, held_out, others = rows[:600], rows[600:900], rows[900:1200]
    assert nearness(training[:50] + 0.01, training, held_out).flagged
    usual = nearness(others, training, held_out)
    assert usual.median == pytest.approx(1.0, abs=0.1)
    assert not usual.flagged


def test_without_held_out_rows_each_row_is_held_out_in_turn():
    rows = np.array([[0.0], [1.0], [2.0], [3.0]])
    assert nearness(np.array([[0.5], [10.0]]), rows).median == pytest.approx((0.5 + 7.0) / 2)


def test_the_attack_by_loss_is_measured_as_an_auc():
    assert membership_auc(np.array([0.1, 0.2]), np.array([0.3, 0.4])) == 1.0
    assert membership_auc(np.array([0.1, 0.4]), np.array([0.1, 0.4])) == 0.5
    assert membership_auc(np.array([0.3, 0.4]), np.array([0.1, 0.2, 0.2])) == 0.0


def test_each_client_reports_what_was_found_and_who_could_be_told_apart():
    together = run(job("leak_rows = 0.2"))
    outcome = together.results["c0"]
    assert {"leak_pool_lowest", "leak_reply_median"} <= outcome.metrics.keys()
    for model in ("published", "own_rows", "with_inverted_rows"):
        assert 0 <= outcome.metrics[f"membership_auc_{model}"] <= 1
    assert sum(notice.code == "leak_meter" for notice in outcome.notices) == 3


# What a job is warned of


def told(this: RoundsSpec, classes_held: int | None = None) -> str:
    """What a job is warned of that is about this part."""
    found = kind_of(this).warnings(this, classes_held=classes_held)
    return "; ".join(notice.text for notice in found if notice.code.startswith("inversion"))


def test_a_job_in_which_all_clients_take_part_is_unlikely_to_gain():
    assert "unlikely to help" in told(job())
    assert "unlikely to help" not in told(job(clients=10, per_round=3))
    assert "unlikely to help" in told(job(clients=10, per_round=3), classes_held=8)
    assert "unlikely to help" not in told(job(), classes_held=2)


def test_a_job_is_warned_of_who_can_find_rows():
    assert "aggregator inverts" in told(job())
    assert "other clients" in told(job('where = "clients"'))
    assert not told(job('where = "none"'))
    assert not told(spec())


def test_a_job_that_ends_before_the_warm_up_is_warned():
    assert "never acts" in told(job(rounds=1))
