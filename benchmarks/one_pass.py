"""A linear model in one pass over a million rows against the product's own encrypted steps, in one run.

    python benchmarks/one_pass.py [--format json] [--rows 1000000] [--seeds 3]

16 columns of the feature party, 8 of the label party, normal numbers, both parties' roles in one process on one core;
seconds are the processor's, because the machine may be shared.

- rows_per_second: training rows over the time of their sums: encrypted, multiplied, answered, opened
- bytes_per_row: of all messages until the model is there
- one_pass_seconds: from the tables to the model; columns are prepared and the penalty chosen in it
- gradient_steps_seconds: 20 epochs of encrypted steps of 4,096 rows, from the time of a few steps of this run
- time_to_model_over_steps: the second over the first
- error: largest difference of a coefficient from that of scikit-learn's ridge on the joined table
- credit_default: held-out AUC by how columns are prepared, mean over seeds; needs the two files that
  `benchmarks/credit_default.py` needs, and is empty without them
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from credit_default import DATA, FEATURE, LABEL, load_both, write_raw
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

import crypto.moments
from vfl.flow import Flow, Report, Together, run_together
from vfl.kinds import flow_of, read_spec
from vfl.models.halves import FeatureHalf, LabelHalf
from vfl.models.tensors import load_tensors
from vfl.planning.one_pass import scored_as
from vfl.planning.training import resolve
from vfl.reports import Outcome, Remark, StepDone
from vfl.setup import Setup, Table
from vfl.spec.joined_rows import JoinedRowsSpec
from vfl.spec.one_pass import OnePassSpec
from vfl.spec.training import TrainingSpec

Floats = NDArray[np.float64]

THEIRS, OWN, BATCH, EPOCHS, STEPS = 16, 8, 4096, 20, 10
PENALTY = 0.001
SCORING = {"EncryptedWeights", "EncryptedScores"}


def seed_of(purpose: str) -> bytes:
    return hashlib.sha256(purpose.encode()).digest()


def generated(rows: int) -> tuple[Floats, Floats, Floats]:
    """The feature party's columns, the label party's, and labels."""
    draws = np.random.default_rng(0)
    z, x = draws.normal(size=(rows, THEIRS)), draws.normal(size=(rows, OWN))
    score = z @ np.linspace(-1, 1, THEIRS) + x @ np.linspace(1, 0, OWN) + draws.normal(size=rows)
    return z, x, (score > 1).astype(np.float64)


def specification(protocol: str, terms: str) -> JoinedRowsSpec:
    spec = read_spec(
        f"""
        job = {{ name = "benchmark", protocol = "{protocol}", task = "binary", seed = 0 }}
        roster = {{ label = "{LABEL}", features = ["{FEATURE}"] }}
        split = {{ test = 0.01 }}
        {terms}
        [data]
        {LABEL} = {{ dataset = "l", label = "y", columns = {[f"x{i}" for i in range(OWN)]} }}
        {FEATURE} = {{ dataset = "f", columns = {[f"z{i}" for i in range(THEIRS)]} }}
        """
    )
    if not isinstance(spec, JoinedRowsSpec):
        raise TypeError(protocol)
    return spec


def setups(spec: JoinedRowsSpec, tables: dict[str, Table], seed: str = "") -> dict[str, Setup[Any]]:
    return {
        party: Setup(spec, party, {"rows": table}, seed_of(f"joint {seed}"), seed_of(f"{party} {seed}"))
        for party, table in tables.items()
    }


def watched(flow: Flow[Outcome], see: Callable[[object], object]) -> Flow[Outcome]:
    """The same role; `see` is told each fact that it reports."""
    effect = next(flow)
    while True:
        if isinstance(effect, Report):
            see(effect.fact)
        try:
            effect = flow.send((yield effect))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def together(
    spec: JoinedRowsSpec, tables: dict[str, Table], see: Callable[[object], object] = bool
) -> Together[Outcome]:
    roles = {party: flow_of(setup) for party, setup in setups(spec, tables).items()}
    return run_together(roles | {LABEL: watched(roles[LABEL], see)}, keep_messages=False)


class Clock:
    """Processor time inside the methods that it stands in front of; nothing in the product knows of it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timing(self, owner: type[Any], name: str) -> None:
        method = getattr(owner, name)

        def timed(*arguments: Any) -> Any:
            start = time.process_time()
            try:
                return method(*arguments)
            finally:
                self.seconds += time.process_time() - start

        setattr(owner, name, timed)


def one_pass(z: Floats, x: Floats, labels: Floats) -> dict[str, float]:
    spec = specification("one_pass", "")
    tables = {LABEL: Table(bytes(32), x, labels), FEATURE: Table(bytes(32), z)}
    clock, marks = Clock(), list[float]()
    for owner, name in (
        (crypto.moments.ColumnsKey, "encrypt"),
        (crypto.moments.ColumnsKey, "open"),
        (crypto.moments.EncryptedColumns, "block"),
        (crypto.moments.RunningSums, "add"),
        (crypto.moments.RunningSums, "answer"),
    ):
        clock.timing(owner, name)
    start = time.process_time()
    done = together(spec, tables, lambda fact: marks.append(time.process_time()) if isinstance(fact, Remark) else None)
    rows = len(setups(spec, tables)[LABEL].training_rows)
    sent = sum(line.payload_bytes for line in done.transcript if line.kind not in SCORING)
    return {
        "rows_per_second": rows / clock.seconds,
        "bytes_per_row": sent / rows,
        "one_pass_seconds": marks[0] - start,
    }


