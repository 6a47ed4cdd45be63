"""One encrypted training step against its floor, a naive step, two servers and clear training, all in one run.

    python benchmarks/encrypted_step.py [--format json] [--steps 11]

16 columns, batch 4096: linear top model with both loss errors, and 8 hidden units. Ratios, because machines differ:

- step_over_floor: wall time of a step over the time spent inside its SEAL calls, keys included in both
- naive_over_step: the same step written directly on TenSEAL's CKKSVector
- http_over_in_process: the step between two party servers on loopback over the step in one process
- step_over_clear: against the same step in torch on numbers

Bytes per sample leave keys out; `key_bytes_per_step` is their share. `gradient_error` is relative, without reply noise.
"""

import argparse
import datetime as dt
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from other_steps import BATCH, CASES, COLUMNS, ROWS, Case, clear_step, naive_step, table
from tenseal import sealapi

import crypto.ckks
import crypto.ckks_columns
import crypto.ckks_context
import crypto.ckks_evaluator
import crypto.seal_stream
from api.client import FINAL_STATES
from api.demo.folder import write_parties
from api.demo.servers import Servers, free_ports
from api.demo.training.agreement import MAXIMUM_RHO, RelaxedLimit, TrainingAgreement
from api.demo.training.tables import FEATURE_PARTY, LABEL_PARTY, DividedTable, Training
from crypto.ckks_parameters import PRESETS
from vfl.flow import Flow, Report, Together, run_together
from vfl.kinds import read_spec_as
from vfl.models.polynomial import Numbers
from vfl.models.scaling import Scaling
from vfl.models.tensors import load_tensors
from vfl.planning.training import plan, preset_of, resolve
from vfl.protocols.ckks_training import ROLES
from vfl.protocols.label_side import LabelSide
from vfl.reports import Outcome, StepDone
from vfl.schedule import held_out
from vfl.setup import Setup, Table
from vfl.spec.joined_rows import TrainingRole
from vfl.spec.training import TrainingSpec

ROUNDS = 3
HTTP_STEPS = 66
SEED = bytes(32)
Floats = NDArray[np.float64]


def marked(flow: Flow[Outcome], mark: Callable[[], None]) -> Flow[Outcome]:
    """The same role, with a call at each StepDone."""
    effect = next(flow)
    while True:
        if isinstance(effect, Report) and isinstance(effect.fact, StepDone):
            mark()
        try:
            effect = flow.send((yield effect))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def in_process(spec: TrainingSpec, mark: Callable[[], None] = lambda: None) -> Together[Outcome]:
    """Both roles in this process; `mark` is called when the label party has done a step."""
    columns, labels = table()

    def setup(me: str, mine: Floats, targets: Floats | None) -> Setup[TrainingSpec]:
        return Setup(spec, me, {"rows": Table(SEED, mine, targets)}, SEED, SEED)

    return run_together(
        {
            "label-party": marked(ROLES[TrainingRole.LABEL](setup("label-party", np.zeros((ROWS, 0)), labels)), mark),
            "feature-party": ROLES[TrainingRole.FEATURE](setup("feature-party", columns, None)),
        }
    )


def seconds_per_step(case: Case, steps: int) -> tuple[float, Together[Outcome]]:
    """Mean over `steps` steps after a first one; keys change on the way."""
    marks: list[float] = []
    together = in_process(case.specification(steps + 1), mark=lambda: marks.append(time.perf_counter()))
    return (marks[-1] - marks[0]) / steps, together


