"""Shared-data as a part of rounds: the rule feddu, its limit cases, and what is pooled (shared_data.md)."""

import itertools
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from rounds_federation import AGGREGATOR, roles, run, setups, spec
from safetensors.torch import load

from vfl.errors import SpecConflict
from vfl.flow import Together, run_together
from vfl.messages import MaskedReply, Published, RoundReply, SharedRows
from vfl.reports import Outcome, RoundDone
from vfl.setup import Table
from vfl.spec.rounds import RoundsSpec


def shared(
    rule: str = "feddu", *, clients: int = 4, rounds: int = 3, per_round: int = 3, **terms: object
) -> RoundsSpec:
    rest = "".join(
        f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}\n" for name, value in terms.items()
    )
    return spec(
        clients=clients,
        rounds=rounds,
        per_round=per_round,
        parts=["shared_data"],
        tables=("test", "shared"),
        extra=f'allow = ["undo"]\n[rounds.shared_data]\nrule = "{rule}"\nepochs = 2\n{rest}',
    )


def skewed(job: RoundsSpec) -> dict[str, Table]:
    """Clients' rows sorted by label: nobody mixes like the others."""
    given = {name: setups(job)[name].table for name in job.roster.clients}
    columns = np.concatenate([table.columns for table in given.values()])
    labels = np.concatenate([table.labels for table in given.values() if table.labels is not None])
    order, start, dealt = np.argsort(labels, kind="stable"), 0, {}
    for name, table in given.items():
        at = order[start : start + len(table.columns)]
        start += len(at)
        dealt[name] = Table(bytes(32), columns[at], labels[at])
    return dealt


def run_skewed(job: RoundsSpec, *, permuted: bool = False, saved: bytes = b"") -> Together[Outcome]:
    given = setups(job, saved)
    for name, table in skewed(job).items():
        given[name] = replace(given[name], tables={"rows": table})
    if permuted:
        tables = dict(given[AGGREGATOR].tables)
        rows = tables["shared"]
        assert rows.labels is not None
        tables["shared"] = Table(rows.ids_digest, rows.columns, np.random.default_rng(1).permutation(rows.labels))
        given[AGGREGATOR] = replace(given[AGGREGATOR], tables=tables)
    return run_together(roles(given))


def measures(together: Together[Outcome], name: str) -> list[float]:
    return [fact.measures[name] for fact in together.reports[AGGREGATOR] if isinstance(fact, RoundDone)]


def without_notices(outcome: Outcome) -> tuple[bytes, list[float]]:
    return outcome.state, outcome.series["accuracy"]


def test_rule_none_equals_averaging_bit_for_bit():
    plain = spec(clients=4, rounds=2, per_round=3, tables=("test", "shared"))
    assert without_notices(run(shared("none", rounds=2)).results[AGGREGATOR]) == without_notices(
        run(plain).results[AGGREGATOR]
    )


def test_with_every_client_chosen_the_published_rule_is_plain_averaging_and_the_clients_rule_acts():
    plain = run_skewed(spec(clients=4, rounds=2, tables=("test", "shared")))
    published = run_skewed(shared(rounds=2, per_round=0))
    assert measures(published, "shared_step") == [0, 0]
    assert published.results[AGGREGATOR].state == plain.results[AGGREGATOR].state
    ours = run_skewed(shared(rounds=2, per_round=0, divergence="clients"))
    assert min(measures(ours, "shared_step")) > 0.1


def test_every_quantity_of_the_formula_is_reported_each_round():
    together = run_skewed(shared())
    for name in ("cohort_divergence", "shared_divergence", "shared_omega", "shared_accuracy", "shared_step"):
        assert all(0 <= value <= 1 for value in measures(together, name)), name
    for step, effective in zip(
        measures(together, "shared_step"), measures(together, "shared_effective_steps"), strict=True
    ):
        assert effective == pytest.approx(step * 2 * 16)  # two epochs of ceil(160 / 10) batches
    assert {"shared_loss_before", "shared_loss_after", "shared_undone"} <= together.results[AGGREGATOR].series.keys()
    assert "160 shared rows were trained on and 40 held out" in together.results[AGGREGATOR].notices[-1].text


def counts_of(table: Table) -> NDArray[np.int64]:
    assert table.labels is not None
    return np.bincount(table.labels.astype(np.int64), minlength=10)


def test_the_divergences_are_those_of_the_clients_true_counts():
    job = shared(rounds=1)
    together, dealt = run_skewed(job), skewed(job)
    replied = {line.sender for line in together.transcript if isinstance(line.message, RoundReply)}

    def mix(names: set[str]) -> NDArray[np.float64]:
        counts = np.sum([counts_of(dealt[name]) for name in names], axis=0, dtype=np.float64)
        return np.asarray(counts / counts.sum())

    p, q = mix(replied), mix(set(dealt))
    middle = (p + q) / 2
    expected = sum(0.5 * float((x[x > 0] * np.log2(x[x > 0] / middle[x > 0])).sum()) for x in (p, q))
    assert measures(together, "cohort_divergence") == [pytest.approx(expected)]


