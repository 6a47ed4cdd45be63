"""Compressed-sync: what rests and travels are codes of a few bits, and training still learns (compressed_sync.md)."""

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from rounds_federation import AGGREGATOR, roles, run, setups, spec
from safetensors.torch import load

from vfl.errors import ImpossibleJob, RemoteProtocolError
from vfl.flow import Together, run_together
from vfl.horizontal.aggregator import Aggregation
from vfl.horizontal.client import Participation
from vfl.horizontal.compressed_sync.formats import stored_format
from vfl.horizontal.compressed_sync.part import PART
from vfl.horizontal.hooks import AggregatorHooks, SharedModule, UpdateEncoding
from vfl.horizontal.network import save_parameters
from vfl.horizontal.update_encoding import like, raw_encoding, read
from vfl.messages import Published, RoundReply, RoundTask
from vfl.models.networks import Parameters
from vfl.reports import Outcome, RoundDone
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import CompressedSync, RoundsTrain
from vfl.spec.sections import Optimiser

HIDDEN = (64, 48)
WEIGHTS = ("hidden1.linear.weight", "features.linear.weight")


def job(terms: str = "", rounds: str = "", clients: int = 3, count: int = 2, norm: str = "none") -> RoundsSpec:
    extra = f"{rounds}\n[rounds.compressed_sync]\n{terms}"
    return spec(clients, count, parts=["compressed_sync"], extra=extra, hidden=HIDDEN, norm=norm)


def terms_of(training: RoundsSpec) -> CompressedSync:
    terms = training.compressed_sync
    assert terms is not None
    return terms


def with_momentum(training: RoundsSpec) -> RoundsSpec:
    return msgspec.structs.replace(
        training, train=RoundsTrain(batch_rows=32, optimiser=Optimiser(rate=0.05, momentum=0.8))
    )


def final(together: Together[Outcome], party: str = AGGREGATOR) -> Parameters:
    parameters: Parameters = load(together.results[party].state)
    return parameters


def equal(one: Parameters, other: Parameters) -> bool:
    return one.keys() == other.keys() and all(torch.equal(values, other[name]) for name, values in one.items())


def bodies(together: Together[Outcome], *kinds: str) -> list[bytes]:
    """Of the parameters of these messages, in the order they were sent."""
    carrying = RoundTask | RoundReply | Published
    found = (sent.message for sent in together.transcript if sent.kind in kinds)
    return [message.parameters for message in found if isinstance(message, carrying)]


def tasks(together: Together[Outcome]) -> list[RoundTask]:
    return [sent.message for sent in together.transcript if isinstance(sent.message, RoundTask)]


def aggregation(training: RoundsSpec) -> Aggregation:
    return Aggregation(setups(training)[AGGREGATOR])


# -- the neutral setting


NEUTRAL = {
    "of models": ('codec = "none"', True),
    "of parameters": ('codec = "none"\nreply = "parameters"', True),
    "of layers": ('codec = "none"\nstorage = "layers"', False),
}


@pytest.mark.parametrize(("terms", "momentum"), NEUTRAL.values(), ids=NEUTRAL)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_codec_that_loses_nothing_is_plain_averaging_bit_for_bit(terms, momentum, norm):
    plain, compressed = spec(3, 3, hidden=HIDDEN, norm=norm), job(terms, count=3, norm=norm)
    if momentum:
        plain, compressed = with_momentum(plain), with_momentum(compressed)
    one, other = run(plain), run(compressed)
    assert all(equal(final(other, party), final(one, party)) for party in one.results)
    assert other.results[AGGREGATOR].series["accuracy"] == one.results[AGGREGATOR].series["accuracy"]


# -- what travels and what rests


def body_bytes(parameters: Parameters, bits: dict[str, int], rest_bytes: int = 4) -> int:
    """R3.3: blocks of 2^16 ... 2^7 values with a scale each, left-over values as fp32, the rest at full precision."""
    total = 41 + 2 * len(parameters)
    for name, values in parameters.items():
        left, width = values.numel(), bits.get(name, 0)
        if not width:
            total += rest_bytes * left
            continue
        for length in (1 << exponent for exponent in range(16, 6, -1)):
            total += left // length * (math.ceil(width * length / 8) + 4)
            left %= length
        total += 4 * left
    return total