def steps_seconds(z: Floats, x: Floats, labels: Floats) -> float:
    """Of a whole training in steps, from `STEPS` of them after a first one."""
    rows = round(0.99 * len(labels))
    few = (STEPS + 1) * BATCH * 100 // 99
    spec = specification("training", f"train = {{ epochs = 1, batch_rows = {BATCH} }}")
    if not isinstance(spec, TrainingSpec):
        raise TypeError(spec)
    marks: list[float] = []
    tables = {LABEL: Table(bytes(32), x[:few], labels[:few]), FEATURE: Table(bytes(32), z[:few])}
    together(
        resolve(spec),
        tables,
        lambda fact: marks.append(time.process_time()) if isinstance(fact, StepDone) else None,
    )
    return (marks[-1] - marks[0]) / (len(marks) - 1) * EPOCHS * rows / BATCH


def error(z: Floats, x: Floats, labels: Floats) -> float:
    """On a part of the rows, with the noise that the protocol has."""
    spec = specification("one_pass", f"fit = {{ folds = 1, penalties = [{PENALTY}] }}")
    tables = {LABEL: Table(bytes(32), x, labels), FEATURE: Table(bytes(32), z)}
    results = together(spec, tables).results
    if not isinstance(spec, OnePassSpec):
        raise TypeError(spec)
    training, rows = scored_as(spec), setups(spec, tables)[LABEL].training_rows
    theirs = FeatureHalf.read(training, FEATURE, results[FEATURE].state).embed(z[rows], {})
    own = LabelHalf.read(training, results[LABEL].state).own(x[rows], {})
    model = Ridge(alpha=PENALTY * len(rows)).fit(np.column_stack([theirs, own]), 4 * labels[rows] - 2)
    weights = load_tensors(results[LABEL].state)["top.weights"][0]
    return float(np.abs(weights[:-1] - model.coef_).max())


def bins(edges: int) -> str:
    """Categories as they are; every other column in so many bins of about as many rows each, and one more."""
    return f"""[
        {{ columns = ["x1"], kind = "one_hot", categories = 2 }},
        {{ columns = ["x2"], kind = "one_hot", categories = 7 }},
        {{ columns = ["x3"], kind = "one_hot", categories = 4 }},
        {{ kind = "bins", edges = {edges} }},
    ]"""


def credit_default(seeds: int) -> dict[str, float]:
    results: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        own, features = write_raw(Path(folder))
        for name, edges in (("bins8", 7), ("bins16", 15)):
            own_bins = f'[{{ kind = "bins", edges = {edges} }}]'
            spec = read_spec(
                f"""
                job = {{ name = "credit-default", protocol = "one_pass", task = "binary", seed = 0 }}
                roster = {{ label = "{LABEL}", features = ["{FEATURE}"] }}
                [data]
                {LABEL} = {{ dataset = "{LABEL}", label = "y", columns = {own}, prepare = {own_bins} }}
                {FEATURE} = {{ dataset = "{FEATURE}", columns = {features}, prepare = {bins(edges)} }}
                """
            )
            if not isinstance(spec, OnePassSpec):
                raise TypeError(spec)
            loaded = load_both(Path(folder), spec)
            tables = {
                LABEL: Table(bytes(32), loaded[LABEL].columns, loaded[LABEL].labels),
                FEATURE: Table(bytes(32), loaded[FEATURE].columns, words=loaded[FEATURE].words),
            }
            for seed in range(seeds):
                roles = {party: flow_of(setup) for party, setup in setups(spec, tables, str(seed)).items()}
                metrics = run_together(roles).results[LABEL].metrics
                results.setdefault(name, []).append(metrics["auc"])
                results.setdefault("label_party_alone", []).append(metrics["own_columns_auc"])
                print(f"{name}, seed {seed}: {metrics}", file=sys.stderr)
    return {name: statistics.fmean(values) for name, values in results.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    z, x, labels = generated(arguments.rows)
    result: dict[str, Any] = dict(one_pass(z, x, labels))
    result["gradient_steps_seconds"] = steps_seconds(z, x, labels)
    result["time_to_model_over_steps"] = result["gradient_steps_seconds"] / result["one_pass_seconds"]
    few = min(arguments.rows, 24_000)
    result["error"] = error(z[:few], x[:few], labels[:few])
    result["credit_default"] = credit_default(arguments.seeds) if DATA.is_dir() else {}
    if arguments.format == "json":
        print(json.dumps(result, indent=2))
        return
    print(f"{arguments.rows:,} rows, {THEIRS} + {OWN} columns, both parties' work on one core")
    print(f"  {result['rows_per_second']:,.0f} rows per second, {result['bytes_per_row']:.0f} bytes for each")
    print(f"  {result['one_pass_seconds']:.1f} s to the model, {result['gradient_steps_seconds']:,.0f} s in steps")
    print(f"  {result['time_to_model_over_steps']:,.0f} times as fast; coefficients differ by {result['error']:.1e}")
    for name, area in result["credit_default"].items():
        print(f"  credit-default, {name.replace('_', ' ')}: held-out AUC {area:.4f}")


if __name__ == "__main__":
    main()
