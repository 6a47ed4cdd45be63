"""Forecast beside measured, and the ratio of both, for the jobs of the demonstrations in one run.

    python benchmarks/forecast.py [--jobs linear mlp …] [--runs 1] [--format json]

All parties of a job run on this machine. `seconds` are those between the start and the end of the workers' part, by the
clock; `processor` those of all servers and workers together, which other work on the machine changes less; `bytes` what
messages of the job carry both ways. The load of the machine stands beside each line: by the clock a forecast holds on
a machine that does nothing else.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from api.client import FINAL_STATES
from api.demo.folder import PROCESSES, write_parties, write_party
from api.demo.rounds.agreement import agree_on_rounds
from api.demo.rounds.modes import MODES
from api.demo.rounds.tables import AGGREGATOR, PARTIES
from api.demo.servers import Servers, free_ports
from api.demo.training.agreement import agree
from api.demo.training.tables import FEATURE_PARTY, LABEL_PARTY, breast_cancer
from parties.estimates.estimate import Estimate
from parties.estimates.estimator import measured_estimate
from vfl.kinds import kind_of
from vfl.message import MESSAGES
from vfl.spec.job import JobSpec

TICKS = os.sysconf("SC_CLK_TCK")
LOOK_SECONDS = 2.0
"""Each look costs the server some processor time too."""


class Prepared(NamedTuple):
    """A job whose parties' folders are written."""

    text: str
    spec: JobSpec
    rows: dict[str, dict[str, int]]
    coordinator: str
    ports: Mapping[str, tuple[int, int]]


def training(folder: Path, **how: Any) -> Prepared:
    table = breast_cancer()
    agreement = agree(table, epochs=None, seed=0, **how)
    ports = free_ports((LABEL_PARTY, FEATURE_PARTY))
    write_parties(folder, table, agreement, 0, ports)
    rows = {party: {"rows": table.rows} for party in ports}
    return Prepared(agreement.text, agreement.spec, rows, LABEL_PARTY, ports)


def rounds(folder: Path, mode: str) -> Prepared:
    agreement = agree_on_rounds(MODES[mode], rounds=None, seed=0)
    ports = free_ports(PARTIES)
    for party in PARTIES:
        write_party(folder, agreement.folder_of(party), 0, ports)
    files = {party: agreement.table.files[party] for party in PARTIES}
    rows = {
        party: {use: files[party][own.dataset].height for use, own in agreement.spec.tables_of(party).items()}
        for party in PARTIES
    }
    return Prepared(agreement.text, agreement.spec, rows, AGGREGATOR, ports)


JOBS: dict[str, Callable[[Path], Prepared]] = {
    "clear": partial(training, scheme="none"),
    "linear": partial(training, scheme="ckks"),
    "mlp": partial(training, scheme="ckks", top="mlp"),
    "embeddings": partial(training, scheme="ckks", layout="embeddings"),
    **{mode: partial(rounds, mode=mode) for mode in MODES},
}


def processor_seconds(folder: Path) -> float:
    """Of all servers, and of their workers that have ended."""
    total = 0
    for line in json.loads((folder / PROCESSES).read_text()):
        if line["kind"] == "server":
            words = Path(f"/proc/{line['pid']}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, words[11:15]))
    return total / TICKS


def run(folder: Path, job: Prepared) -> dict[str, float]:
    with Servers(folder, job.ports, job.coordinator) as servers:
        servers.grant(job.text)
        client = servers.client(job.coordinator)
        named = client.submit(job.text)["id"]
        while client.job(named)["state"] == "proposed":
            time.sleep(0.1)
        before = processor_seconds(folder)
        for party in job.ports:  # a worker that has not ended is not counted yet
            while servers.client(party).job(named)["state"] not in FINAL_STATES:
                time.sleep(LOOK_SECONDS)
        time.sleep(LOOK_SECONDS)
        ended, spent = client.job(named), processor_seconds(folder) - before
    if ended["state"] != "done":
        raise RuntimeError(f"the job is {ended['state']}: {ended['error']}")
    carried = sum(line["payload_bytes"] for line in ended["traffic"] if line["kind"] in MESSAGES)
    return {"seconds": ended["seconds"]["training"], "processor": spent, "bytes": carried}


def compared(forecast: Estimate, measured: dict[str, float]) -> dict[str, Any]:
    foreseen = {
        "seconds": forecast.seconds,
        "processor": sum(forecast.processor_seconds.values()),
        "bytes": float(sum(forecast.bytes_sent.values())),
    }
    return {
        name: {"forecast": value, "measured": measured[name], "ratio": value / measured[name]}
        for name, value in foreseen.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", choices=tuple(JOBS), nargs="+", default=list(JOBS))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as calibrated:
        for name in options.jobs:
            for _ in range(options.runs):
                with tempfile.TemporaryDirectory() as folder:
                    job = JOBS[name](Path(folder))
                    own = job.rows[job.coordinator].get("rows", 0)
                    plan = kind_of(job.spec).plan(job.spec, job.coordinator, own)
                    began = time.monotonic()
                    forecast = measured_estimate(Path(calibrated), job.spec, plan, job.rows, [], together=True)
                    took = time.monotonic() - began
                    line = {"job": name, "estimate_took": round(took, 1), **compared(forecast, run(Path(folder), job))}
                    line["load"] = os.getloadavg()[0]
                lines.append(line)
                if options.format == "text":
                    print(shown(line), flush=True)
    if options.format == "json":
        print(json.dumps(lines))


def shown(line: dict[str, Any]) -> str:
    parts = [f"{line['job']:16}"]
    for name in ("seconds", "processor", "bytes"):
        of = line[name]
        digits = 0 if name == "bytes" else 2
        parts.append(f"{name} {of['forecast']:,.{digits}f} / {of['measured']:,.{digits}f} = {of['ratio']:.2f}")
    return "   ".join([*parts, f"estimate in {line['estimate_took']} s, load {line['load']:.1f}"])


if __name__ == "__main__":
    main()
