"""Memory of one client of compressed-sync between rounds and in training, beside averaging (compressed_sync.md).

    python benchmarks/client_memory.py [--width 1024] [--format json]

One round of a network of eight hidden layers, 784-W-…-W-10, on 64 rows in batches of 16, each case in a process of its
own. `rest` is what the client keeps of the model between rounds. `peak` is how far the resident memory of the process
rises over what it was when the task arrived, the task included; the reply's making counts.
"""

import argparse
import json
import os
import subprocess
import sys
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "65536")  # what is freed goes back to the system, and counts no more

import numpy as np
from federation import AGGREGATOR, Dataset, setups, specification

from vfl.horizontal.aggregator import Aggregation
from vfl.horizontal.client import Participation

ROWS, BATCH, HIDDEN = 64, 16, 8
LAYERS = {"storage": "layers"}
CASES: dict[str, dict[str, Any] | None] = {
    "fp32": None,
    "model_4_4": {},
    "layers_8_4": {**LAYERS, "stored_bits": 8},
    "layers_4_4": LAYERS,
    "layers_4_4_momentum": {**LAYERS, "keep_optimiser": True},
}


def measure(case: str, width: int) -> dict[str, float]:
    terms = CASES[case]
    draw = np.random.Generator(np.random.Philox(width))
    rows = Dataset("random", draw.uniform(size=(ROWS, 784)), draw.integers(0, 10, ROWS).astype(float), (1, 28, 28), 1.0)
    momentum = 0.9 if case.endswith("momentum") else 0.0
    spec = specification(
        rows,
        1,
        model={"network": "mlp", "hidden": [width] * HIDDEN},
        train={"batch_rows": BATCH, "optimiser": {"name": "sgd", "rate": 0.01, "momentum": momentum}},
        rounds={"rounds": 2, **({} if terms is None else {"parts": ["compressed_sync"], "compressed_sync": terms})},
    )
    by_party = setups(spec, {"test": rows.table()}, [rows], 0)
    client = next(party for party in by_party if party != AGGREGATOR)
    side = Aggregation(by_party[AGGREGATOR])
    task = side.task(side.encoding.broadcast(1, side.parameters), 4)
    values = sum(tensor.numel() for tensor in side.parameters.values())
    del side, by_party[AGGREGATOR]
    participation = Participation(by_party[client])
    _reset_peak()
    before = _resident("VmRSS") - len(task.parameters)
    participation.reply_to(task)
    return {"rest": len(participation.stored()), "peak": _resident("VmHWM") - before, "plain": 4.0 * values}


def _reset_peak() -> None:
    with open("/proc/self/clear_refs", "w", encoding="ascii") as refs:  # noqa: PTH123 - a control file of the kernel
        refs.write("5")


def _resident(line: str) -> int:
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
        return next(1024 * int(text.split()[1]) for text in status if text.startswith(line))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        measure(arguments.case, 48)  # what libraries take once
        print(json.dumps(measure(arguments.case, arguments.width)))
        return
    results = {}
    for case in CASES:
        command = [sys.executable, __file__, "--case", case, "--width", str(arguments.width)]
        results[case] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if arguments.format == "json":
        print(json.dumps(results, indent=2))
        return
    print(
        f"{'':<22}{'MB at rest':>12}{'MB at peak':>12}   of {results['fp32']['plain'] / 1e6:.1f} MB at full precision"
    )
    for case, sizes in results.items():
        print(f"{case:<22}{sizes['rest'] / 1e6:>12.2f}{sizes['peak'] / 1e6:>12.2f}")


if __name__ == "__main__":
    main()