@pytest.mark.parametrize(
    ("terms", "down", "up"),
    [
        ("", (4, 4), (4, 4)),
        ("stored_bits = 8\nreply_bits = 1", (8, 8), (1, 1)),
        ('stored_bits = 5\nreply = "parameters"', (5, 5), (5, 5)),
        ('tensor_bits = {"features.linear.weight" = 7}\nreply_bits = 2', (4, 7), (2, 7)),
    ],
)
def test_bodies_are_as_long_as_their_bits_say(terms, down, up):
    together = run(job(terms))
    parameters = final(together)
    by_name = [dict(zip(WEIGHTS, bits, strict=True)) for bits in (down, up)]
    for kind, bits in (("RoundTask", by_name[0]), ("Published", by_name[0]), ("RoundReply", by_name[1])):
        assert {len(body) for body in bodies(together, kind)} == {body_bytes(parameters, bits)}


def test_at_four_bits_parameters_at_rest_and_messages_are_an_eighth():
    together = run(job())
    metrics = together.results[AGGREGATOR].metrics
    codes = sum(final(together)[name].numel() for name in WEIGHTS)
    spared = metrics["parameter_bytes_at_full_precision"] - metrics["parameter_bytes_stored"]
    assert spared == pytest.approx(codes * 3.5, rel=0.01)
    client = [fact for fact in together.reports["c0"] if isinstance(fact, RoundDone)]
    assert [len(fact.state) for fact in client] == [metrics["parameter_bytes_stored"]] * 2
    assert client[-1].state == bodies(together, "RoundTask")[-1]


def test_every_message_has_a_rotation_of_its_own():
    together = run(job(count=3))
    different = set(bodies(together, "RoundTask", "RoundReply", "Published"))
    assert len({body[25:41] for body in different}) == len(different) == 3 + 3 * 3 + 1


def test_all_chosen_clients_get_the_same_body_and_keep_what_was_published():
    together = run(job())
    for number in (1, 2):
        assert len({task.parameters for task in tasks(together) if task.round == number}) == 1
    (body,) = set(bodies(together, "Published"))
    training = job()
    start = aggregation(training).parameters
    stored = stored_format(terms_of(training), like(start))
    for client in training.roster.clients:
        kept = final(together, client)
        assert equal(kept, dict(sorted(read(body, like(start), stored).items())))
    assert not equal(final(together, "c0"), final(together))


# -- the residual (R3.4)


def compressing(training: RoundsSpec) -> tuple[AggregatorHooks, UpdateEncoding, Parameters]:
    """The part at the aggregator, and the first model's parameters."""
    side = aggregation(training)
    hooks = PART.aggregator(setups(training)[AGGREGATOR], {})
    usual = raw_encoding(side.parameters)
    return hooks, hooks.encoding(SharedModule(side.shared_module.module), usual), side.parameters


def distances(training: RoundsSpec, rounds: int) -> tuple[float, float]:
    """How far one decoded broadcast, and the mean of many, lie from parameters that do not move."""
    _, encoding, parameters = compressing(training)
    decoded = [encoding.received(encoding.broadcast(number, parameters)) for number in range(1, rounds + 1)]
    name = WEIGHTS[0]
    mean = sum((one[name] for one in decoded), torch.zeros(())) / rounds
    return float((decoded[0][name] - parameters[name]).norm()), float((mean - parameters[name]).norm())


def test_what_a_broadcast_drops_is_sent_with_the_next_ones():
    one, mean = distances(job("stored_bits = 2"), 20)
    assert mean < one / 10  # the sum of what was sent is 20 w - e, and e is about as large as one error


def test_without_feedback_what_is_dropped_stays_lost():
    one, mean = distances(job("stored_bits = 2\nfeedback = false", 'allow = ["X4"]'), 20)
    assert mean > one / 5


def test_a_client_that_skipped_rounds_needs_no_history():
    together = run(spec(4, 4, parts=["compressed_sync"], hidden=HIDDEN, per_round=2))
    outcomes = [together.results[client] for client in ("c0", "c1", "c2", "c3")]
    assert {len(outcome.series.get("loss", [])) for outcome in outcomes} > {1}
    assert len({outcome.state for outcome in outcomes}) == 1


# -- the reply (R3.5)


def one_reply(training: RoundsSpec) -> tuple[Parameters, Parameters, Parameters, bytes]:
    """(what a client received, what the aggregator reads, what the client had trained, the reply's body)."""
    side, client = aggregation(training), Participation(setups(training)["c0"])
    body = side.encoding.broadcast(1, side.parameters)
    reply = client.reply_to(side.task(body, side.encoding.reply_bits(1)))
    received = side.encoding.received(body)
    exact = msgspec.structs.replace(training.rounds, parts=(), compressed_sync=None)
    plain = Participation(setups(msgspec.structs.replace(training, rounds=exact))["c0"])
    raw = raw_encoding(received)
    trained = raw.read(plain.reply_to(side.task(raw.broadcast(1, received), 0)).parameters, received, 0)
    read_back = side.encoding.read(reply.parameters, received, side.encoding.reply_bits(1))
    return received, read_back, trained, reply.parameters