def seconds_per_step_over_http(case: Case) -> float:
    """Between two party servers on loopback: mean over a job's steps, timed by the label party's record of them."""
    text, (columns, labels) = case.text(HTTP_STEPS), table()
    spec = resolve(read_spec_as(TrainingSpec, text))
    ids = pl.Series("id", range(len(labels)))
    names = spec.data[FEATURE_PARTY].columns
    divided = DividedTable(
        name="step",
        task="binary",
        classes=0,
        id="id",
        label="y",
        label_file=pl.DataFrame([ids, pl.Series("y", labels)]),
        feature_file=pl.DataFrame([ids, *(pl.Series(n, c) for n, c in zip(names, columns.T, strict=True))]),
        training=Training(spec.train.epochs, spec.train.batch_rows, spec.train.optimiser.rate, 0.0),
    )
    ports = free_ports((LABEL_PARTY, FEATURE_PARTY))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Steps that are measured and not meant: both parties relax the one limit so many epochs pass.
        agreement = TrainingAgreement(
            text, spec, plan(spec, len(labels)), (RelaxedLimit("maximum_rho", MAXIMUM_RHO, 1.0),)
        )
        write_parties(folder, divided, agreement, 0, ports)
        with Servers(folder, ports, LABEL_PARTY) as servers:
            client = servers.client(LABEL_PARTY)
            job = client.submit(text)
            times: list[tuple[int, dt.datetime]] = []
            for answer in client.follow(job["id"]):
                times += [
                    (event["data"]["step"], dt.datetime.fromisoformat(event["time"]))
                    for event in answer["events"]
                    if event["kind"] == "step"
                ]
            job = client.job(job["id"])
    if job["state"] not in FINAL_STATES or job["error"]:
        raise RuntimeError(f"the job between two servers ended {job['state']}: {job['error']}")
    (first, began), (last, ended) = times[0], times[-1]
    return (ended - began).total_seconds() / (last - first)


