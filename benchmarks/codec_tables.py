"""Error, bias, size and speed of the rotation codec at 1 to 8 bits, beside Hadamard with min-max and the other codecs.

    python benchmarks/codecs.py [--format json]

vnmse: squared error over squared norm, unbiased scale, mean of 8 messages of 2^17 values; of normal, log-normal and
Student-t (5 degrees) input the one furthest from theory. bias_sigma: distance of the mean of 1,000 decodes (fresh
seeds, 2^14 values) from the input, in standard errors of that mean; no bias gives 1; the largest of three inputs.
bits_per_parameter: a whole message with one matrix of 1024 x 1024. Megabytes of float32 per second of one core: 2^20
values, one thread, processor time, median of 15. hadamard_minmax_vnmse: the smallest of the three inputs.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from hadamard_minmax import HADAMARD_MINMAX
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from vfl.codecs import CODECS, Codec
from vfl.codecs.codec import Floats
from vfl.codecs.parameters import Format, encode_parameters
from vfl.codecs.rotation import stated_error

MESSAGES, DECODES, REPEATS = 8, 1000, 15
LONG, SHORT, SIDE = 1 << 17, 1 << 14, 1024
INPUTS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda draw, count: draw.standard_normal(count).astype(np.float32),
    "log-normal": lambda draw, count: draw.lognormal(size=count).astype(np.float32),
    "student-t": lambda draw, count: draw.standard_t(5, count).astype(np.float32),
}
ROTATION = CODECS["rotation"]


def inputs(name: str, count: int) -> Floats:
    return INPUTS[name](np.random.Generator(np.random.Philox(count)), count)


def decodes(codec: Codec, values: Floats, bits: int, number: int, *, unbiased: bool = True) -> list[Floats]:
    seeds = [message.to_bytes(4, "big") for message in range(number)]
    bodies = [codec.encode(values, bits, seed, unbiased=unbiased) for seed in seeds]
    return [codec.decode(body, len(values), bits, seed) for body, seed in zip(bodies, seeds, strict=True)]


def squared(values: NDArray[Any]) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def vnmse(codec: Codec, name: str, bits: int, *, unbiased: bool = True) -> float:
    values = inputs(name, LONG)
    answers = decodes(codec, values, bits, MESSAGES, unbiased=unbiased)
    return statistics.fmean(squared(answer - values) for answer in answers) / squared(values)


def bias_sigma(name: str, bits: int) -> float:
    values = inputs(name, SHORT)
    answers = decodes(ROTATION, values, bits, DECODES)
    variance = statistics.fmean(squared(answer - values) for answer in answers) / DECODES
    return float(np.sqrt(squared(np.mean(answers, axis=0, dtype=np.float64) - values) / variance))


def megabytes_per_second(run: Callable[[], object], count: int) -> float:
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return 4e-6 * count / statistics.median(seconds)


def row(bits: int) -> dict[str, float]:
    theory = stated_error(bits, unbiased=True)
    values = inputs("normal", SIDE * SIDE)
    message = encode_parameters({"w": values.reshape(SIDE, SIDE)}, Format("rotation", bits, unbiased=True), b"size")
    body = ROTATION.encode(values, bits, b"speed", unbiased=True)
    return {
        "vnmse": max((vnmse(ROTATION, name, bits) for name in INPUTS), key=lambda error: abs(error - theory)),
        "theory": theory,
        "bias_sigma": max(bias_sigma(name, bits) for name in INPUTS),
        "bits_per_parameter": 8 * len(message) / len(values),
        "encode_megabytes_per_second": megabytes_per_second(
            lambda: ROTATION.encode(values, bits, b"speed", unbiased=True), len(values)
        ),
        "decode_megabytes_per_second": megabytes_per_second(
            lambda: ROTATION.decode(body, len(values), bits, b"speed"), len(values)
        ),
        "hadamard_minmax_vnmse": min(vnmse(HADAMARD_MINMAX, name, bits) for name in INPUTS),
    }


def others(bits: int) -> list[float]:
    """Errors of the other codecs on normal and on log-normal input."""
    cases = [("uniform", True), ("block", True), ("block", False), ("grid", True)]
    return [
        vnmse(CODECS[codec], name, bits, unbiased=unbiased)
        for codec, unbiased in cases
        for name in ("normal", "log-normal")
    ]


def dominating(length: int, bits: int) -> float:
    """What a value of 1 among normal values of 0.01 becomes in the mean of 1,000 decodes: the rotation's weak side."""
    values = np.float32(0.01) * inputs("normal", length)
    values[0] = 1
    return statistics.fmean(float(answer[0]) for answer in decodes(ROTATION, values, bits, DECODES))


def text(rows: dict[str, dict[str, float]]) -> str:
    lines = ["bits     vnmse    theory  bias  bits per   encode   decode  Hadamard"]
    lines += ["                      sigma parameter     MB/s     MB/s  min-max"]
    for bits, r in rows.items():
        speeds = f"{r['encode_megabytes_per_second']:8.0f} {r['decode_megabytes_per_second']:8.0f}"
        errors = f"{r['vnmse']:9.3e} {r['theory']:9.3e} {r['bias_sigma']:5.3f}"
        lines += [f"{bits:>4} {errors} {r['bits_per_parameter']:9.4f} {speeds} {r['hadamard_minmax_vnmse']:9.3e}"]
    lines += ["", "vnmse    uniform           block             block, nearest    grid"]
    lines += ["bits" + 4 * "   normal log-norm."]
    lines += [f"{bits:>4}" + "".join(f"{error:9.2e}" for error in others(int(bits))) for bits in rows]
    lines += [
        "",
        "mean of what a dominating value of 1 becomes, by length of its block",
        "bits      128     1024    16384",
    ]
    lines += [
        f"{bits:>4}" + "".join(f"{dominating(n, bits):9.3f}" for n in (128, 1024, SHORT)) for bits in (1, 2, 3, 4)
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    as_json = parser.parse_args().format == "json"
    with threadpool_limits(1):
        table = {str(bits): row(bits) for bits in ROTATION.widths}
        print(json.dumps(table, indent=2) if as_json else text(table))
