"""One training step on packed Paillier ciphertexts against one value per ciphertext on plain phe, in one run.

    .venv-paillier/bin/python benchmarks/paillier_step.py [--format json] [--bits 2048 3072] [--rows 1024]

16 columns of the feature party, none of the label party, one process, both sides' work added up. By size of the key:

- samples_per_second: rows of a step of the first epoch, in which rows are encrypted, by the time of all of it
- packed_over_unpacked: the same over that of the unpacked step
- online_over_unpacked: without what is made ahead, which depends on no row: random powers and the key's table
- bytes_up_per_sample, unpacked_bytes_up_per_sample: what the feature party sends
- encrypt_speedup: time of an encryption of phe over ours, both with gmpy2, its random power counted in both
- later_epoch_samples_per_second: a step of a later epoch, whose rows are encrypted already

The unpacked step is the usual one with phe's own operations: a ciphertext for each value, a masked error for each row,
and a correction for each column (docs/adr/0018). It runs on `UNPACKED_ROWS` rows, as each row costs the same; what a
step costs once is counted once.
"""

import argparse
import json
import secrets
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np
import phe

from crypto.paillier import PaillierPrivateKey, PaillierPublicKey
from crypto.paillier_parameters import PaillierParameters
from crypto.paillier_sums import (
    LinearErrors,
    agreed_bits,
    encrypted_sums,
    gradients,
    packed_moments,
    packed_rows,
    unflattened,
)

COLUMNS, UNPACKED_ROWS, ENCRYPTIONS, ROUNDS = 16, 12, 40, 3
WEIGHT_LIMIT, FRACTION_BITS, MASK_BITS = 12.0, 12, 100
T = TypeVar("T")


