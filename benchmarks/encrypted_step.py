"""One encrypted training step against its floor, a naive step, two servers and clear training, all in one run.

    python benchmarks/encrypted_step.py [--format json] [--steps 11]

Linear top model, 16 columns, batch 4096, both loss errors. Ratios, because machines differ:

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

import numpy as np
import polars as pl
import tenseal
import torch
from numpy.typing import NDArray
from tenseal import sealapi

import crypto.ckks
import crypto.ckks_context
import crypto.ckks_evaluator
import crypto.seal_stream
from api.client import FINAL_STATES
from api.demo.agreement import Agreement
from api.demo.folder import write_parties
from api.demo.servers import Servers, free_ports
from api.demo.tables import FEATURE_PARTY, LABEL_PARTY, DividedTable, Training
from crypto.ckks_parameters import CkksPreset
from vfl.flow import Flow, Report, Together, run_together
from vfl.job import JobSpec, Role, read_spec
from vfl.models.polynomial import CUBIC_ERROR, LINEAR_ERROR, Numbers, load_tensors
from vfl.planner import plan, preset_of, resolve
from vfl.protocols.ckks_training import PROTOCOL
from vfl.protocols.label_side import LabelSide
from vfl.reports import Outcome, StepDone
from vfl.scaling import Scaling
from vfl.schedule import held_out
from vfl.setup import Setup, Table

COLUMNS, BATCH = 16, 4096
ROWS = BATCH * 5 // 4  # a fifth is held out
ROUNDS = 3
HTTP_STEPS = 66
SEED = bytes(32)
Floats = NDArray[np.float64]


def specification_text(loss: str, steps: int) -> str:
    names = ", ".join(f'"c{i}"' for i in range(COLUMNS))
    return f"""
    encryption = {{ scheme = "ckks", loss_error = "{loss}" }}
    job = {{ name = "step", task = "binary", seed = 0 }}
    roster = {{ label = "label-party", features = ["feature-party"] }}
    train = {{ epochs = {steps}, batch_rows = {BATCH}, optimiser = {{ rate = 0.05 }} }}
    [data]
    label-party = {{ dataset = "rows", label = "y" }}
    feature-party = {{ dataset = "rows", columns = [{names}] }}
    """


def specification(loss: str, steps: int) -> JobSpec:
    return resolve(read_spec(specification_text(loss, steps)))


def table() -> tuple[Floats, Floats]:
    draws = np.random.Generator(np.random.Philox(0))
    columns = draws.standard_normal((ROWS, COLUMNS))
    labels = (columns[:, 0] + columns[:, 1] + draws.standard_normal(ROWS) > 0).astype(np.float64)
    return columns, labels


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


def in_process(
    spec: JobSpec, preset: CkksPreset | None = None, mark: Callable[[], None] = lambda: None
) -> Together[Outcome]:
    """Both roles in this process; `mark` is called when the label party has done a step."""
    columns, labels = table()
    used = preset or preset_of(spec)

    def setup(me: str, mine: Floats, targets: Floats | None) -> Setup:
        return Setup(spec, me, Table(SEED, mine, targets), SEED, SEED, used)

    return run_together(
        {
            "label-party": marked(PROTOCOL.roles[Role.LABEL](setup("label-party", np.zeros((ROWS, 0)), labels)), mark),
            "feature-party": PROTOCOL.roles[Role.FEATURE](setup("feature-party", columns, None)),
        }
    )


def seconds_per_step(loss: str, steps: int) -> tuple[float, Together[Outcome]]:
    """Mean over `steps` steps after a first one; keys change on the way."""
    marks: list[float] = []
    together = in_process(specification(loss, steps + 1), mark=lambda: marks.append(time.perf_counter()))
    return (marks[-1] - marks[0]) / steps, together


def seconds_per_step_over_http(loss: str) -> float:
    """Between two party servers on loopback: mean over a job's steps, timed by the label party's record of them."""
    text, (columns, labels) = specification_text(loss, HTTP_STEPS), table()
    spec = resolve(read_spec(text))
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
        agreement = Agreement(text, spec, plan(spec, len(labels)), ())
        write_parties(folder, divided, agreement, 0, ports)
        with Servers(folder, ports) as servers:
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


def over_floor(loss: str, steps: int) -> float:
    """Wall time over time inside SEAL, both over the same steps of one run."""
    clock, memory = SealClock(), crypto.seal_stream._MemoryFile  # noqa: SLF001
    save, fill = memory.save, memory.load
    namespaces = vars(crypto.ckks), vars(crypto.ckks_evaluator), vars(crypto.ckks_context)
    for names in namespaces:
        names["sealapi"] = clock
    memory.save, memory.load = clock.wrap(save), clock.wrap(fill)  # type: ignore[method-assign]
    crypto.ckks_context.contexts_of.cache_clear()
    marks: list[tuple[float, float]] = []
    try:
        in_process(specification(loss, steps + 1), mark=lambda: marks.append((time.perf_counter(), clock.seconds)))
    finally:
        for names in namespaces:
            names["sealapi"] = sealapi
        memory.save, memory.load = save, fill  # type: ignore[method-assign]
        crypto.ckks_context.contexts_of.cache_clear()
    return (marks[-1][0] - marks[0][0]) / (marks[-1][1] - marks[0][1])


def naive_step(loss: str) -> Callable[[], Floats]:
    """The step as a first version would have it: CKKSVector, float masks on slots, whole vectors decrypted."""
    bits, scale = ([45, 32, 32, 45], 32) if loss == "linear" else ([45, 30, 30, 30, 30, 45], 30)
    owner = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=bits, n_threads=1)
    owner.global_scale = 2.0**scale
    public = tenseal.context_from(owner.serialize(save_secret_key=False), n_threads=1)
    columns, labels = (part[:BATCH] for part in table())
    draws = np.random.Generator(np.random.Philox(1))
    weights = draws.standard_normal(COLUMNS) * 0.1

    def step() -> Floats:
        sent = [tenseal.ckks_vector(owner, column.tolist()).serialize() for column in columns.T]
        embedding = [tenseal.ckks_vector_from(public, data) for data in sent]
        slope = 0.25 if loss == "linear" else 1.0
        score = embedding[0] * float(weights[0] * slope)
        for column, weight in zip(embedding[1:], weights[1:], strict=True):
            score += column * float(weight * slope)
        if loss == "linear":
            error = score + (0.5 - labels).tolist()
        else:
            error = score.polyval([CUBIC_ERROR[0], CUBIC_ERROR[1], 0, CUBIC_ERROR[2]]) - labels.tolist()
        sums = []
        for column in [*embedding, None]:
            mask = draws.uniform(-(2**8), 2**8, BATCH)
            product = (error * column if column is not None else error) + mask.tolist()
            reply = tenseal.ckks_vector_from(owner, product.serialize()).decrypt()
            sums.append(sum(reply) - mask.sum())
        return np.array(sums)

    return step


def clear_step(loss: str) -> Callable[[], torch.Tensor]:
    columns, labels = (torch.from_numpy(part[:BATCH]) for part in table())
    weights = torch.zeros(COLUMNS, dtype=torch.float64)

    def step() -> torch.Tensor:
        score = columns @ weights
        if loss == "linear":
            error = LINEAR_ERROR["linear"][0] * score + LINEAR_ERROR["linear"][1] - labels
        else:
            error = CUBIC_ERROR[0] + CUBIC_ERROR[1] * score + CUBIC_ERROR[2] * score**3 - labels
        return torch.cat([columns.T @ error, error.sum()[None]])

    return step


def median_seconds(step: Callable[[], Any], runs: int) -> float:
    step()
    return statistics.median(seconds(step) for _ in range(runs))


def seconds(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def gradient_error(loss: str) -> float:
    """Largest error of one opened gradient over its largest entry, without reply noise.

    One step of plain descent shows the gradient: what it moves the weights by.
    """
    spec = specification(loss, 1)
    preset = preset_of(spec)
    assert preset is not None  # noqa: S101 - the specification asks for ckks
    encrypted = load_tensors(in_process(spec, replace(preset, noise=0.0)).results["label-party"].state)["top.weights"]
    columns, labels = table()
    side = LabelSide(Setup(spec, "label-party", Table(SEED, np.zeros((ROWS, 0)), labels), SEED, SEED, preset))
    before = side.top.weights.copy()
    rows = held_out(SEED, ROWS, spec.split.test)[0]
    embedding, numbers = list(Scaling.fit(columns[rows]).apply(columns[rows]).T), Numbers()
    errors = side.top.loss_error(numbers, embedding, side.own[rows], side.targets[rows])
    gradients = side.top.row_gradients(numbers, embedding, side.own[rows], errors)
    side.top.update(np.array([gradient.sum() for gradient in gradients]), len(rows), 1)
    moved = side.top.weights - before
    return float(np.abs(encrypted - before - moved).max() / np.abs(moved).max())


def operations_per_step(loss: str) -> dict[str, int]:
    """Of both parties: a job of two steps less a job of one, so that keys and evaluation are left out."""
    one, two = Counter[str](), Counter[str]()
    for steps, total in ((1, one), (2, two)):
        for outcome in in_process(specification(loss, steps)).results.values():
            total.update(outcome.operations)
    return dict(two - one)


def measure(loss: str, steps: int) -> dict[str, Any]:
    """Rounds of step, naive step and clear step in turn, so that a busy moment touches all three; medians of ratios."""
    naive, clear = naive_step(loss), clear_step(loss)
    in_process(specification(loss, 1))  # contexts are made once per process
    rounds = []
    for _ in range(ROUNDS):
        step_seconds, together = seconds_per_step(loss, steps)
        rounds.append((step_seconds, median_seconds(naive, 3) / step_seconds, step_seconds / median_seconds(clear, 51)))
    sent: Counter[str] = Counter()
    for line in together.transcript:
        sent[line.kind] += line.payload_bytes
    done = steps + 1
    step_seconds, naive_over_step, step_over_clear = (statistics.median(values) for values in zip(*rounds, strict=True))
    return {
        "samples_per_second": BATCH / step_seconds,
        "step_over_floor": statistics.median(over_floor(loss, steps) for _ in range(ROUNDS)),
        "naive_over_step": naive_over_step,
        "http_over_in_process": seconds_per_step_over_http(loss) / step_seconds,
        "step_over_clear": step_over_clear,
        "bytes_up_per_sample": (sent["EncryptedEmbedding"] + sent["OpenedGradient"]) / done / BATCH,
        "bytes_down_per_sample": sent["MaskedGradient"] / done / BATCH,
        "key_bytes_per_step": sent["PublicKeys"] / done,
        "gradient_error": gradient_error(loss),
        "operations": operations_per_step(loss),
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
    for name, loss in (("linear", "linear"), ("linear_cubic", "cubic")):
        print(f"measuring {name} ...", file=sys.stderr)
        results[name] = measure(loss, arguments.steps)
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
