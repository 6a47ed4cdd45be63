"""Horizontal rounds as one page: federated averaging to the bit, cohorts, deadlines, returns, ends (rounds.md)."""

import hashlib
import itertools
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
import pytest
import torch
from rounds_federation import AGGREGATOR, SEED, roles, run, setups, spec
from safetensors.torch import load

from vfl.errors import RemoteProtocolError, TooFewReplies
from vfl.flow import Delivery, Flow, Receive, Send, run_together
from vfl.horizontal.mean import WeightedMean
from vfl.horizontal.network import network_of
from vfl.horizontal.rows import derived, examples_of
from vfl.horizontal.selection import cohort
from vfl.kinds import allowed
from vfl.messages import Published, RoundReply, RoundTask
from vfl.models.local_training import evaluate, train
from vfl.models.networks import Parameters, load_parameters, norm_statistics_names, parameters_of
from vfl.notices import Notice
from vfl.protocols.rounds import aggregator, client
from vfl.reports import Outcome, Refused, RoundDone
from vfl.setup import Setup
from vfl.spec.rounds import RoundsSpec


def labelled(setup: Setup[RoundsSpec], use: str) -> tuple[torch.Tensor, torch.Tensor, int]:
    rows = examples_of(setup.spec, setup.tables[use], use)
    assert rows.labels is not None
    return rows.inputs, rows.labels, rows.rows


def plain_training(job: RoundsSpec, setup: Setup[RoundsSpec], start: Parameters, round_number: int) -> Parameters:
    """One client's round without any of the product's rounds."""
    module = network_of(job, bytes(32))
    load_parameters(module, start)
    inputs, labels, _ = labelled(setup, "rows")
    train(
        module,
        inputs,
        labels,
        epochs=job.rounds.local_epochs,
        batch_rows=job.train.batch_rows,
        optimiser=job.train.optimiser,
        seed=derived(setup.private_seed, setup.me, round_number),
        regression=False,
    )
    return parameters_of(module)


def plain_averaging(job: RoundsSpec, given: dict[str, Setup[RoundsSpec]]) -> Parameters:
    """Federated averaging in one loop (McMahan et al. 2017, algorithm 1)."""
    weights = parameters_of(network_of(job, derived(SEED, "initial weights")))
    for number in range(1, job.rounds.rounds + 1):
        chosen = cohort(SEED, number, job.roster.clients, job.roster.clients, job.cohort)
        trained = [plain_training(job, given[name], weights, number) for name in chosen]
        rows = [given[name].rows for name in chosen]
        weights = {
            name: (
                sum((k * w[name].double() for k, w in zip(rows, trained, strict=True)), torch.zeros(()).double())
                / sum(rows)
            ).float()
            for name in weights
        }
    return weights


def equal(one: Parameters, other: Parameters) -> bool:
    return one.keys() == other.keys() and all(torch.equal(values, other[name]) for name, values in one.items())


@pytest.mark.parametrize("per_round", [0, 2])
def test_without_parts_rounds_are_federated_averaging_bit_for_bit(per_round):
    job = spec(clients=4, rounds=3, per_round=per_round)
    together = run(job)
    assert equal(load(together.results[AGGREGATOR].state), plain_averaging(job, setups(job)))


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_one_client_is_plain_local_training(norm):
    job = spec(clients=1, rounds=2, norm=norm)
    given = setups(job)
    weights = parameters_of(network_of(job, derived(SEED, "initial weights")))
    for number in (1, 2):
        weights = plain_training(job, given["c0"], weights, number)
    assert equal(load(run(job).results[AGGREGATOR].state), weights)


def test_results_do_not_depend_on_who_runs_first():
    job = spec(clients=3, rounds=2, norm="batch")
    forwards = roles(setups(job))
    backwards = dict(reversed(roles(setups(job)).items()))
    assert run_together(forwards).results[AGGREGATOR] == run_together(backwards).results[AGGREGATOR]


def test_every_client_keeps_the_model_the_aggregator_keeps_chosen_or_not():
    job = spec(clients=4, rounds=1, per_round=1)
    together = run(job)
    assert len({outcome.state for outcome in together.results.values()}) == 1
    published = {line.receiver: m for line in together.transcript if isinstance(m := line.message, Published)}
    assert published.keys() == set(job.roster.clients)
    assert len({message.model_digest for message in published.values()}) == 1