class SealClock:
    """Times every call into SEAL by standing in front of its classes; nothing in the product knows of it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.perf_counter() - start

        return call

    def stand_in(self, name: str) -> Callable[..., Any]:
        clock, make = self, self.wrap(getattr(sealapi, name))

        class StandIn:
            def __init__(self, *arguments: Any) -> None:
                self._real = make(*arguments)

            def __getattr__(self, method: str) -> Any:
                call = clock.wrap(getattr(self._real, method))
                setattr(self, method, call)
                return call

        return StandIn

    def __getattr__(self, name: str) -> Any:
        timed_classes = ("Evaluator", "Encryptor", "CKKSEncoder", "KeyGenerator")
        return self.stand_in(name) if name in timed_classes else getattr(sealapi, name)


def over_floor(case: Case, steps: int) -> float:
    """Wall time over time inside SEAL, both over the same steps of one run."""
    clock, memory = SealClock(), crypto.seal_stream._MemoryFile  # noqa: SLF001
    save, fill = memory.save, memory.load
    namespaces = vars(crypto.ckks), vars(crypto.ckks_columns), vars(crypto.ckks_evaluator), vars(crypto.ckks_context)
    caches = crypto.ckks_context.contexts_of, crypto.ckks_context.data_context, crypto.ckks_columns.encryption
    for names in namespaces:
        names["sealapi"] = clock
    memory.save, memory.load = clock.wrap(save), clock.wrap(fill)  # type: ignore[method-assign]
    for cache in caches:
        cache.cache_clear()
    marks: list[tuple[float, float]] = []
    try:
        in_process(case.specification(steps + 1), mark=lambda: marks.append((time.perf_counter(), clock.seconds)))
    finally:
        for names in namespaces:
            names["sealapi"] = sealapi
        memory.save, memory.load = save, fill  # type: ignore[method-assign]
        for cache in caches:
            cache.cache_clear()
    return (marks[-1][0] - marks[0][0]) / (marks[-1][1] - marks[0][1])


def median_seconds(step: Callable[[], Any], runs: int) -> float:
    step()
    return statistics.median(seconds(step) for _ in range(runs))


def seconds(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def gradient_error(case: Case) -> float:
    """Largest error of one opened gradient over its largest entry, without reply noise.

    One step of plain descent shows the gradient: what it moves the weights by.
    """
    spec = case.specification(1)
    preset = preset_of(spec)
    with patch.dict(PRESETS, {preset.name: replace(preset, noise=0.0, output_noise=0.0)}):
        encrypted = load_tensors(in_process(spec).results["label-party"].state)
    columns, labels = table()
    side = LabelSide(Setup(spec, "label-party", {"rows": Table(SEED, np.zeros((ROWS, 0)), labels)}, SEED, SEED))
    before = side.top.tensors()
    rows = held_out(SEED, ROWS, spec.split.test)[0]
    numbers = Numbers()
    passes = side.passes(numbers, list(Scaling.fit(columns[rows]).apply(columns[rows]).T), rows)
    side.update(numbers.sums(passes.products), rows, 1)
    errors = [np.abs(encrypted[n] - clear).max() for n, clear in side.top.tensors().items()]
    moved = [np.abs(clear - before[n]).max() for n, clear in side.top.tensors().items()]
    return float(max(errors) / max(moved))


def operations_per_step(case: Case) -> dict[str, int]:
    """Of both parties: a job of two steps less a job of one, so that keys and evaluation are left out."""
    one, two = Counter[str](), Counter[str]()
    for steps, total in ((1, one), (2, two)):
        for outcome in in_process(case.specification(steps)).results.values():
            total.update(outcome.operations)
    return dict(two - one)


def measure(case: Case, steps: int) -> dict[str, Any]:
    """Rounds of step, naive step and clear step in turn, so that a busy moment touches all three; medians of ratios."""
    naive, clear = naive_step(case), clear_step(case)
    in_process(case.specification(1))  # contexts are made once per process
    rounds = []
    for _ in range(ROUNDS):
        step_seconds, together = seconds_per_step(case, steps)
        rounds.append((step_seconds, median_seconds(naive, 3) / step_seconds, step_seconds / median_seconds(clear, 51)))
    sent: Counter[str] = Counter()
    for line in together.transcript:
        sent[line.kind] += line.payload_bytes
    done = steps + 1
    step_seconds, naive_over_step, step_over_clear = (statistics.median(values) for values in zip(*rounds, strict=True))
    return {
        "samples_per_second": BATCH / step_seconds,
        "step_over_floor": statistics.median(over_floor(case, steps) for _ in range(ROUNDS)),
        "naive_over_step": naive_over_step,
        "http_over_in_process": seconds_per_step_over_http(case) / step_seconds,
        "step_over_clear": step_over_clear,
        "bytes_up_per_sample": (sent["EncryptedEmbedding"] + sent["OpenedGradient"]) / done / BATCH,
        "bytes_down_per_sample": sent["MaskedGradient"] / done / BATCH,
        "key_bytes_per_step": sent["PublicKeys"] / done,
        "gradient_error": gradient_error(case),
        "operations": operations_per_step(case),
    }


LINES = {
    "samples_per_second": "{:,.0f} samples per second, both parties' work on one core",
    "step_over_floor": "{:.2f} x its own SEAL calls",
    "naive_over_step": "{:.2f} x faster than the naive CKKSVector step",
    "http_over_in_process": "{:.2f} x the step in process, between two servers over HTTP",
    "step_over_clear": "{:,.0f} x the step in clear torch",
    "bytes_up_per_sample": "{:.0f} bytes per sample up",
    "bytes_down_per_sample": "{:.1f} bytes per sample down",
    "key_bytes_per_step": "{:,.0f} bytes of keys per step",
    "gradient_error": "{:.1e} relative gradient error without reply noise",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--steps", type=int, default=11, help="steps timed in process each round; a key lasts 11 linear steps"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name, case in CASES.items():
        print(f"measuring {name} ...", file=sys.stderr)
        results[name] = measure(case, arguments.steps)
    if arguments.format == "json":
        print(json.dumps(results, indent=2))
        return
    for name, result in results.items():
        print(f"{name}: {COLUMNS} columns, batch {BATCH}")
        for key, line in LINES.items():
            print("  " + line.format(result[key]))
        print("  operations per step: " + ", ".join(f"{n} {c:g}" for n, c in result["operations"].items()))


if __name__ == "__main__":
    main()