@pytest.mark.parametrize(
    ("terms", "error", "relative_to_change"),
    [
        ("", 0.0096, True),
        ("reply_bits = 1", 0.571, True),
        ('reply = "parameters"', 0.0096, False),
        ('reply = "parameters"\nstored_bits = 8', 5e-5, False),
    ],
)
def test_both_kinds_of_reply_decode_to_what_the_client_trained(terms, error, relative_to_change):
    received, read_back, trained, _ = one_reply(job(terms))
    for name, values in trained.items():
        if name not in WEIGHTS:
            assert torch.equal(read_back[name], values)
            continue
        against = values - received[name] if relative_to_change else values
        assert float((read_back[name] - values).norm() ** 2 / against.norm() ** 2) == pytest.approx(error, rel=0.25)


def test_top_k_sends_the_largest_changes_only():
    received, read_back, trained, body = one_reply(job('codec = "sparse"\nkept_share = 0.05'))
    for name in WEIGHTS:
        change, sent = trained[name] - received[name], read_back[name] - received[name]
        kept = sent != 0
        assert int(kept.sum()) == math.ceil(0.05 * change.numel())
        assert float(change[kept].abs().min()) >= float(change[~kept].abs().max())
    codes = sum(trained[name].numel() for name in WEIGHTS)
    assert len(body) < 4 * (sum(values.numel() for values in trained.values()) - codes) + 0.05 * 8 * codes + 100


@pytest.mark.parametrize("codec", ["uniform", "block", "grid", "half"])
def test_every_codec_serves_both_ways(codec):
    together = run(job(f'codec = "{codec}"\nstored_bits = 8\nreply_bits = 8', count=3))
    plain = run(spec(3, 3, hidden=HIDDEN))
    one, other = final(together), final(plain)
    apart = math.sqrt(sum(float(((one[name] - other[name]) ** 2).sum()) for name in one))
    assert apart < 0.05 * math.sqrt(sum(float((values**2).sum()) for values in other.values()))


def test_what_is_not_compressed_travels_as_bf16_where_the_job_says_so():
    together = run(job('precision = "bf16"'))
    bits = dict.fromkeys(WEIGHTS, 4)
    assert {len(body) for body in bodies(together, "RoundReply")} == {body_bytes(final(together), bits, rest_bytes=2)}
    plain = run(job())
    assert together.results[AGGREGATOR].series["loss"][-1] == pytest.approx(
        plain.results[AGGREGATOR].series["loss"][-1], rel=0.05
    )


def test_bits_of_a_tensor_that_does_not_travel_are_refused():
    with pytest.raises(ImpossibleJob, match=r"tensor_bits names head\.bias") as refusal:
        run(job('tensor_bits = {"head.bias" = 4}'))
    assert WEIGHTS[0] in refusal.value.fix


def test_a_client_refuses_a_task_that_asks_for_other_bits_than_agreed():
    training = job()
    side = aggregation(training)
    task = side.task(side.encoding.broadcast(1, side.parameters), 8)
    with pytest.raises(RemoteProtocolError, match="asks for replies of 8 bits"):
        Participation(setups(training)["c0"]).reply_to(task)


# -- errors are measured (R3.9)


def test_each_side_reports_what_its_messages_lost_against_what_the_codec_states():
    together = run(job("reply_bits = 2", count=3))
    aggregator, client = together.results[AGGREGATOR], together.results["c0"]
    assert aggregator.series["stored_error"] == pytest.approx([0.0095] * 3, rel=0.15)
    assert aggregator.series["stored_error_factor"] == pytest.approx([1.0] * 3, abs=0.15)
    assert client.series["reply_error"] == pytest.approx([0.133] * 3, rel=0.15)
    assert {name for name in aggregator.metrics if name.startswith("stored_error/")} == {
        f"stored_error/{n}" for n in WEIGHTS
    }
    assert aggregator.series["reply_bits"] == [2.0] * 3
    assert "codec_error" not in {notice.code for notice in (*aggregator.notices, *client.notices)}