def test_messages_go_by_the_listed_routes_and_hold_no_row():
    job = spec(clients=3, rounds=2)
    given, together = setups(job), run(job)
    rows = [
        examples_of(job, given[name].table, "training").inputs[at].numpy().tobytes()
        for name in job.roster.clients
        for at in (0, 7)
    ]
    for line in together.transcript:
        assert allowed(job, line.sender, line.receiver, line.kind)
        body = getattr(line.message, "parameters", b"")
        assert not any(row in body for row in rows)


def test_norm_statistics_are_those_of_the_joined_rows():
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(rows, 5, generator=generator) * 3 + 100 * number for number, rows in enumerate((11, 40, 7))]
    mean = WeightedMean(norm_statistics_names(["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]))
    for number, part in enumerate(parts):
        mean.add(
            {
                "norm.running_mean": part.mean(0),
                "norm.running_var": part.var(0, unbiased=False),
                "norm.num_batches_tracked": torch.tensor(3 + number),
            },
            len(part),
        )
    joined = torch.cat(parts)
    assert torch.allclose(mean.mean()["norm.running_mean"], joined.mean(0), rtol=1e-5)
    assert torch.allclose(mean.mean()["norm.running_var"], joined.var(0, unbiased=False), rtol=1e-4)
    assert mean.mean()["norm.num_batches_tracked"] == 5


def test_a_cohort_follows_from_the_seed_and_the_round_and_an_absent_client_changes_nobody_elses_turn():
    roster = [f"c{number}" for number in range(20)]
    drawn = [cohort(SEED, number, roster, roster, 5) for number in range(50)]
    assert drawn == [cohort(SEED, number, roster, roster, 5) for number in range(50)]
    assert all(len(names) == 5 and names == sorted(names, key=roster.index) for names in drawn)
    assert {name for names in drawn for name in names} == set(roster)
    for names, without in zip(drawn, (cohort(SEED, n, roster, roster[1:], 5) for n in range(50)), strict=True):
        assert set(names) - {"c0"} <= set(without)
        assert len(without) == 5


# Clients that are late, leave and come back


def refusals(facts: list[object]) -> list[str]:
    return [fact.text for fact in facts if isinstance(fact, Refused)]


def measures(together, name: str) -> list[float]:
    return [fact.measures[name] for fact in together.reports[AGGREGATOR] if isinstance(fact, RoundDone)]


def with_one(job: RoundsSpec, name: str, change: Callable[[Flow[Outcome]], Flow[Outcome]]):
    flows = roles(setups(job))
    flows[name] = change(flows[name])
    return run_together(flows)


def held_back(role: Flow[Outcome], rounds: set[int]) -> Flow[Outcome]:
    """A client whose replies to these rounds are sent only with its next one."""
    answer: Delivery | None = None
    late = list[Send]()
    try:
        while True:
            effect = role.send(answer)
            if isinstance(effect, Send) and isinstance(effect.message, RoundReply) and effect.message.round in rounds:
                late.append(effect)
                answer = Delivery(None)
                continue
            if isinstance(effect, Send) and isinstance(effect.message, RoundReply):
                while late:
                    yield late.pop(0)
            answer = yield effect
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome


def test_a_straggler_is_left_out_at_the_deadline_and_its_late_reply_is_dropped():
    job = spec(clients=3, rounds=3, extra="quorum = 0.6")
    together = with_one(job, "c1", lambda role: held_back(role, {2}))
    assert measures(together, "replies") == [3, 2, 3]
    assert refusals(together.reports[AGGREGATOR]) == ["c1's reply to round 2 came in round 3 and is dropped"]


def test_a_round_below_its_quorum_is_repeated_and_then_named():
    job = spec(clients=3, rounds=1, extra="quorum = 1.0")
    with pytest.raises(TooFewReplies, match="round 1 got 2 usable replies in each of 3 tries"):
        with_one(job, "c1", lambda role: held_back(role, {1}))


def back_after(setup: Setup[RoundsSpec], tasks: int) -> Flow[Outcome]:
    """A client that vanishes with its last of so many tasks unanswered, and comes back as a fresh process would."""
    role, answer = client(setup), None
    while tasks:
        effect = role.send(answer)
        answer = yield effect
        tasks -= isinstance(effect, Receive) and isinstance(getattr(answer, "message", None), RoundTask)
    return (yield from client(setup))


def test_a_client_that_vanishes_and_returns_joins_the_next_round():
    job = spec(clients=3, rounds=4, extra="quorum = 0.6")
    flows = roles(setups(job))
    flows["c2"] = back_after(setups(job)["c2"], 2)
    together = run_together(flows)
    assert measures(together, "replies") == [3, 2, 3, 3]
    assert together.results["c2"].state == together.results[AGGREGATOR].state


def late_by(setup: Setup[RoundsSpec], seconds: float) -> Flow[Outcome]:
    yield Receive(AGGREGATOR, seconds)
    return (yield from client(setup))


def test_a_late_joiner_takes_part_from_the_round_after_it_came():
    job = spec(clients=3, rounds=4, extra="quorum = 0.5")
    flows = roles(setups(job))
    flows["c0"] = late_by(setups(job)["c0"], 601)  # the job begins without it after 600 s
    flows["c1"] = held_back(flows["c1"], {1})  # and a straggler makes its first round last as long again
    assert measures(run_together(flows), "replies") == [1, 3, 3, 3]


def test_a_client_may_not_weigh_more_later_than_it_first_said():
    def boasting(role: Flow[Outcome]) -> Flow[Outcome]:
        answer = None
        try:
            while True:
                effect = role.send(answer)
                if isinstance(effect, Send) and isinstance(effect.message, RoundReply) and effect.message.round == 2:
                    effect = Send(effect.to, RoundReply(2, effect.message.parameters, 10**6, effect.message.loss))
                answer = yield effect
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome

    together = with_one(spec(clients=3, rounds=2), "c1", boasting)
    assert measures(together, "replies") == [3, 2]
    assert refusals(together.reports[AGGREGATOR]) == ["c1 had 67 rows before and now says 1000000"]


# Ends, options, and going on


def states(together) -> Iterator[bytes]:
    return (fact.state for fact in together.reports[AGGREGATOR] if isinstance(fact, RoundDone))


@pytest.mark.parametrize("extra", ["", 'server_optimiser = {name = "adam", rate = 0.1}'], ids=["average", "adam"])
def test_a_run_continued_from_a_saved_state_equals_the_uninterrupted_one(extra):
    job = spec(clients=3, rounds=4, norm="batch", per_round=2, extra=extra)
    whole = run(job)
    second = next(itertools.islice(states(whole), 1, None))
    continued = run(job, saved=second)
    assert continued.results[AGGREGATOR] == whole.results[AGGREGATOR]
    assert len(list(states(continued))) == 2


@pytest.mark.parametrize(
    ("stop", "rounds", "why"),
    [
        ("target = 0.01", 1, "target accuracy 0.01 reached"),
        ("plateau = 2, gain = 0.9", 3, "no gain above 0.9 in 2 evaluations"),
        ("gigabytes = 0.0001", 2, "0.0001 GB are spent"),
    ],
)
def test_the_first_end_condition_to_hold_ends_the_job(stop, rounds, why):
    outcome = run(spec(rounds=6, extra=f"stop = {{{stop}}}")).results[AGGREGATOR]
    assert len(outcome.series["accuracy"]) == rounds
    assert outcome.notices == [Notice("note", "ended_early", f"ended after round {rounds}: {why}")]


def test_a_proximal_term_of_zero_is_its_absence_and_a_large_one_keeps_clients_close():
    def moved(job: RoundsSpec) -> float:
        start = parameters_of(network_of(job, derived(SEED, "initial weights")))
        end = load(run(job).results[AGGREGATOR].state)
        return float(sum(((end[name] - values) ** 2).sum() for name, values in start.items()))

    assert run(spec(proximal=0.0)).results[AGGREGATOR] == run(spec()).results[AGGREGATOR]
    assert moved(spec(proximal=5.0)) < 0.8 * moved(spec())


def test_a_server_optimiser_that_steps_all_the_way_is_the_average():
    whole_step = spec(extra='server_optimiser = {name = "momentum", rate = 1.0, momentum = 0.0}')
    one, other = (load(run(job).results[AGGREGATOR].state) for job in (whole_step, spec()))
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)
    halfway = load(
        run(spec(rounds=1, extra='server_optimiser = {name = "momentum", rate = 0.5}')).results[AGGREGATOR].state
    )
    start = parameters_of(network_of(spec(), derived(SEED, "initial weights")))
    full = load(run(spec(rounds=1)).results[AGGREGATOR].state)
    assert all(torch.allclose(halfway[name], (start[name] + full[name]) / 2, atol=1e-6) for name in full)


def test_the_rate_decays_from_round_to_round():
    together = run(spec(rounds=3, extra="rate_decay = 0.5"))
    tasks = [line.message for line in together.transcript if isinstance(line.message, RoundTask)]
    assert sorted({(task.round, task.rate) for task in tasks}) == [(1, 0.1), (2, 0.05), (3, 0.025)]


def test_reported_bytes_are_those_of_the_messages():
    together = run(spec(clients=3, rounds=2))
    sent = sum(line.payload_bytes for line in together.transcript if isinstance(line.message, RoundTask))
    received = sum(line.payload_bytes for line in together.transcript if isinstance(line.message, RoundReply))
    assert sum(together.results[AGGREGATOR].series["bytes_sent"]) == sent
    assert sum(together.results[AGGREGATOR].series["bytes_received"]) == received


def test_the_aggregators_own_rows_train_the_first_model():
    job = spec(rounds=1, tables=("test", "first"))
    given = setups(job)
    module = network_of(job, derived(SEED, "initial weights"))
    inputs, labels, _ = labelled(given[AGGREGATOR], "first")
    train(
        module,
        inputs,
        labels,
        epochs=10,
        batch_rows=32,
        optimiser=job.train.optimiser,
        seed=derived(SEED, "first model"),
        regression=False,
    )
    first = next(line.message for line in run(job).transcript if isinstance(line.message, RoundTask))
    assert first.model_digest == hashlib.sha256(first.parameters).digest()
    expected = np.concatenate([values.numpy().ravel() for values in parameters_of(module).values()]).tobytes()
    assert first.parameters.endswith(expected)


def test_a_model_is_measured_on_the_aggregators_test_rows_only():
    job = spec(rounds=1)
    together, given = run(job), setups(job)
    module = network_of(job, bytes(32))
    load_parameters(module, load(together.results[AGGREGATOR].state))
    inputs, labels, _ = labelled(given[AGGREGATOR], "test")
    found = evaluate(module, inputs, labels, regression=False)
    metrics = together.results[AGGREGATOR].metrics
    assert {name: metrics[name] for name in ("accuracy", "loss")} == {
        "accuracy": found.correct / found.rows,
        "loss": found.loss,
    }


def test_a_registered_model_can_be_the_first():
    job = spec(rounds=1)
    given = setups(job)
    earlier = run(job).results[AGGREGATOR].state
    continued = Setup(job, AGGREGATOR, given[AGGREGATOR].tables, SEED, given[AGGREGATOR].private_seed, model=earlier)
    together = run_together(
        {AGGREGATOR: aggregator(continued), **{n: r for n, r in roles(given).items() if n != AGGREGATOR}}
    )
    task = next(line.message for line in together.transcript if isinstance(line.message, RoundTask))
    expected = np.concatenate([load(earlier)[name].numpy().ravel() for name in parameters_of(network_of(job, b""))])
    assert task.parameters.endswith(expected.tobytes())


@pytest.mark.parametrize(
    "changes", [{"epochs": 2}, {"rate": 1.0}, {"round": 9}, {"round": 0}, {"parameters": b"other"}], ids=str
)
def test_a_client_does_no_more_than_was_agreed(changes):
    def asking(role: Flow[Outcome]) -> Flow[Outcome]:
        answer: Delivery | None = None
        while True:
            effect = role.send(answer)
            if isinstance(effect, Send) and isinstance(effect.message, RoundTask):
                effect = Send(effect.to, msgspec.structs.replace(effect.message, **changes))
            answer = yield effect

    with pytest.raises(RemoteProtocolError):
        with_one(spec(), AGGREGATOR, asking)


def test_values_outside_the_public_range_are_told_of():
    given = setups(spec())
    given["c1"].table.columns[0, :4] = 40.0
    together = run_together(roles(given))
    text = "4 of 4,288 values of rows lie outside model.input_range, 0 to 16, and were clipped to it"
    assert together.results["c1"].notices == [Notice("warning", "values_clipped", text)]
    assert together.results["c0"].notices == []
