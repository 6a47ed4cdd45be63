"""One hidden layer without a refresh against with one, where the two differ: milliseconds of a step (docs/adr, 0006).

    python benchmarks/refresh_cost.py [--format json]

16 columns, 8 units, batch 4096. Without a refresh fresh ciphertexts carry five primes, with one four would do. The
refresh is in its cheapest form: a cut error to the key owner, two primes back, no mask to lift. `round_trip`: a clear
step between two servers: 131 kB, as much as its way there, a short answer, and next to no computing. Medians.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from encrypted_step import seconds_per_step_over_http
from other_steps import BATCH, COLUMNS, Case

from crypto.ckks import CkksPrivateKey
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import PRESETS, CkksPreset

ROUNDS, UNITS = 9, 8
FIVE = PRESETS["ckks-mlp"]
FOUR = replace(FIVE, data_moduli=FIVE.data_moduli[:4], level_scales=(29, 0, 29), error_primes=1)
TABLE = np.random.Generator(np.random.Philox(0)).standard_normal((BATCH, COLUMNS))


class SmallClearCase(Case):
    def text(self, steps: int) -> str:
        return super().text(steps).replace('"ckks"', '"none"').replace(f"batch_rows = {BATCH}", "batch_rows = 1024")


def forward(preset: CkksPreset) -> Iterator[tuple[str, float]]:
    """From clear columns to squared hidden neurons: the time after each stage, bytes last."""
    private = CkksPrivateKey(preset, 1)
    public = CkksPublicKey(preset, private.public_material(1), 1)
    yield "start", time.perf_counter()
    sent = private.encrypt_rows(TABLE, 1)
    yield "encrypt", time.perf_counter()
    embedding = public.load(sent, COLUMNS, BATCH, 1)
    yield "load", time.perf_counter()
    hidden = [public.weighted_sum(embedding, weights, np.zeros(BATCH)) for weights in TABLE[:UNITS]]
    yield "weighted_sums", time.perf_counter()
    _ = [public.product(neuron, neuron) for neuron in hidden]
    yield "squares", time.perf_counter()
    yield "bytes_per_sample", len(sent) / BATCH


def refresh() -> Iterator[tuple[str, float]]:
    two = replace(FIVE, data_moduli=FIVE.data_moduli[:2], level_scales=(29,), error_primes=1)
    private = CkksPrivateKey(two, 1)
    public = CkksPublicKey(two, private.public_material(0), 0)
    vectors = public.load(private.encrypt_rows(TABLE[:, :1], 1), 1, BATCH, 1)
    yield "start", time.perf_counter()
    there = public.cut_errors(vectors, np.ones((1, 1)), TABLE[:, :1] + 1j * TABLE[:, 1:2])
    back = private.encrypt_rows(private.decrypt_cut(there, 1, BATCH), 1)
    public.load(back, 1, BATCH, 1)
    yield "computing", time.perf_counter()
    yield "bytes_per_sample", (len(there) + len(back)) / BATCH


def measured(marks: Iterator[tuple[str, float]]) -> dict[str, float]:
    names, values = zip(*marks, strict=True)
    parts = (1e3 * np.diff(values[:-1])).tolist()
    return {**dict(zip(names[1:-1], parts, strict=True)), "computing": sum(parts), names[-1]: values[-1]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    as_json = parser.parse_args().format == "json"
    cases = {"five_primes": lambda: forward(FIVE), "four_primes": lambda: forward(FOUR), "refresh": refresh}
    rounds = [{name: measured(run()) for name, run in cases.items()} for _ in range(ROUNDS)]
    result = {n: {k: round(statistics.median(r[n][k] for r in rounds), 1) for k in rounds[0][n]} for n in cases}
    result["refresh"]["round_trip"] = round(1e3 * seconds_per_step_over_http(SmallClearCase("linear")), 1)
    print(json.dumps(result, indent=2) if as_json else "\n".join(f"{n}: {parts}" for n, parts in result.items()))
