"""Training on columns with words, gaps and long tails; nothing of a held-out row reaches the model."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vfl.errors import SpecError
from vfl.flow import Together, run_together
from vfl.kinds import flow_of, kind_of, read_spec_as
from vfl.message import encode
from vfl.models.preparation import Preparation
from vfl.models.tensors import load_tensors
from vfl.planning.training import plan, resolve
from vfl.reports import Outcome
from vfl.schedule import held_out
from vfl.setup import Setup, Table
from vfl.spec.training import TrainingSpec

ROWS = 600
SEED = b"joint seed of the prepared columns"
Floats = NDArray[np.float64]

SPEC = """
job = {name = "prepared", task = "binary"}
roster = {label = "bank", features = ["telco"]}
train = {epochs = EPOCHS, batch_rows = 240, optimiser = {rate = 0.3, momentum = 0.9}}
encryption = {scheme = "SCHEME"}
[data.bank]
dataset = "loans"
label = "default"
columns = ["income", "job", "age"]
prepare = [
  { columns = ["income"], kind = "quantile", missing = "median" },
  { columns = ["job"], kind = "weight_of_evidence" },
  { kind = "bins", edges = 3, missing = "own_bin" },
]
[data.telco]
dataset = "usage"
columns = ["calls", "plan"]
prepare = [{ columns = ["plan"], kind = "one_hot", categories = 3 }, { columns = ["calls"], kind = "quantile" }]
"""


@dataclass(frozen=True)
class Rows:
    bank: Floats
    telco: Floats
    labels: Floats
    jobs: tuple[str, ...] = ("clerk", "nurse", "pilot", "smith")
    plans: tuple[str, ...] = ("basic", "free", "plus", "pro")

    def tables(self) -> dict[str, Table]:
        return {
            "bank": Table(bytes(32), self.bank, self.labels, words={1: self.jobs}),
            "telco": Table(bytes(32), self.telco, words={1: self.plans}),
        }


@pytest.fixture(scope="module")
def rows() -> Rows:
    random = np.random.default_rng(4)
    income, calls = random.lognormal(0, 2, ROWS), random.lognormal(0, 2, ROWS)
    job, plan_of, age = random.integers(0, 4, ROWS), random.integers(0, 4, ROWS), random.normal(50, 10, ROWS)
    score = np.log(calls) - np.log(income) + np.array([2, -2, 1, -1])[plan_of] + np.array([1, -1, 0, 0])[job]
    labels = (score + random.normal(0, 0.5, ROWS) > 0).astype(float)
    bank = np.column_stack([income, job, age]).astype(float)
    bank[::11, 0] = bank[::13, 1] = bank[::17, 2] = np.nan
    telco = np.column_stack([calls, plan_of]).astype(float)
    telco[::19, 1] = np.nan
    return Rows(bank, telco, labels)


def specification(*, scheme: str = "none", epochs: int = 4, text: str = SPEC) -> TrainingSpec:
    return resolve(read_spec_as(TrainingSpec, text.replace("SCHEME", scheme).replace("EPOCHS", str(epochs))))


def train(spec: TrainingSpec, rows: Rows) -> Together[Outcome]:
    return run_together(
        {
            party: flow_of(Setup(spec, party, {"rows": table}, SEED, party.encode() * 8))
            for party, table in rows.tables().items()
        }
    )


def tensors(together: Together[Outcome], party: str) -> dict[str, Any]:
    return load_tensors(together.results[party].state)


def test_words_gaps_and_long_tails_are_learned_from(rows: Rows) -> None:
    together = train(specification(epochs=20), rows)
    assert together.results["bank"].metrics["auc"] > 0.95
    spec = specification()
    assert (spec.data["bank"].prepared_width, spec.data["telco"].prepared_width) == (2 + 1 + 4, 3 + 1)
    assert tensors(together, "bank")["top.weights"].shape == (1, 7 + 4 + 1)


def test_the_same_is_trained_on_ciphertexts(rows: Rows) -> None:
    clear = train(specification(epochs=6), rows).results["bank"].metrics["auc"]
    encrypted = train(specification(scheme="ckks", epochs=6), rows).results["bank"].metrics["auc"]
    assert abs(clear - encrypted) < 0.02


def test_held_out_rows_may_be_anything_and_the_model_is_the_same(rows: Rows) -> None:
    """Also words, gaps and labels that no training row has; the codes of known words then differ too."""
    test = held_out(SEED, ROWS, 0.2)[1]
    bank, telco, labels = rows.bank.copy(), rows.telco.copy(), rows.labels.copy()
    bank[:, 1] += 1
    bank[test] = np.array([1e90, 0, np.nan])
    telco[test] = np.array([-1e90, 4])
    labels[test] = 1 - labels[test]
    other = replace(
        rows, bank=bank, telco=telco, labels=labels, jobs=("actor", *rows.jobs), plans=(*rows.plans, "zero")
    )
    first, second = train(specification(), rows), train(specification(), other)
    for party in ("bank", "telco"):
        mine, theirs = tensors(first, party), tensors(second, party)
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine), party
    assert first.results["bank"].metrics != second.results["bank"].metrics


def test_each_half_keeps_how_its_columns_are_prepared_and_words_stay_with_their_owner(rows: Rows) -> None:
    together = train(specification(), rows)
    kept = {party: tensors(together, party)["preparation"].tobytes() for party in ("bank", "telco")}
    assert Preparation.decode(kept["telco"]).names == ("calls", "plan")
    assert sum(word.encode() in kept["telco"] for word in rows.plans) == 3
    assert all(word.encode() in kept["bank"] for word in rows.jobs)
    assert not any(word.encode() in kept["bank"] for word in rows.plans)
    assert not any(word.encode() in kept["telco"] for word in rows.jobs)
    sent = b"".join(encode(line.message) for line in together.transcript if line.message)
    assert len(sent) > 1000
    assert not any(word.encode() in sent for word in (*rows.plans, *rows.jobs))


def test_the_plan_counts_prepared_columns_whatever_stands_in_them(rows: Rows) -> None:
    spec = specification(scheme="ckks")
    expected = plan(spec, ROWS)
    assert expected.opened_per_step == 7 + 4 + 1
    few = replace(rows, plans=("basic",), telco=rows.telco * [1, 0])
    assert train(specification(), few).transcript[0].kind == train(specification(), rows).transcript[0].kind
    together, with_few = train(specification(epochs=1), rows), train(specification(epochs=1), few)
    sizes = [[line.payload_bytes for line in each.transcript] for each in (together, with_few)]
    assert sizes[0] == sizes[1]


def test_a_floor_too_low_for_the_jobs_rho_is_warned_of_and_the_default_is_said() -> None:
    spec = specification(scheme="ckks", epochs=40)
    warnings = {notice.code: notice.text for notice in kind_of(spec).warnings(spec, plan(spec, ROWS))}
    assert "telco may bring a category of 20 rows" in warnings["rare_categories"]
    unsaid = specification(text=SPEC.replace('  { kind = "bins", edges = 3, missing = "own_bin" },\n', ""))
    told = {notice.code: notice.text for notice in kind_of(unsaid).warnings(unsaid)}
    assert "1 of 3 columns of bank" in told["columns_standardised"]
    assert "columns_standardised" not in warnings


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            'columns = ["plan"], kind',
            'columns = ["plans"], kind',
            "names 'plans', which is not among data.telco.columns",
        ),
        ('columns = ["calls"], kind', 'columns = ["calls", "plan"], kind', "data.telco.prepare names a column twice"),
        ('{ columns = ["calls"], kind', '{ kind = "standardise" }, { kind', "two entries without columns"),
        ("categories = 3", "categories = 0", "categories must lie between 1 and 100"),
        ("categories = 3", "categories = 3, least_rows = 0", "least_rows must be at least 1"),
        ("edges = 3", "edges = [2.0, 1.0]", "edges must be finite and ascend"),
        ("edges = 3", "edges = 0", "edges must be 1 to 100 in number"),
        ('"quantile" }]', '"weight_of_evidence" }]', "needs labels of two values"),
        ('"one_hot"', '"onehot"', "onehot"),
    ],
)
def test_steps_that_contradict_themselves_are_refused_by_name(old: str, new: str, told: str) -> None:
    assert old in SPEC
    with pytest.raises(SpecError) as refused:
        specification(text=SPEC.replace(old, new))
    assert told in f"{refused.value} {refused.value.fix}"
