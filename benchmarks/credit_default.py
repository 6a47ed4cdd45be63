"""Encrypted training on credit-default: 30,000 rows, 13 columns and the label at one party, 10 columns at the other.

    python benchmarks/credit_default.py [--only linear|mlp] [--seeds 3] [--epochs 30] [--format json]

Needs the two files of the vertical split in ../shared/data/credit-default; without them it says so and ends. They are
written as they might come from a company, with sex, education and marriage as words, and read as data sets. The top
model `mlp` prepares these as categories, and all other columns by their quantiles.

Held-out AUC on a fifth of the rows: encrypted, the same model in clear, and the label party alone with a model of that
kind; mean over seeds, with each seed's value beside it. Both parties' work in one process, one core; seconds include
the evaluation.
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import polars as pl

from api.demo.training.baselines import label_party_alone, same_model_in_clear
from api.demo.training.joined_rows import JoinedRows
from parties.tables.datasets import LoadedTable, load
from parties.tables.registered import Registered
from vfl.flow import run_together
from vfl.kinds import flow_of, read_spec_as
from vfl.planning.training import plan, resolve
from vfl.setup import Setup, Table
from vfl.spec.joined_rows import JoinedRowsSpec
from vfl.spec.training import TrainingSpec

DATA = Path(__file__).parents[2] / "shared" / "data" / "credit-default"
LABEL, FEATURE = "label-party", "feature-party"


CATEGORIES = {"x1": "sex", "x2": "education", "x3": "marriage"}
"""Of the feature party's columns: what they hold, and so the words that stand for it."""


class Case(NamedTuple):
    """One top model, how it is trained, and how the columns are prepared."""

    top: str
    train: str
    """Everything of [train] but the epochs."""
    own: str
    features: str
    """How each party prepares its columns."""

    def specification(self, epochs: int, own: list[str], features: list[str]) -> TrainingSpec:
        return resolve(
            read_spec_as(
                TrainingSpec,
                f"""
            job = {{ name = "credit-default", task = "binary", seed = 0 }}
            roster = {{ label = "{LABEL}", features = ["{FEATURE}"] }}
            model = {{ top = {{ {self.top} }} }}
            train = {{ epochs = {epochs}, {self.train} }}
            [data]
            {LABEL} = {{ dataset = "{LABEL}", label = "y", columns = {own}, prepare = {self.own} }}
            {FEATURE} = {{ dataset = "{FEATURE}", columns = {features}, prepare = {self.features} }}
            """,
            )
        )


ONE_HOT = """
    { columns = ["x1"], kind = "one_hot", categories = 1, least_rows = 1000 },
    { columns = ["x2"], kind = "one_hot", categories = 3, least_rows = 1000 },
    { columns = ["x3"], kind = "one_hot", categories = 2, least_rows = 1000 }
"""
CASES = {
    "linear": Case(
        'kind = "linear"', "batch_rows = 4000, optimiser = { rate = 0.1, momentum = 0.9 }", "[]", f"[{ONE_HOT}]"
    ),
    # Three batches of two blocks each.
    "mlp": Case(
        'kind = "mlp", hidden = [8]',
        'batch_rows = 8000, optimiser = { name = "adam", rate = 0.07 }',
        '[{ kind = "quantile" }]',
        f'[{ONE_HOT}, {{ kind = "quantile" }}]',
    ),
}


def write_raw(folder: Path) -> tuple[list[str], list[str]]:
    """Both files with words for categories; answers each party's columns."""
    guest, host = (pl.read_csv(DATA / name) for name in ("guest.csv", "host.csv"))
    words = [
        (pl.lit(f"{what}-") + pl.col(name).rank("dense").cast(pl.String)).alias(name)
        for name, what in CATEGORIES.items()
    ]
    guest.write_csv(folder / f"{LABEL}.csv")
    host.with_columns(words).write_csv(folder / f"{FEATURE}.csv")
    return guest.columns[2:], host.columns[1:]


def load_both(folder: Path, spec: JoinedRowsSpec) -> dict[str, LoadedTable]:
    files = {party: Registered(source=f"{party}.csv", id=("id",)) for party in spec.parties}
    return {party: load(folder, files, spec, party)["rows"] for party in spec.parties}


def run(spec: TrainingSpec, loaded: dict[str, LoadedTable], seed: int) -> dict[str, float]:
    def draw(purpose: str) -> bytes:
        return hashlib.sha256(f"{purpose} {seed}".encode()).digest()

    own, features, labels = loaded[LABEL], loaded[FEATURE], loaded[LABEL].labels
    if labels is None:
        sys.exit("the label party's file holds no labels")
    private_seeds = {party: draw(party) for party in spec.parties}
    rows = JoinedRows(own.columns, features.columns, labels, draw("joint"), private_seeds, features.words)
    tables = {
        LABEL: Table(bytes(32), own.columns, labels),
        FEATURE: Table(bytes(32), features.columns, words=features.words),
    }
    start = time.perf_counter()
    together = run_together(
        {
            party: flow_of(Setup(spec, party, {"rows": table}, rows.joint_seed, rows.private_seeds[party]))
            for party, table in tables.items()
        }
    )
    elapsed = time.perf_counter() - start
    training = [line.payload_bytes for line in together.transcript if "Evaluation" not in line.kind]
    return {
        "federated": together.results[LABEL].metrics["auc"],
        "clear": same_model_in_clear(spec, rows)["auc"],
        "label_party_alone": label_party_alone(spec, rows)["auc"],
        "seconds_per_epoch": elapsed / spec.train.epochs,
        "bytes_per_epoch": sum(training) / spec.train.epochs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES, help="one top model; both unless given")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit("credit-default is not there: put guest.csv and host.csv into ../shared/data/credit-default")
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), [arguments.only] if arguments.only else [*CASES], arguments)
    if arguments.format == "json":
        print(json.dumps(results, indent=2))
        return
    show(results, arguments.epochs)


def measure(folder: Path, names: list[str], arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    own, features = write_raw(folder)
    results: dict[str, dict[str, Any]] = {}
    for name in names:
        spec = CASES[name].specification(arguments.epochs, own, features)
        loaded, runs = load_both(folder, spec), []
        for seed in range(arguments.seeds):
            runs.append(run(spec, loaded, seed))
            print(f"{name}, seed {seed}: {runs[-1]}", file=sys.stderr)
        mean = {key: statistics.fmean(one[key] for one in runs) for key in runs[0]}
        results[name] = {**mean, "rho": plan(spec, loaded[LABEL].rows).rho, "seeds": runs}
    return results


def show(results: dict[str, dict[str, Any]], epochs: int) -> None:
    for name, result in results.items():
        rho = f"rho {result['rho']:.3g}"
        print(f"credit-default, {name} top, {epochs} epochs, {rho}, {len(result['seeds'])} seeds, held-out AUC")
        for key in ("federated", "clear", "label_party_alone"):
            print(f"  {key.replace('_', ' '):<18} {result[key]:.4f}")
        print(
            f"  {result['seconds_per_epoch']:.2f} s, {result['bytes_per_epoch'] / 1e6:.1f} MB per epoch, both parties"
        )


if __name__ == "__main__":
    main()
