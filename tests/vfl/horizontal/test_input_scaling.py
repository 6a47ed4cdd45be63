"""Columns of different scale: agreed ranges for each, or means and deviations pooled by a secure sum."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from rounds_federation import AGGREGATOR, roles, setups
from rounds_federation import spec as digits
from safetensors.torch import load

from vfl.errors import ImpossibleJob, RemoteProtocolError, SecureSumFailed, SpecConflict, SpecError
from vfl.flow import Delivery, Flow, Send, Together, run_together
from vfl.horizontal.input_scaling import pooled_scaling, scaling_in, words_of
from vfl.horizontal.rows import examples_of
from vfl.messages import ColumnScaling, MaskedReply
from vfl.reports import Outcome, RoundDone, Warned
from vfl.setup import Setup, Table
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import RoundsModel
from vfl.spec.sections import Optimiser

COLUMNS = ("age", "income", "since", "dose")
SCALES = ((56.0, 20.0), (52_000.0, 30_000.0), (1.7e9, 2.0), (3e-6, 1e-6))
"""Mean and deviation of each."""


def job(clients: int = 4, rounds: int = 2, **options) -> RoundsSpec:
    model = RoundsModel(
        network="mlp", hidden=(16, 8), input_shape=(len(COLUMNS),), label="label", columns=COLUMNS, norm="batch"
    )
    made = digits(clients, rounds, **options)
    made_job = msgspec.structs.replace(made.job, task="binary", classes=0)
    return msgspec.structs.replace(made, job=made_job, model=model)


def table(seed: int, rows: int) -> Table:
    draws = np.random.default_rng(seed)
    apart = draws.standard_normal((rows, len(COLUMNS)))
    means, deviations = np.array(SCALES).T
    return Table(bytes(32), means + deviations * apart, (apart.sum(axis=1) > 0).astype(np.float64))


def given(this: RoundsSpec, **more) -> dict[str, Setup[RoundsSpec]]:
    made = setups(digits(len(this.roster.clients), tables=tuple(this.tables_of(AGGREGATOR))))

    def own(party: str, at: int, setup: Setup[RoundsSpec]) -> Setup[RoundsSpec]:
        tables = {use: table(100 * at + n, 60 + 7 * at) for n, use in enumerate(setup.tables)}
        return replace(setup, spec=this, tables=tables, **(more if party == AGGREGATOR else {}))

    return {party: own(party, at, setup) for at, (party, setup) in enumerate(made.items())}


def run(this: RoundsSpec, **more) -> Together[Outcome]:
    return run_together(roles(given(this, **more)))


def joined(this: RoundsSpec) -> np.ndarray:
    return np.concatenate([given(this)[name].table.columns for name in this.roster.clients])


def test_pooled_means_and_deviations_are_those_of_the_joined_rows_whatever_the_scale():
    this = job()
    scaling = scaling_in(run(this).results[AGGREGATOR].state)
    rows = joined(this)
    assert scaling is not None
    assert scaling.zero == pytest.approx(rows.mean(axis=0), rel=1e-12)
    assert scaling.unit == pytest.approx(rows.std(axis=0), rel=1e-6)


def test_all_parties_keep_one_model_with_one_scaling_and_learn_from_it():
    together = run(job(rounds=12))
    assert len({outcome.state for outcome in together.results.values()}) == 1
    assert together.results[AGGREGATOR].metrics["accuracy"] > 0.75


def test_who_drops_out_of_the_sum_is_left_out_of_it_and_takes_part_in_rounds():
    this = job(clients=5)
    flows = roles(given(this))
    flows["c1"] = without_first_words(flows["c1"])
    together = run_together(flows)
    rows = np.concatenate([given(this)[name].table.columns for name in this.roster.clients if name != "c1"])
    scaling = scaling_in(together.results["c1"].state)
    assert scaling is not None
    assert scaling.zero == pytest.approx(rows.mean(axis=0), rel=1e-12)
    assert together.results[AGGREGATOR].series["replies"] == [5, 5]


def without_first_words(role: Flow[Outcome]) -> Flow[Outcome]:
    """A client whose first masked words do not come."""
    answer: Delivery | None = None
    silent = True
    try:
        while True:
            effect = role.send(answer)
            if silent and isinstance(effect, Send) and isinstance(effect.message, MaskedReply):
                answer, silent = Delivery(None), False
                continue
            answer = yield effect
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome


def test_only_sums_and_the_scaling_cross_before_round_one():
    together = run(job())
    kinds = [line.kind for line in together.transcript]
    before = set(kinds[: kinds.index("RoundTask")])
    sums = {"SumTask", "PairKey", "PairKeys", "SealedShares", "MaskedReply", "UnmaskTask", "UnmaskShares"}
    assert before == {"ClientReady", "ColumnScaling"} | sums


def test_a_run_continued_from_a_saved_state_equals_the_uninterrupted_one():
    this = job(rounds=3)
    whole = run(this)
    states = [fact.state for fact in whole.reports[AGGREGATOR] if isinstance(fact, RoundDone)]
    again = run(this, saved=states[0])
    assert again.results[AGGREGATOR].state == whole.results[AGGREGATOR].state
    assert not [line for line in again.transcript if line.kind == "SumTask"]


def test_a_constant_column_becomes_zero_and_is_named():
    this = job()
    made = given(this)
    for name in this.roster.clients:
        made[name].table.columns[:, 1] = 0.1
    together = run_together(roles(made))
    said = [fact.notice.text for fact in together.reports[AGGREGATOR] if isinstance(fact, Warned)]
    assert any("column 'income' is the same in every client's rows" in text for text in said)
    scaling = scaling_in(together.results[AGGREGATOR].state)
    inputs = examples_of(this, made["c0"].table, "training", scaling).inputs
    assert inputs[:, 1].abs().max() < 1e-6


def test_ranges_agreed_for_each_column_scale_each_by_its_own():
    ranges = {"age": (0.0, 100.0), "income": (0.0, 200_000.0), "since": (1.6e9, 1.8e9), "dose": (0.0, 1e-5)}
    this = msgspec.structs.replace(job(), model=msgspec.structs.replace(job().model, input_range=ranges))
    rows = given(this)["c0"].table
    low, high = np.array([ranges[name] for name in COLUMNS]).T
    scaled = (np.clip(rows.columns, low, high) - low) / (high - low)
    assert np.array_equal(examples_of(this, rows, "training").inputs.numpy(), scaled.astype(np.float32))
    together = run(this)
    assert not [line for line in together.transcript if line.kind in {"SumTask", "ColumnScaling"}]
    assert any(
        "column 'age' of rows lie outside model.input_range" in notice.text for notice in together.results["c0"].notices
    )


PARTS = {
    "shared_data": ('rule = "share"', ("test", "shared")),
    "model_inversion": ("warm_up = 1\nsteps = 2\nserver_steps = 2", ("test",)),
    "compressed_sync": ("", ("test",)),
    "backbone_decoder": ('cut = "features"\nderive = "student"\nalign_epochs = 1', ("test", "public", "validation")),
}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_works_on_pooled_columns(part):
    terms, tables = PARTS[part]
    this = job(rounds=1, parts=[part], tables=tables, extra=f"[rounds.{part}]\n{terms}")
    assert scaling_in(run(this).results[AGGREGATOR].state) is not None


def test_fewer_than_three_clients_are_told_to_agree_on_ranges():
    with pytest.raises(SpecConflict, match="X14") as refused:
        job(clients=2)
    assert "model.input_range = [low, high]" in refused.value.fix


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"input_range": {"age": (0.0, 1.0)}}, "gives every column"),
        ({"input_range": (1.0, 1.0)}, "the first is below"),
        ({"input_range": (0.0, float("inf"))}, "finite"),
        ({"input_shape": (1, 2, 2)}, "images"),
    ],
)
def test_ranges_that_cannot_be_are_refused(change, text):
    with pytest.raises(SpecError, match=text):
        msgspec.structs.replace(job(), model=msgspec.structs.replace(job().model, **change))


def forged(flow: Flow[Outcome], message: ColumnScaling) -> Flow[Outcome]:
    """An aggregator that sends this scaling."""
    answer = None
    while True:
        effect = flow.send(answer)
        if isinstance(effect, Send) and isinstance(effect.message, ColumnScaling):
            effect = Send(effect.to, message)
        answer = yield effect


@pytest.mark.parametrize(
    ("means", "deviations"),
    [([0.0], [1.0]), ([0.0] * 4, [0.0] * 4), ([float("nan")] * 4, [1.0] * 4), ([1e300] * 4, [1.0] * 4)],
    ids=["too short", "no deviation", "not a number", "beyond all values"],
)
def test_a_client_refuses_a_scaling_that_no_columns_have(means, deviations):
    flows = roles(given(job()))
    flows[AGGREGATOR] = forged(
        flows[AGGREGATOR], ColumnScaling(np.array(means).tobytes(), np.array(deviations).tobytes())
    )
    with pytest.raises(RemoteProtocolError, match="the scaling that the aggregator sent"):
        run_together(flows)


@pytest.mark.parametrize("spoilt", [0, 1, 9], ids=["rows", "sum", "sum of squares"])
def test_a_sum_that_is_of_no_rows_is_refused(spoilt):
    words = np.array([words_of(table(n, 50).columns) for n in range(3)]).sum(axis=0)
    pooled_scaling(words)
    words[spoilt : spoilt + 5] = np.uint64(1 << 60)
    with pytest.raises(SecureSumFailed):
        pooled_scaling(words)


def state_says(state: bytes) -> list[float]:
    scaling = scaling_in(state)
    assert scaling is not None
    return [*scaling.zero, *scaling.unit]


def test_a_job_from_a_registered_model_keeps_its_scaling_or_is_refused():
    this = job(rounds=1)
    model = run(this).results[AGGREGATOR].state
    on = msgspec.structs.replace(this, model=msgspec.structs.replace(this.model, first_model="00"))
    again = run(on, model=model)
    assert load(again.results[AGGREGATOR].state).keys() == load(model).keys()
    assert state_says(again.results[AGGREGATOR].state) == state_says(model)
    assert not [line for line in again.transcript if line.kind == "SumTask"]
    other = msgspec.structs.replace(on, model=msgspec.structs.replace(on.model, input_range=(0.0, 9.0)))
    with pytest.raises(ImpossibleJob, match="with another scaling"):
        run(other, model=model)


def test_aggregator_and_clients_are_warned_where_nothing_was_learned():
    one_for_all = msgspec.structs.replace(job().model, norm="none", input_range=(0.0, 2e9))
    train = msgspec.structs.replace(job().train, optimiser=Optimiser(rate=1e-4))
    still = msgspec.structs.replace(job(rounds=3), model=one_for_all, train=train)
    for stuck, outcomes in ((True, run(still).results), (False, run(job(rounds=6)).results)):
        told = {party: "loss_standstill" in [n.code for n in outcome.notices] for party, outcome in outcomes.items()}
        assert set(told.values()) == {stuck}, told
