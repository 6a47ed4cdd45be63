"""Time and memory of a simulation: 300 clients train a small network on generated images for 20 rounds.

    .venv/bin/python benchmarks/simulation.py [--clients 300] [--rounds 20] [--processes 2] [--format json]

Runs `vfl run` on a specification it writes, and adds up the memory of the command and its processes, shared pages
counted once, five times a second. Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPEC = """
[job]
name = "synthetic_images"
protocol = "rounds"
task = "multiclass"
classes = 10
[simulation]
dataset = "synthetic_images"
rows = {rows}
clients = {clients}
partition = {{ kind = "dirichlet", alpha = 0.5 }}
[model]
network = "small_cnn"
input_shape = [1, 28, 28]
input_range = [0.0, 1.0]
label = "label"
[train]
batch_rows = 16
optimiser = {{ rate = 0.1 }}
[rounds]
rounds = {rounds}
"""

ROWS_PER_CLIENT = 33
LOOK_SECONDS = 0.2


def proportional_bytes(process: int) -> int:
    """Memory of a process and its descendants, a page that several share counted in parts; 0 once it is gone."""
    folder = Path(f"/proc/{process}")
    try:
        smaps = (folder / "smaps_rollup").read_text()
        children = [child for task in (folder / "task").iterdir() for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    own = next(int(line.split()[1]) for line in smaps.splitlines() if line.startswith("Pss:"))
    return 1024 * own + sum(proportional_bytes(int(child)) for child in children)


def measured(clients: int, rounds: int, processes: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "images.toml"
        spec.write_text(SPEC.format(rows=ROWS_PER_CLIENT * clients, clients=clients, rounds=rounds))
        command = [sys.executable, "-m", "api.cli.main", "run", str(spec), "--processes", str(processes)]
        started, peak = time.monotonic(), 0
        with subprocess.Popen([*command, "--output", f"{folder}/out"], stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                peak = max(peak, proportional_bytes(process.pid))
                time.sleep(LOOK_SECONDS)
        seconds = time.monotonic() - started
        answer = json.loads((Path(folder) / "out" / "report.json").read_text())
    return {
        "clients": clients,
        "rounds": rounds,
        "processes": processes,
        "seconds": round(seconds, 1),
        "peak_mebibytes": round(peak / 2**20),
        "fewest_rows": answer["rows"]["fewest"],
        "accuracy": answer["metrics"]["accuracy"],
        "bytes_down": answer["bytes"]["down"],
        "bytes_up": answer["bytes"]["up"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    results = measured(arguments.clients, arguments.rounds, arguments.processes)
    if arguments.format == "json":
        print(json.dumps(results, indent=2))
    else:
        print("\n".join(f"{name:<16}{value:>14,}" for name, value in results.items()))


if __name__ == "__main__":
    main()