class Clock:
    """Processor time, because the machine may be shared; by what it was spent on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def time(self, name: str, work: Callable[[], T]) -> T:
        began = time.process_time()
        done = work()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began
        return done


def packed_step(
    key: PaillierPrivateKey, public: PaillierPublicKey, p: PaillierParameters, rows: int
) -> dict[str, float]:
    draws = np.random.default_rng(rows)
    z = draws.integers(-3 * p.one, 3 * p.one, size=(rows, COLUMNS))
    errors = LinearErrors(
        draws.integers(-p.one // 2, p.one // 2, size=(1, COLUMNS)), draws.integers(-p.one, p.one, size=(rows, 1))
    )
    own, clock = np.full((rows, 1), p.one), Clock()
    opened = p.opened_numbers(COLUMNS, 0, 1)
    chunks = len(p.chunks(COLUMNS))
    clock.time("ahead: random powers of rows", lambda: key.prepare(rows * chunks))
    encrypted = clock.time("rows", lambda: key.encrypt(packed_rows(z, p)))
    table = clock.time("rows", lambda: unflattened(public.load(encrypted, rows * chunks), COLUMNS, p))
    clock.time("ahead: random powers", lambda: key.prepare(COLUMNS * chunks))
    clock.time("ahead: random powers", lambda: public.prepare(opened))
    of_moments = clock.time("step", lambda: key.encrypt(packed_moments(z, p)))
    moments = clock.time("step", lambda: unflattened(public.load(of_moments, COLUMNS * chunks), COLUMNS, p))
    sums = clock.time("step", lambda: encrypted_sums(public, moments, table, errors, own, p))
    masked, masks = clock.time("step", lambda: public.mask(sums))
    answer = clock.time("step", lambda: key.written(agreed_bits(key.open(masked, opened), COLUMNS, 1, p)))
    result = clock.time("step", lambda: gradients(masks.remove(answer), errors, own, p))
    expected = (z.astype(object) @ errors.weights[0].astype(object) + errors.constants[:, 0].astype(object) * p.one) @ z
    if result[:COLUMNS].tolist() != [value / p.one**3 for value in expected]:
        raise ValueError("the packed step is not exact")
    spent = clock.seconds
    later = spent["step"] + spent["ahead: random powers"]
    return {
        "whole": later + spent["rows"] + spent["ahead: random powers of rows"],
        "online": spent["step"] + spent["rows"],
        "later": later,
        "bytes_up": float(len(encrypted) + len(of_moments) + len(answer)),
    }


def unpacked_step(private: phe.PaillierPrivateKey, rows: int) -> float:
    """Seconds of a step of so many rows, with phe alone."""
    public, unit = private.public_key, 1 << FRACTION_BITS
    n, draws = public.n, np.random.default_rng(1)
    z = draws.integers(-3 * unit, 3 * unit, size=(UNPACKED_ROWS, COLUMNS)).tolist()
    weights = draws.integers(-unit // 2, unit // 2, size=COLUMNS).tolist()
    labels = draws.integers(0, unit, UNPACKED_ROWS).tolist()
    began = time.process_time()
    columns = [[phe.EncryptedNumber(public, public.raw_encrypt(value % n)) for value in row] for row in z]
    masks, errors = [secrets.randbits(MASK_BITS) for _ in z], []
    for row, label, mask in zip(columns, labels, masks, strict=True):
        error = _sum(value * weight for value, weight in zip(row, weights, strict=True)) + (mask - label * unit)
        errors.append(error.ciphertext())  # which re-randomises it
    read = [_signed(private.raw_decrypt(error), n) for error in errors]
    corrections = [_sum(row[at] * mask for row, mask in zip(columns, masks, strict=True)) for at in range(COLUMNS)]
    of_rows, began = time.process_time() - began, time.process_time()
    sums = []
    for at, correction in enumerate(corrections):
        offset = secrets.randbelow(n)
        hidden = correction.ciphertext(be_secure=False) * public.raw_encrypt(offset) % public.nsquare
        of_column = sum(value * row[at] for value, row in zip(read, z, strict=True))
        sums.append(_signed((of_column - private.raw_decrypt(hidden) + offset) % n, n))
    of_columns, clear = time.process_time() - began, np.array(z, dtype=object)
    expected = (clear @ np.array(weights, dtype=object) - np.array(labels, dtype=object) * unit) @ clear
    if sums != expected.tolist():
        raise ValueError("the unpacked step is not exact")
    return of_rows * rows / UNPACKED_ROWS + of_columns


def _sum(numbers: Iterable[Any]) -> Any:
    first, *others = numbers
    return sum(others, first)


def _signed(number: int, n: int) -> int:
    return number - n if number > n // 2 else number


def encryption_seconds(public: phe.PaillierPublicKey, key: PaillierPrivateKey) -> tuple[float, float]:
    """(phe, ours), each with its random power."""
    began = time.process_time()
    for number in range(ENCRYPTIONS):
        public.raw_encrypt(number)
    theirs = time.process_time() - began
    began = time.process_time()
    key.encrypt(range(ENCRYPTIONS))
    return theirs / ENCRYPTIONS, (time.process_time() - began) / ENCRYPTIONS


def measured(bits: int, rows: int) -> dict[str, float]:
    p = PaillierParameters(bits, FRACTION_BITS, WEIGHT_LIMIT, rows)
    key = PaillierPrivateKey(bits)
    public = PaillierPublicKey(key.material, bits)
    _, theirs = phe.generate_paillier_keypair(n_length=bits)
    rounds = []
    for _ in range(ROUNDS):
        packed = packed_step(key, public, p, rows)
        unpacked = unpacked_step(theirs, rows)
        usual, ours = encryption_seconds(theirs.public_key, key)
        rounds.append(
            {
                "samples_per_second": rows / packed["whole"],
                "packed_over_unpacked": unpacked / packed["whole"],
                "online_over_unpacked": unpacked / packed["online"],
                "bytes_up_per_sample": packed["bytes_up"] / rows,
                "unpacked_bytes_up_per_sample": COLUMNS * bits / 4 + COLUMNS * bits / 8 / rows,
                "encrypt_speedup": usual / ours,
                "later_epoch_samples_per_second": rows / packed["later"],
                "unpacked_samples_per_second": rows / unpacked,
            }
        )
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--format", choices=["text", "json"], default="text")
    parser.add_argument("--bits", type=int, nargs="+", default=[2048, 3072])
    parser.add_argument("--rows", type=int, default=1024)
    arguments = parser.parse_args()
    result: dict[str, Any] = {str(bits): measured(bits, arguments.rows) for bits in arguments.bits}
    if arguments.format == "json":
        print(json.dumps(result))
        return
    for bits, numbers in result.items():
        print(f"{bits} bits")
        for name, value in numbers.items():
            print(f"  {name:32} {value:10.1f}")


if __name__ == "__main__":
    main()