def test_an_error_far_above_what_the_codec_states_is_a_warning_in_the_report():
    training = job('codec = "grid"', count=1)
    start = aggregation(training).parameters
    for name in WEIGHTS:
        start[name].zero_()
    # One value alone comes out of the rotation as plus and minus the same everywhere, far from all 16 levels, where
    # the codec's stated error is that of normal values: (0.357 / 0.289)^2 = 1.5 times as much.
    start[WEIGHTS[0]][0, 0] = 100.0
    given = setups(training)
    given[AGGREGATOR] = replace(given[AGGREGATOR], model=save_parameters(start))
    notice = run_together(roles(given)).results[AGGREGATOR].notices[0]
    assert notice.kind == "warning"
    assert notice.text.startswith("the error of the model sent in round 1 is 1.5")
    assert "times what codec grid states" in notice.text


# -- continuing (R0.7)


def aggregator_states(together: Together[Outcome]) -> list[bytes]:
    return [fact.state for fact in together.reports[AGGREGATOR] if isinstance(fact, RoundDone)]


@pytest.mark.parametrize("terms", ["stored_bits = 2\nreply_bits = 2", 'storage = "layers"', 'precision = "bf16"'])
def test_a_run_continued_from_saved_state_equals_the_uninterrupted_one_residual_included(terms):
    training = job(terms, count=4)
    whole = run(training)
    states = aggregator_states(whole)
    continued = run(training, saved=states[1])
    assert aggregator_states(continued) == states[2:]
    assert any(name.startswith("part/compressed_sync/residual/") for name in load(states[1]))
    assert continued.results[AGGREGATOR] == whole.results[AGGREGATOR]
    assert all(continued.results[client].state == whole.results[client].state for client in training.roster.clients)


def test_momentum_that_is_kept_continues_too():
    training = with_momentum(spec(3, 4, parts=["compressed_sync"], hidden=HIDDEN))
    rounds = msgspec.structs.replace(training.rounds, compressed_sync=CompressedSync(keep_optimiser=True))
    training = msgspec.structs.replace(training, rounds=rounds)
    whole = run(training)
    given = setups(training)
    for party, setup in given.items():
        states = [fact.state for fact in whole.reports[party] if isinstance(fact, RoundDone)]
        given[party] = replace(setup, saved=states[1])
    continued = run_together(roles(given))
    assert aggregator_states(continued) == aggregator_states(whole)[2:]
    assert final(continued).keys() == final(whole).keys()
    assert continued.results["c1"].state == whole.results["c1"].state


# -- bits chosen from the link, or from a budget (compressed_sync.md)


def test_a_budget_is_spent_on_as_many_bits_as_it_carries_and_not_overdrawn():
    lavish, frugal = 1e-3, 1.7e-4
    chosen = {}
    for gigabytes in (lavish, frugal):
        training = job('bits_from = "budget"', f"stop = {{gigabytes = {gigabytes}}}", count=4)
        together = run(training)
        chosen[gigabytes] = together.results[AGGREGATOR].series["reply_bits"]
        assert len(chosen[gigabytes]) == 4
        assert [task.reply_bits for task in tasks(together)][::3] == chosen[gigabytes]
        assert sum(sent.payload_bytes for sent in together.transcript) < gigabytes * 1e9
    assert chosen[lavish] == [8.0] * 4
    assert max(chosen[frugal]) < 8


def test_a_slow_link_gets_fewer_bits():
    training = job('bits_from = "link"\nlink_seconds = 1.0')
    hooks, encoding, _ = compressing(training)
    assert encoding.reply_bits(1) == 4  # nothing is measured yet
    bits = []
    for number, bytes_per_second in enumerate((1e6, 6000.0, 100.0), 1):
        hooks.close_round(number, 5.0, round(5.0 * training.cohort * bytes_per_second))
        bits.append(encoding.reply_bits(number + 1))
    assert bits[0] == 8 > bits[1] > bits[2] == 1


# -- training goes on learning


@pytest.mark.parametrize(
    "terms", ["", "stored_bits = 8\nreply_bits = 1", 'reply = "parameters"', 'storage = "layers"\nstored_bits = 6']
)
def test_at_equal_rounds_compressed_training_comes_as_far(terms, accuracy_of_plain_averaging):
    assert accuracy(job(terms, count=ROUNDS)) > accuracy_of_plain_averaging - 0.04


@pytest.fixture(scope="module")
def accuracy_of_plain_averaging():
    plain = accuracy(spec(3, ROUNDS, hidden=HIDDEN))
    assert plain > 0.8
    return plain


ROUNDS = 20


def accuracy(training: RoundsSpec) -> float:
    faster = RoundsTrain(batch_rows=16, optimiser=Optimiser(rate=0.3))
    outcome = run(msgspec.structs.replace(training, train=faster), rows_each=150).results[AGGREGATOR]
    return float(np.mean(outcome.series["accuracy"][-5:]))
