"""Encrypted training on credit-default: 30,000 rows, 13 columns and the label at one party, 10 columns at the other.

    python benchmarks/credit_default.py [--only linear|mlp] [--seeds 3] [--epochs 30] [--format json]

Needs the two files of the vertical split in ../shared/data/credit-default; without them it says so and ends. Held-out
AUC on a fifth of the rows: encrypted, the same model in clear, and the label party alone with a model of that kind;
mean over seeds, with each seed's value beside it. Both parties' work in one process, one core; seconds include the
evaluation.
"""

import argparse
import hashlib
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import polars as pl
from numpy.typing import NDArray

from api.demo.training.baselines import JoinedRows, label_party_alone, same_model_in_clear
from vfl.flow import run_together
from vfl.kinds import flow_of, read_spec_as
from vfl.planning.training import plan, resolve
from vfl.setup import Setup, Table
from vfl.spec.training import TrainingSpec

DATA = Path(__file__).parents[2] / "shared" / "data" / "credit-default"
LABEL, FEATURE = "label-party", "feature-party"


class Case(NamedTuple):
    """One top model and how it is trained."""

    top: str
    train: str
    """Everything of [train] but the epochs."""

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
            {LABEL} = {{ dataset = "loans", label = "y", columns = {own} }}
            {FEATURE} = {{ dataset = "usage", columns = {features} }}
            """,
            )
        )


CASES = {
    "linear": Case('kind = "linear"', "batch_rows = 4000, optimiser = { rate = 0.1, momentum = 0.9 }"),
    # Three batches of two blocks each.
    "mlp": Case(
        'kind = "mlp", hidden = [8]',
        'batch_rows = 8000, optimiser = { name = "adam", rate = 0.07 }',
    ),
}


def run(
    spec: TrainingSpec, own: NDArray[Any], features: NDArray[Any], labels: NDArray[Any], seed: int
) -> dict[str, float]:
    def draw(purpose: str) -> bytes:
        return hashlib.sha256(f"{purpose} {seed}".encode()).digest()

    rows = JoinedRows(own, features, labels, draw("joint"), {party: draw(party) for party in spec.parties})
    tables = {LABEL: Table(bytes(32), own, labels), FEATURE: Table(bytes(32), features)}
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
    guest, host = (pl.read_csv(DATA / name) for name in ("guest.csv", "host.csv"))
    own, features = guest.columns[2:], host.columns[1:]
    columns = (guest[own].to_numpy().astype(float), host[features].to_numpy().astype(float))
    labels = guest["y"].to_numpy().astype(float)
    results: dict[str, dict[str, Any]] = {}
    for name in [arguments.only] if arguments.only else CASES:
        spec = CASES[name].specification(arguments.epochs, own, features)
        runs = []
        for seed in range(arguments.seeds):
            runs.append(run(spec, *columns, labels, seed))
            print(f"{name}, seed {seed}: {runs[-1]}", file=sys.stderr)
        mean = {key: statistics.fmean(one[key] for one in runs) for key in runs[0]}
        results[name] = {**mean, "rho": plan(spec, len(guest)).rho, "seeds": runs}
    if arguments.format == "json":
        print(json.dumps(results, indent=2))
        return
    for name, result in results.items():
        rho = f"rho {result['rho']:.3g}"
        print(
            f"credit-default, {name} top, {arguments.epochs} epochs, {rho}, {len(result['seeds'])} seeds, held-out AUC"
        )
        for key in ("federated", "clear", "label_party_alone"):
            print(f"  {key.replace('_', ' '):<18} {result[key]:.4f}")
        print(
            f"  {result['seconds_per_epoch']:.2f} s, {result['bytes_per_epoch'] / 1e6:.1f} MB per epoch, both parties"
        )


if __name__ == "__main__":
    main()
