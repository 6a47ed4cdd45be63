"""The table of one part of horizontal rounds, or of all of them, beside what it is compared with (rounds.md).

    python benchmarks/rounds.py --part PART [--setting NAME ...] [--mnist] [--quick] [--seeds 3] [--format json]
                                [--html FILE]

Accuracy is the global test accuracy of the aggregator's model, mean of the last five rounds; mean and standard
deviation (n - 1) over seeds. For one seed all rows share the held-out rows, what each client holds, the first weights
and the cohorts. Bytes are those of encoded messages, the final model's among them; steps are gradient steps of all
clients together. `--mnist` adds the 10,000 images in ../shared/data/mnist, and says so where they are missing.
"""

import argparse
import importlib
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import rounds_report
import torch
from federation import Dataset, Row, load

PARTS = ("backbone_decoder", "compressed_sync", "model_inversion", "shared_data", "together")
LAST = 5
"""Rounds whose mean is the accuracy of a run."""

Setting = Callable[[Dataset, int, bool], Mapping[str, Row]]
"""(data set, seed, quick) -> rows."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--setting", nargs="+", metavar="NAME", help="only these; all of the part's by default")
    parser.add_argument("--mnist", action="store_true", help="also on MNIST's 10,000 images")
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--html", type=Path, help="also write a page with plots")
    arguments = parser.parse_args()
    table = importlib.import_module(f"rounds_{arguments.part}")
    settings: dict[str, Setting] = table.SETTINGS
    runs_on: dict[str, str] = getattr(table, "RUNS_ON", {})
    seeds = 1 if arguments.quick else arguments.seeds
    start, results = time.perf_counter(), dict[str, dict[str, Any]]()
    if unknown := set(arguments.setting or ()) - set(settings):
        parser.error(f"{arguments.part} has no setting {', '.join(sorted(unknown))}; it has {', '.join(settings)}")
    for name in arguments.setting or settings:
        by_name = name in runs_on or (bool(arguments.setting) and name == "mnist")
        dataset = _dataset(runs_on.get(name, name), mnist=arguments.mnist or by_name)
        if dataset is None:
            continue
        runs = []
        for seed in range(seeds):
            runs.append(settings[name](dataset, seed, arguments.quick))
            print(f"{name} on {dataset.name}, seed {seed}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        if not runs[0]:  # --quick leaves it out
            continue
        results[name] = {row: _over_seeds([one[row] for one in runs]) for row in runs[0]}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread"
    if arguments.html:
        rounds_report.write(arguments.html, f"{arguments.part}: {seeds} seeds", machine, results)
    if arguments.format == "json":
        print(json.dumps(results, indent=2))
        return
    for name, rows in results.items():
        _print(f"{arguments.part}, {name}, {seeds} seeds, global test accuracy", rows)
    print(f"{machine}, {time.perf_counter() - start:.0f} s in all")


def _dataset(setting: str, *, mnist: bool) -> Dataset | None:
    """A setting called as a data set runs on it; any other on the larger one that was asked for and is there."""
    if setting == "digits" or not (mnist or setting == "mnist"):
        return load("digits")
    if not mnist:
        return None
    tables = load("mnist")
    if tables is None:
        print("mnist is skipped: its two files are not in ../shared/data/mnist", file=sys.stderr)
    return tables if tables is not None or setting == "mnist" else load("digits")


def _over_seeds(rows: list[Row]) -> dict[str, Any]:
    accuracies = [statistics.fmean(row["accuracy_by_round"][-LAST:]) for row in rows]
    over: dict[str, Any] = {
        "accuracy_mean": statistics.fmean(accuracies),
        "accuracy_std": _deviation(accuracies),
        "accuracy_by_round": _by_round([row["accuracy_by_round"] for row in rows]),
    }
    numbers: list[dict[str, Any]] = [dict(row) for row in rows]
    for key in (
        "bytes_up",
        "bytes_down",
        "client_steps",
        "client_std",
        "client_worst",
        "rounds_to_fedavg_final",
        "parameter_bytes",
        "first_model",
        "label_entropy",
    ):
        if key in numbers[0]:
            over[key] = statistics.fmean(row[key] for row in numbers)
    if shares := [row["kept"] for row in rows if "kept" in row]:
        over["kept"] = {way: statistics.fmean(one[way] for one in shares) for way in shares[0]}
    if seconds := [row["seconds_to_target"] for row in rows if "seconds_to_target" in row]:
        reached = {speed: [one[speed] for one in seconds] for speed in seconds[0]}
        over["seconds_to_target"] = {speed: _mean_if_reached(values) for speed, values in reached.items()}
    if stored := [row["stored_by_round"] for row in rows if "stored_by_round" in row]:
        last = [statistics.fmean(one[-LAST:]) for one in stored]
        over |= {"stored_mean": statistics.fmean(last), "stored_std": _deviation(last)}
    return over


def _by_round(runs: list[list[float]]) -> list[float]:
    return [statistics.fmean(of_round) for of_round in zip(*runs, strict=False)]


def _mean_if_reached(values: list[float]) -> float | None:
    return statistics.fmean(values) if all(math.isfinite(value) for value in values) else None


def _deviation(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _print(title: str, rows: dict[str, dict[str, Any]]) -> None:
    width = max(map(len, rows)) + 2
    print(title)
    print(f"  {'':<{width}}{'accuracy':>18}{'MB up':>12}{'MB down':>12}{'steps':>10}")
    for name, row in rows.items():
        accuracy = f"{row['accuracy_mean']:.4f} ± {row['accuracy_std']:.4f}"
        size = f"{row['bytes_up'] / 1e6:>12.3f}{row['bytes_down'] / 1e6:>12.3f}{row['client_steps']:>10.0f}"
        stored = f"  stored copy {row['stored_mean']:.4f}" if "stored_mean" in row else ""
        shares = "".join(f"  {way} keeps {share:.1%}" for way, share in row.get("kept", {}).items())
        clients = f"  clients ± {row['client_std']:.3f}, worst {row['client_worst']:.3f}" if "client_std" in row else ""
        entropy = f"  label entropy {row['label_entropy']:.3f}" if "label_entropy" in row else ""
        first = f"  first model {row['first_model']:.4f}" if "first_model" in row else ""
        memory = f"  {row['parameter_bytes'] / 1e3:.1f} kB kept" if "parameter_bytes" in row else ""
        seconds = "".join(
            f"  {value:.1f} s at {speed} Mbit/s" if value is not None else ""
            for speed, value in row.get("seconds_to_target", {}).items()
        )
        print(f"  {name:<{width}}{accuracy:>18}{size}{first}{entropy}{stored}{memory}{seconds}{shares}{clients}")


if __name__ == "__main__":
    main()
