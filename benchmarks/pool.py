"""What a second process brings: the heavy work of one party, in its worker alone and by a pool of two, in one run.

    .venv-paillier/bin/python benchmarks/pool.py [--format text|json] [--only NAME ...] [--rounds 3]

Parts: rows encrypted and a step of the label party under CKKS (linear and 8 hidden units, 16 columns, blocks of 4,096
rows), rows encrypted, a step and random powers of the label party under Paillier (only where the extra is installed),
points of an alignment. Each part runs alone and by the pool in turn; medians of the rounds. By part:

- one_seconds: by the clock, in one process
- speedup: that over the time by the clock of two child processes, which on a machine with other work says little
- one_processor_seconds, processor_seconds: of all processes together
- speedup_of_processor_time: what two idle cores would give at best: processor seconds of one process over those of the
  busiest process, or over half of all, whichever is more
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from crypto.blinding import HASH_BYTES, BlindingKey, points_of_hashes
from crypto.ckks import CkksPrivateKey
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import PRESETS, SLOTS
from crypto.paillier_parameters import PaillierParameters, missing_packages
from crypto.pieces import HERE, Pool
from parties.worker.pool import WorkPool
from vfl.models.polynomial import Top
from vfl.models.scorer import Shape
from vfl.protocols.ckks_blocks import StepBlocks, step_of
from vfl.spec.sections import Optimiser

COLUMNS, IDS = 16, 8192
BLOCKS = {"ckks-linear": 32, "ckks-mlp": 8}
BITS, ROWS, OWN = 3072, 2048, 4

Part = Callable[[Pool], Any]


def ckks() -> Iterator[tuple[str, Part]]:
    z = np.random.default_rng(1).normal(size=(SLOTS, COLUMNS)).clip(-3, 3)
    own, targets = np.zeros((SLOTS, 0)), np.zeros((SLOTS, 1))
    for name, blocks in BLOCKS.items():
        preset, hidden = PRESETS[name], 8 if name == "ckks-mlp" else 0
        shape = Shape(COLUMNS, 0, hidden, 1)
        values = hidden * (COLUMNS + 1) + hidden + 1 if hidden else COLUMNS + 1
        private = CkksPrivateKey(preset, 4096)
        material = private.public_material(values)
        public = CkksPublicKey(preset, material, values)
        top = Top(shape, "linear", Optimiser(), bytes(32), preset.weight_limit)
        step = step_of(preset, values, material, top, np.zeros((shape.joined, 0)), 0.0)
        sent = private.encrypt_rows(z, 1)

        def encrypted(pool: Pool, private: Any = private, blocks: int = blocks) -> None:
            for _ in range(blocks):
                private.encrypt_rows(z, 1, pool)

        def of_label(pool: Pool, step: Any = step, public: Any = public, sent: bytes = sent, n: int = blocks) -> None:
            work = StepBlocks(pool, step, public, n)
            for _ in range(n):
                work.give(sent, 1, own, targets, None)
            work.summed()

        yield f"{name}: {blocks} blocks encrypted", encrypted
        yield f"{name}: step of the label party, {blocks} blocks", of_label


def paillier() -> Iterator[tuple[str, Part]]:
    from crypto.paillier import PaillierPrivateKey, PaillierPublicKey  # noqa: PLC0415 - of an extra
    from crypto.paillier_sums import (  # noqa: PLC0415
        LinearErrors,
        encrypted_sums,
        packed_moments,
        packed_rows,
        unflattened,
    )

    p, draws = PaillierParameters(BITS, 12, 12.0, ROWS), np.random.default_rng(2)
    key = PaillierPrivateKey(BITS)
    public = PaillierPublicKey(key.material, BITS)
    z = draws.integers(-3 * p.one, 3 * p.one, size=(ROWS, COLUMNS))
    errors = LinearErrors(
        draws.integers(-p.one // 2, p.one // 2, size=(1, COLUMNS)), draws.integers(-p.one, p.one, size=(ROWS, 1))
    )
    own, plain = draws.integers(-p.one, p.one, size=(ROWS, OWN)), packed_rows(z, p)
    rows = unflattened(public.load(key.encrypt(plain), len(plain)), COLUMNS, p)
    of_moments = packed_moments(z, p)
    moments = unflattened(public.load(key.encrypt(of_moments), len(of_moments)), COLUMNS, p)

    def powers(pool: Pool) -> None:
        PaillierPublicKey(key.material, BITS).prepare(64, pool)

    yield f"paillier: {ROWS} rows encrypted", lambda pool: key.encrypt(plain, pool)
    yield "paillier: sums of the label party", lambda pool: encrypted_sums(public, moments, rows, errors, own, p, pool)
    yield "paillier: random powers of the label party", powers


def alignment() -> Iterator[tuple[str, Part]]:
    scalar, hashes = BlindingKey().scalar(), [os.urandom(512 * HASH_BYTES) for _ in range(IDS // 512)]
    yield f"alignment: {IDS} ids", lambda pool: list(pool.map(points_of_hashes, scalar, hashes))


def processor_seconds(pids: list[int]) -> list[float]:
    """User and system time so far, of each."""
    ticks = os.sysconf("SC_CLK_TCK")
    stats = (Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split() for pid in pids)
    return [(int(stat[11]) + int(stat[12])) / ticks for stat in stats]


def timed(part: Part, pool: Pool, pids: list[int]) -> tuple[float, list[float]]:
    before, began = processor_seconds(pids), time.perf_counter()
    part(pool)
    seconds = time.perf_counter() - began
    return seconds, [after - so_far for so_far, after in zip(before, processor_seconds(pids), strict=True)]


def measured(part: Part, pool: WorkPool, rounds: int) -> dict[str, float]:
    part(HERE)
    part(pool)  # contexts, tables and keys are made once in each process
    here, pids = [os.getpid()], [os.getpid(), *pool.pids]
    results = []
    for _ in range(rounds):
        (one, of_one), (two, of_two) = timed(part, HERE, here), timed(part, pool, pids)
        results.append(
            {
                "one_seconds": one,
                "speedup": one / two,
                "one_processor_seconds": sum(of_one),
                "processor_seconds": sum(of_two),
                "speedup_of_processor_time": sum(of_one) / max(sum(of_two) / 2, *of_two),
            }
        )
    return {name: statistics.median(result[name] for result in results) for name in results[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--format", choices=["text", "json"], default="text")
    parser.add_argument("--only", nargs="+", choices=["ckks", "paillier", "alignment"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    kinds = {"ckks": ckks, "paillier": paillier, "alignment": alignment}
    if missing_packages():
        del kinds["paillier"]
    pool, results = WorkPool(2, 0), {}
    for name, parts in kinds.items():
        if arguments.only and name not in arguments.only:
            continue
        for title, part in parts():
            results[title] = measured(part, pool, arguments.rounds)
            if arguments.format == "text":
                print(title)
                for figure, value in results[title].items():
                    print(f"  {figure:28} {value:8.2f}", flush=True)
    pool.close()
    if arguments.format == "json":
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
