"""How long two parties take to align their ids, and with how much memory, through two real servers over TLS.

    python benchmarks/alignment.py [--ids 10000 100000 1000000] [--format text|json]

Each party brings so many ids, half of which the other has too. All sizes run one after the other between one pair of
servers. Seconds are from the submit to the end at both. Processor seconds are those of all servers, workers and
children of workers; memory is the largest resident size that any of them had.
"""

import argparse
import contextlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from api.demo.folder import PartyFolder, write_party
from api.demo.servers import Servers, free_ports

FIRST, OTHER = "bank", "telco"
LOOK_SECONDS = 0.5
KINDS = {"api.cli.demo_server": "server", "parties.worker": "worker", "parties.worker.child": "child"}
SPECIFICATION = """
[job]
name = "align-{ids}"
protocol = "alignment"
[roster]
parties = ["bank", "telco"]
[data]
bank = {{ dataset = "people-{ids}", id = ["id"] }}
telco = {{ dataset = "people-{ids}", id = ["id"] }}
"""


def write_parties(folder: Path, sizes: list[int], ports: Mapping[str, tuple[int, int]]) -> None:
    draws = np.random.default_rng(0)
    for party, peer, offset in ((FIRST, OTHER, 0), (OTHER, FIRST, 1)):
        files = {}
        for ids in sizes:
            numbers = draws.permutation(ids) + offset * (ids // 2)
            files[f"people-{ids}"] = pl.DataFrame({"id": [f"customer-{number:09}" for number in numbers]})
        acceptance = {"datasets": list(files), "schemes": ["common_ids"]}
        write_party(folder, PartyFolder(party, (peer,), files, "id", acceptance), 0, ports)


class Watch:
    """What the servers, workers and children use while something runs: processor time, and memory by kind."""

    def __init__(self) -> None:
        self.megabytes: dict[str, float] = {}
        self._used: dict[str, float] = {}
        self._before: dict[str, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._before = dict(self._used)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    @property
    def processor_seconds(self) -> float:
        return sum(used - self._before.get(process, 0.0) for process, used in self._used.items())

    def _keep_looking(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        ours = {str(os.getpid())}
        for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):  # parents come first
            with contextlib.suppress(OSError, StopIteration):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                if fields[1] not in ours:
                    continue
                ours.add(process.name)
                self._used[process.name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                peak = next(line for line in (process / "status").read_text().splitlines() if line.startswith("VmHWM"))
                kind = next(KINDS[word] for word in (process / "cmdline").read_text().split("\0") if word in KINDS)
                self.megabytes[kind] = max(self.megabytes.get(kind, 0.0), int(peak.split()[1]) / 1024)


def align(servers: Servers, ids: int) -> dict[str, Any]:
    text = SPECIFICATION.format(ids=ids)
    servers.grant(text)
    client = servers.client(FIRST)
    with Watch() as watch:
        began = time.monotonic()
        job = client.submit(text)["id"]
        for _ in client.follow(job):
            pass
        while not servers.client(OTHER).job(job)["finished_at"]:
            time.sleep(LOOK_SECONDS)
        seconds = time.monotonic() - began
    ended = client.job(job)
    if ended["state"] != "done" or ended["metrics"]["common_ids"] != ids // 2:
        raise RuntimeError(f"the job is {ended['state']}: {ended['error']}, {ended['metrics']}")
    sent = sum(line["payload_bytes"] for line in ended["traffic"] if line["direction"] == "sent")
    return {
        "ids": ids,
        "common": int(ended["metrics"]["common_ids"]),
        "seconds": round(seconds, 2),
        "microseconds_per_id": round(1e6 * seconds / ids, 1),
        "processor_seconds": round(watch.processor_seconds, 1),
        "sent_megabytes_each": round(sent / 1e6, 2),
        "peak_megabytes": {kind: round(peak) for kind, peak in sorted(watch.megabytes.items())},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ids", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--format", choices=("text", "json"), default="text")
    options = parser.parse_args()
    ports, lines = free_ports((FIRST, OTHER)), []
    with tempfile.TemporaryDirectory() as name:
        write_parties(Path(name), options.ids, ports)
        with Servers(Path(name), ports, FIRST) as servers:
            for ids in options.ids:
                lines.append(align(servers, ids))
                if options.format == "text":
                    print(lines[-1], flush=True)
    if options.format == "json":
        print(json.dumps(lines))


if __name__ == "__main__":
    main()
