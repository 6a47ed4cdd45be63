"""Memory of a training as its tables grow: what each process holds at most, for tables of more and more rows.

    python benchmarks/training_memory.py [--rows 30000 300000 3000000] [--columns 8]

Two servers on this machine train a linear model in layout features for one epoch on made-up tables. Printed are the
largest resident sizes of a server and of a worker, in MB, from the moment the job is proposed.
"""

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from api.demo.folder import PartyFolder, write_party
from api.demo.servers import Servers, free_ports

LABEL, FEATURE = "label-party", "feature-party"
LOOK_SECONDS, JOB_SECONDS = 0.05, 3600.0
SPEC = """
job = {{ name = "memory", task = "binary", seed = 0 }}
roster = {{ label = "{label}", features = ["{feature}"] }}
train = {{ epochs = 1, batch_rows = 4096 }}
encryption = {{ scheme = "{scheme}" }}
[data]
{label} = {{ dataset = "rows", label = "y" }}
{feature} = {{ dataset = "rows", columns = {columns} }}
"""


class Process(NamedTuple):
    command: str
    parent: int
    megabytes: float


def _process(folder: Path) -> tuple[int, Process] | None:
    """By its number; None for one that is gone."""
    try:
        command = (folder / "cmdline").read_text()
        lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        return int(folder.name), Process(command, int(lines["PPid"]), int(lines["VmRSS"].split()[0]) / 1024)
    except (OSError, KeyError):
        return None


class Watch(threading.Thread):
    """The largest resident size of the servers in this folder and of their workers."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.megabytes: dict[str, float] = {}
        self._folder, self._over = folder, threading.Event()

    def run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            processes = dict(filter(None, map(_process, Path("/proc").glob("[0-9]*"))))
            servers = {at for at, process in processes.items() if str(self._folder) in process.command}
            for at, process in processes.items():
                kind = "server" if at in servers else "worker" if process.parent in servers else ""
                if kind:
                    self.megabytes[kind] = max(self.megabytes.get(kind, 0.0), process.megabytes)

    def stop(self) -> None:
        self._over.set()
        self.join()


def tables(rows: int, columns: int) -> dict[str, pl.DataFrame]:
    random = np.random.default_rng(0)
    names = [f"c{at}" for at in range(columns)]
    ids = pl.select(pl.int_range(rows).cast(pl.String).alias("id")).to_series()
    features = pl.DataFrame({"id": ids} | {name: random.normal(size=rows).astype(np.float32) for name in names})
    return {FEATURE: features, LABEL: pl.DataFrame({"id": ids, "y": (features["c0"] > 0).cast(pl.Int8)})}


def measure(rows: int, columns: int, scheme: str) -> dict[str, Any]:
    names = [f"c{at}" for at in range(columns)]
    spec = SPEC.format(label=LABEL, feature=FEATURE, columns=names, scheme=scheme)
    with tempfile.TemporaryDirectory() as name:
        folder, ports = Path(name), free_ports((LABEL, FEATURE))
        acceptance = {"datasets": ["rows"], "schemes": [scheme], "fixed_seed": True}
        for party, peer in ((LABEL, FEATURE), (FEATURE, LABEL)):
            own = PartyFolder(party, (peer,), {"rows": tables(rows, columns)[party]}, "id", acceptance)
            write_party(folder, own, 0, ports)
        with Servers(folder, ports, LABEL) as servers:
            servers.grant(spec)
            watch, began = Watch(folder), time.monotonic()
            watch.start()
            client = servers.client(LABEL)
            job = client.submit(spec)["id"]
            while (shown := client.job(job))["state"] in {"proposed", "running"}:
                servers.check()
                if time.monotonic() - began > JOB_SECONDS:
                    sys.exit("the job takes too long")
                time.sleep(0.5)
            watch.stop()
    if shown["state"] != "done":
        sys.exit(f"the job ended as {shown['state']}: {shown['error']}")
    return watch.megabytes | {"seconds": time.monotonic() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[30_000, 300_000, 3_000_000])
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--scheme", choices=("ckks", "none"), default="ckks")
    arguments = parser.parse_args()
    print("rows, MB at most of a server and of a worker, seconds")
    for rows in arguments.rows:
        sizes = measure(rows, arguments.columns, arguments.scheme)
        print(f"{rows:>9,} {sizes['server']:8.0f} {sizes['worker']:8.0f} {sizes['seconds']:8.0f}", flush=True)


if __name__ == "__main__":
    main()