def test_no_clients_counts_are_in_the_transcript():
    job = shared(rounds=2)
    together, dealt = run_skewed(job), skewed(job)
    masked = [(line.sender, m) for line in together.transcript if isinstance(m := line.message, MaskedReply)]
    assert len(masked) == 4 + 2 * 3
    for sender, message in masked:
        value = np.frombuffer(message.words, "<u8")
        assert not np.array_equal(value, counts_of(dealt[sender]))
        assert (value > 1 << 40).all()  # uniform words of 64 bits, not counts


def test_shared_rows_whose_labels_were_permuted_are_undone():
    plain = run_skewed(spec(clients=4, rounds=3, per_round=3, tables=("test", "shared")))
    together = run_skewed(shared("fixed"), permuted=True)
    assert measures(together, "shared_undone") == [1, 1, 1]
    assert together.results[AGGREGATOR].state == plain.results[AGGREGATOR].state
    harmed = run_skewed(shared("fixed", undo=False), permuted=True)
    assert harmed.results[AGGREGATOR].state != plain.results[AGGREGATOR].state


@pytest.mark.parametrize("rule", ["feddu", "fixed", "hybrid", "share"])
def test_every_rule_helps_clients_that_hold_few_classes(rule):
    plain = run_skewed(spec(clients=4, rounds=4, per_round=3, tables=("test", "shared")))
    together = run_skewed(shared(rule, rounds=4))
    assert measures(together, "accuracy")[-1] > measures(plain, "accuracy")[-1]


def test_rows_are_handed_out_once_to_each_client_and_only_under_the_rule_share():
    assert not [line for line in run(shared("hybrid")).transcript if isinstance(line.message, SharedRows)]
    given = [line.receiver for line in run(shared("share")).transcript if isinstance(line.message, SharedRows)]
    assert len(given) == len(set(given))


def test_estimated_counts_ask_nobody_and_say_so():
    together = run_skewed(shared(counts="estimate"))
    assert not [line for line in together.transcript if isinstance(line.message, MaskedReply)]
    assert "class mixes of clients are estimates" in [notice.text for notice in together.results[AGGREGATOR].notices]


def test_a_regression_bins_its_label():
    job = shared(rounds=1)
    text = replace_task(job)
    together = run_together(roles(with_numbers(text)))
    assert 0 <= measures(together, "shared_omega")[0] <= 1
    assert "r2" in together.results[AGGREGATOR].metrics


def replace_task(job: RoundsSpec) -> RoundsSpec:
    return msgspec.structs.replace(job, job=msgspec.structs.replace(job.job, task="regression", classes=0))


def with_numbers(job: RoundsSpec):
    given = setups(job)
    for party, setup in given.items():
        tables = {
            use: Table(table.ids_digest, table.columns, table.columns.sum(1) / 300)
            for use, table in setup.tables.items()
        }
        given[party] = replace(setup, tables=tables)
    return given


@pytest.mark.parametrize(
    "terms", [{}, {"momentum": 0.9}, {"counts": "estimate"}], ids=["pooled", "momentum", "estimate"]
)
def test_a_run_continued_from_a_saved_state_equals_the_uninterrupted_one(terms):
    job = shared(rounds=4, **terms)
    whole = run_skewed(job)
    states = [fact.state for fact in whole.reports[AGGREGATOR] if isinstance(fact, RoundDone)]
    assert run_skewed(job, saved=states[1]).results[AGGREGATOR] == whole.results[AGGREGATOR]


def test_no_momentum_is_momentum_of_nothing():
    assert run_skewed(shared(momentum=0.0)).results[AGGREGATOR] == run_skewed(shared()).results[AGGREGATOR]


def test_the_published_model_is_the_same_at_every_client():
    together = run(shared())
    digests = {m.model_digest for line in together.transcript if isinstance(m := line.message, Published)}
    assert len(digests) == 1
    states = [load(outcome.state) for outcome in together.results.values()]
    assert all(np.array_equal(a[name], b[name]) for a, b in itertools.pairwise(states) for name in a)


def test_the_part_needs_shared_rows_and_undo_is_waived_by_name_only():
    with pytest.raises(SpecConflict, match="X10"):
        spec(parts=["shared_data"])
    with pytest.raises(SpecConflict, match="undo") as refused:
        spec(parts=["shared_data"], tables=("test", "shared"), extra="[rounds.shared_data]\nundo = false")
    assert 'allow = ["undo"]' in refused.value.fix
