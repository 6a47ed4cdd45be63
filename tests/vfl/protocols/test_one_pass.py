"""A linear model from encrypted sums over all rows, both parties in one process."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

import crypto.moments
from crypto.moments_parameters import MomentsScale
from vfl.errors import RemoteProtocolError
from vfl.flow import Flow, Send, Together, run_together
from vfl.kinds import flow_of, kind_of, read_spec_as
from vfl.models.halves import FeatureHalf, LabelHalf
from vfl.models.ridge import Moments, fit
from vfl.models.tensors import load_tensors
from vfl.one_pass_messages import SumsOverRows
from vfl.planning.one_pass import folds, scored_as
from vfl.protocols.label_sums import LabelSums
from vfl.reports import Outcome
from vfl.setup import Setup, Table
from vfl.spec.one_pass import OnePassSpec

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
LABEL, FEATURE = "bank", "telco"
OWN, THEIRS = 2, 4
ROWS = 3000


def specification(task: str, fit: str = "penalties = [0.01]\nfolds = 1", prepare: str = "[]") -> OnePassSpec:
    classes = "classes = 3" if task == "multiclass" else ""
    return read_spec_as(
        OnePassSpec,
        f"""
        [job]
        name = "test"
        protocol = "one_pass"
        task = "{task}"
        {classes}
        [roster]
        label = "{LABEL}"
        features = ["{FEATURE}"]
        [fit]
        {fit}
        [data]
        {LABEL} = {{ dataset = "l", label = "y", columns = {[f"x{i}" for i in range(OWN)]} }}
        {FEATURE} = {{ dataset = "f", columns = {[f"z{i}" for i in range(THEIRS)]}, prepare = {prepare} }}
        """,
    )


def rows(task: str) -> tuple[Floats, Floats]:
    """Columns of both parties, those of the label party first, and labels."""
    rng = np.random.default_rng(3)
    mix = np.eye(OWN + THEIRS) + 0.3 * rng.normal(size=(OWN + THEIRS,) * 2)
    columns = rng.normal(size=(ROWS, OWN + THEIRS)) @ mix
    scores = columns @ rng.normal(size=(OWN + THEIRS, 3)) + rng.normal(size=(ROWS, 3))
    if task == "regression":
        return columns, 50 + 3 * scores[:, 0]
    return columns, (scores[:, 0] > 1 if task == "binary" else scores.argmax(axis=1)).astype(np.float64)


def setups(spec: OnePassSpec, columns: Floats, labels: Floats) -> dict[str, Setup[OnePassSpec]]:
    seed = hashlib.sha256(b"joint").digest()
    parts = {LABEL: (columns[:, :OWN], labels), FEATURE: (columns[:, OWN:], None)}
    return {
        party: Setup(spec, party, {"rows": Table(bytes(32), *part)}, seed, hashlib.sha256(party.encode()).digest())
        for party, part in parts.items()
    }


def train(spec: OnePassSpec, columns: Floats, labels: Floats) -> Together[Outcome]:
    return run_together({party: flow_of(setup) for party, setup in setups(spec, columns, labels).items()})


def joined(spec: OnePassSpec, together: Together[Outcome], columns: Floats, rows: NDArray[np.int64]) -> Floats:
    """These rows as the two halves of the model prepare them, in one table."""
    training = scored_as(spec)
    theirs = FeatureHalf.read(training, FEATURE, together.results[FEATURE].state).embed(columns[rows, OWN:], {})
    own = LabelHalf.read(training, together.results[LABEL].state).own(columns[rows, :OWN], {})
    return np.column_stack([theirs, own])


@pytest.mark.parametrize("task", ["binary", "regression", "multiclass"])
def test_the_coefficients_are_those_of_ridge_on_the_joined_table(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto.moments, "gaussian", lambda shape, deviation: np.zeros(shape))
    spec, (columns, labels) = specification(task), rows(task)
    together = train(spec, columns, labels)
    used = setups(spec, columns, labels)[LABEL].training_rows
    targets: Floats = {
        "binary": 4 * labels[:, None] - 2,
        "regression": np.clip((labels - labels[used].mean()) / labels[used].std(), -3, 3)[:, None],
        "multiclass": 4 * (labels[:, None] == np.arange(3)) - 2.0,
    }[task]
    table = joined(spec, together, columns, used)
    expected = Ridge(alpha=0.01 * len(used)).fit(table, targets[used])
    weights = load_tensors(together.results[LABEL].state)["top.weights"]
    assert np.abs(weights[:, :-1] - expected.coef_).max() < 1e-6
    assert np.abs(weights[:, -1] - expected.intercept_).max() < 1e-6


def test_the_noise_of_the_sums_moves_coefficients_by_less_than_a_thousandth_of_their_sampling_error() -> None:
    spec, (columns, labels) = specification("regression"), rows("regression")
    first, second = (load_tensors(train(spec, columns, labels).results[LABEL].state)["top.weights"] for _ in range(2))
    assert 0 < np.abs(first - second).max() < 1e-3 / ROWS**0.5


def test_standard_errors_are_those_of_ridge_on_the_joined_table_in_clear() -> None:
    spec, (columns, labels) = specification("regression"), rows("regression")
    together = train(spec, columns, labels)
    outcome = together.results[LABEL]
    used = setups(spec, columns, labels)[LABEL].training_rows
    y = labels[used]
    low, high = y.mean() - 3 * y.std(), y.mean() + 3 * y.std()
    table = np.column_stack([joined(spec, together, columns, used), np.ones(len(used))])
    penalty = 0.01 * len(used) * np.diag([*np.ones(OWN + THEIRS), 0])
    hat = np.linalg.solve(table.T @ table + penalty, table.T)
    coefficients = hat @ np.clip(y, low, high)
    left = np.clip(y, low, high) - table @ coefficients
    errors = np.sqrt(np.diagonal(hat @ hat.T) * (left @ left) / (len(used) - np.trace(table @ hat)))
    z = coefficients / errors
    assert outcome.series["coefficient"] == pytest.approx(coefficients, rel=1e-4, abs=1e-4)
    assert outcome.series["coefficient_error"] == pytest.approx(errors, rel=1e-4)
    assert outcome.series["coefficient_z"] == pytest.approx(z, rel=1e-3, abs=1e-3)
    assert outcome.series["coefficient_p"] == pytest.approx(2 * norm.sf(np.abs(z)), rel=1e-2, abs=1e-300)
    assert [name for _, name in spec.inputs] == ["z0", "z1", "z2", "z3", "x0", "x1", "constant"]


def test_nineteen_in_twenty_coefficients_lie_within_two_standard_errors() -> None:
    rng, inside = np.random.default_rng(8), []
    true = np.array([1.0, -0.5, 0.2, 0.0, 0.0, 2.0])
    for _ in range(200):
        table = np.column_stack([rng.normal(size=(400, 5)), np.ones(400)])
        t = table @ true + rng.normal(size=400)
        solved = fit([Moments(400, table.T @ table, (table.T @ t)[:, None], np.array([t @ t]))], [1e-9])
        found = solved.coefficients(0.0, 1.0)
        distances = np.abs(np.array(found["coefficient"]) - true) / found["coefficient_error"]
        inside.append((distances < 1.96).mean())
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_an_input_that_stays_out_of_the_sums_has_no_standard_error_and_a_class_model_has_none_at_all() -> None:
    columns, labels = with_a_rare_value()
    of_rare = train(specification("regression", RARE.format(30)), columns, labels).results[LABEL].series
    assert np.flatnonzero(np.isnan(of_rare["coefficient_error"])).tolist() == [THEIRS - 1]
    assert of_rare["coefficient"][THEIRS - 1] == 0
    assert "coefficient" not in train(specification("binary"), *rows("binary")).results[LABEL].series


def test_held_out_rows_are_scored_by_the_model_and_compared_with_own_columns_alone() -> None:
    spec, (columns, labels) = specification("binary"), rows("binary")
    together = train(spec, columns, labels)
    held_out = setups(spec, columns, labels)[LABEL].test_rows
    weights = load_tensors(together.results[LABEL].state)["top.weights"]
    scores = joined(spec, together, columns, held_out) @ weights[0, :-1] + weights[0, -1]
    metrics = together.results[LABEL].metrics
    assert metrics["auc"] == pytest.approx(roc_auc_score(labels[held_out], scores), abs=1e-3)
    assert metrics["own_columns_auc"] < metrics["auc"]


def test_the_penalty_is_the_one_of_least_error_on_the_folds_that_a_fit_left_out() -> None:
    spec, (columns, labels) = (
        specification("regression", "penalties = [1e-4, 0.01, 10.0]\nfolds = 3"),
        rows("regression"),
    )
    together = train(spec, columns, labels)
    outcome = together.results[LABEL]
    setup = setups(spec, columns, labels)[LABEL]
    table = joined(spec, together, columns, setup.training_rows)
    y = labels[setup.training_rows]
    targets = np.clip((y - y.mean()) / y.std(), -3, 3)
    errors = []
    at = {row: place for place, row in enumerate(setup.training_rows.tolist())}
    parts = [np.array([at[row] for row in part.tolist()]) for part in folds(setup.joint_seed, setup.training_rows, 3)]
    for penalty in spec.fit.penalties:
        total = 0.0
        for part in parts:
            rest = np.setdiff1d(np.arange(len(y)), part)
            model = Ridge(alpha=penalty * len(rest)).fit(table[rest], targets[rest])
            total += float(np.square(targets[part] - model.predict(table[part])).sum())
        errors.append(total / len(y))
    assert outcome.series["penalty"] == list(spec.fit.penalties)
    assert outcome.series["penalty_error"] == pytest.approx(errors, rel=1e-3)
    best = spec.fit.penalties[int(np.argmin(errors))]
    assert f"the penalty of the weights is {best:g}" in outcome.notices[0].text


def test_every_row_is_touched_once_and_the_plan_knows_what_travels() -> None:
    spec, (columns, labels) = specification("binary", "folds = 3"), rows("binary")
    together = train(spec, columns, labels)
    plan = kind_of(spec).plan(spec, LABEL, ROWS)
    sent = dict.fromkeys(plan.payload_bytes, 0)
    for line in together.transcript:
        if line.kind in sent:
            sent[line.kind] += line.payload_bytes
    for kind, size in plan.payload_bytes.items():
        assert size <= sent[kind] <= 1.05 * size + 1000
    limits = kind_of(spec).message_limits(spec, ROWS)
    assert all(line.payload_bytes <= limits[line.kind] for line in together.transcript)
    assert sum(line.kind == "EncryptedBlocks" for line in together.transcript) == plan.steps == 3


def test_opened_values_are_as_many_as_the_plan_reveals() -> None:
    spec = specification("binary", "folds = 3")
    (line,) = (line for line in kind_of(spec).plan(spec, LABEL, ROWS).reveals if line.message == "SumsOverRows")
    with_own_columns_target_and_check, pairs, alone = THEIRS * (OWN + 2), THEIRS * (THEIRS + 1) // 2, THEIRS
    assert line.values == 3 * (with_own_columns_target_and_check + pairs + alone)


def with_a_rare_value() -> tuple[Floats, Floats]:
    """The last column of the feature party is 1 in two rows, 0 in all others."""
    columns, labels = rows("regression")
    columns[:, -1] = 0
    columns[setups(specification("regression"), columns, labels)[LABEL].training_rows[[10, 500]], -1] = 1
    return columns, labels


def looked_up(spec: OnePassSpec, columns: Floats, labels: Floats) -> list[int]:
    """The label party looks for two rows of its own whose values add up to the sums it read of the last column."""
    read = dict[str, Any]()

    def observed(fold: int, with_columns: Floats, theirs: Floats) -> None:
        read["sums"], read["mean"] = with_columns[-1], theirs[-1, -1]

    setup = setups(spec, columns, labels)[LABEL]
    together = train_observed(spec, columns, labels, observed)
    own = LabelHalf.read(scored_as(spec), together.results[LABEL].state).own(columns[:, :OWN], {})[setup.training_rows]
    y = labels[setup.training_rows]
    mine = np.column_stack([own, np.clip((y - y.mean()) / y.std(), -3, 3)])
    # A standardised column of two ones: high in these rows, the same low value in all others, and clipped at 3.
    share = 2 / len(mine)
    low = -share / (share * (1 - share)) ** 0.5
    pairs = (read["sums"] - low * mine.sum(axis=0)) / (3 - low)
    first, second = np.triu_indices(len(mine), 1)
    distances = np.abs(mine[first] + mine[second] - pairs).sum(axis=1)
    best = int(distances.argmin())
    return [int(setup.training_rows[first[best]]), int(setup.training_rows[second[best]])]


def train_observed(
    spec: OnePassSpec, columns: Floats, labels: Floats, observe: Callable[[int, Floats, Floats], None]
) -> Together[Outcome]:
    with pytest.MonkeyPatch.context() as patch:
        add = LabelSums.add

        def seen(side: LabelSums, fold: int, with_columns: Floats, theirs: Floats) -> None:
            observe(fold, with_columns, theirs)
            add(side, fold, with_columns, theirs)

        patch.setattr(LabelSums, "add", seen)
        return train(spec, columns, labels)


RARE = "penalties = [0.01]\nfolds = 1\nleast_rows = {}"


def test_without_a_floor_a_look_up_finds_the_rows_of_a_rare_value() -> None:
    columns, labels = with_a_rare_value()
    ones = np.flatnonzero(columns[:, -1]).tolist()
    assert looked_up(specification("regression", RARE.format(1)), columns, labels) == ones


def test_with_the_floor_the_sums_of_a_rare_value_are_zero_and_its_owner_hears_of_it() -> None:
    columns, labels = with_a_rare_value()
    spec = specification("regression", RARE.format(30))
    assert looked_up(spec, columns, labels) != np.flatnonzero(columns[:, -1]).tolist()
    outcome = train(spec, columns, labels)
    assert load_tensors(outcome.results[LABEL].state)["top.weights"][0, THEIRS - 1] == 0
    assert [notice.code for notice in outcome.results[FEATURE].notices].count("rare_values_left_out") == 1


PACKED = 16
"""Rows of which a dishonest label party reads a value in each sum."""


def packed(targets: Rows) -> Callable[[LabelSums, int, Rows], Floats]:
    """A label party that encrypts, in place of its first column, another power of two in each of these rows."""
    columns = LabelSums.columns

    def dishonest(side: LabelSums, fold: int, rows: Rows) -> Floats:
        encrypted = columns(side, fold, rows)
        powers = {int(row): 2.0 ** (place - PACKED // 2) for place, row in enumerate(targets)}
        encrypted[:, 0] = [powers.get(row, 0.0) for row in rows.tolist()]
        return encrypted

    return dishonest


def test_a_label_party_that_deviates_reads_values_of_single_rows_and_the_plan_counts_every_sum_it_takes() -> None:
    spec, (columns, labels) = specification("regression"), rows("regression")
    columns[:, OWN:] = columns[:, OWN:] > 0
    training_rows = setups(spec, columns, labels)[LABEL].training_rows
    targets, read = training_rows[:: len(training_rows) // PACKED][:PACKED], list[Floats]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelSums, "columns", packed(targets))
        together = train_observed(spec, columns, labels, lambda _, sums, __: read.append(sums[:, 0].copy()))
    assert MomentsScale(len(training_rows)).bits_of_a_sum >= PACKED
    half = FeatureHalf.read(scored_as(spec), FEATURE, together.results[FEATURE].state)
    zero, one = half.embed(np.array([[0.0] * THEIRS, [1.0] * THEIRS]), {})
    powers = 2.0 ** (np.arange(PACKED) - PACKED // 2)
    digits = np.rint((read[0] - zero * powers.sum()) / (one - zero) / powers[0]).astype(np.int64)
    found = digits[None, :] >> np.arange(PACKED)[:, None] & 1
    assert (found == columns[targets, OWN:]).all()
    (line,) = (line for line in kind_of(spec).plan(spec, LABEL, ROWS).reveals if line.message == "SumsOverRows")
    of_own, of_labels, check, of_theirs = THEIRS * OWN, THEIRS, THEIRS, THEIRS * (THEIRS + 1) // 2 + THEIRS
    assert line.values == of_own + of_labels + check + of_theirs


def changed(role: Flow[Outcome], change: Callable[[SumsOverRows], SumsOverRows]) -> Flow[Outcome]:
    """A feature party that sends other sums than it computed."""
    answer = None
    while True:
        try:
            effect = role.send(answer)
        except StopIteration as stop:
            result: Outcome = stop.value
            return result
        if isinstance(effect, Send) and isinstance(effect.message, SumsOverRows):
            effect = Send(effect.to, change(effect.message))
        answer = yield effect


def moved(sums: SumsOverRows) -> SumsOverRows:
    words = np.frombuffer(sums.words, "<u8").copy()
    words[0] = (words[0] + np.uint64(1 << 57)) % np.uint64(1 << 59)
    return SumsOverRows(sums.step, sums.polynomials, words.tobytes(), sums.own)


def beyond_bound(sums: SumsOverRows) -> SumsOverRows:
    own = np.frombuffer(sums.own, "<i8").copy()
    own[0] *= 2
    return SumsOverRows(sums.step, sums.polynomials, sums.words, own.tobytes())


@pytest.mark.parametrize(("change", "says"), [(moved, "not sums over"), (beyond_bound, "sums of squares")])
def test_sums_that_no_honest_feature_party_sends_end_the_job_and_name_it(
    change: Callable[[SumsOverRows], SumsOverRows], says: str
) -> None:
    spec, (columns, labels) = specification("binary"), rows("binary")
    of_parties = setups(spec, columns, labels)
    roles = {LABEL: flow_of(of_parties[LABEL]), FEATURE: changed(flow_of(of_parties[FEATURE]), change)}
    with pytest.raises(RemoteProtocolError, match=f"{FEATURE} sent.*{says}"):
        run_together(roles)
