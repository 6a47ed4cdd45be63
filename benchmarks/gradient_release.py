"""Two gains that were expected, measured on 16 columns x 8 units, batch 4096; one of them is kept.

    python benchmarks/gradient_release.py [--format json]

kept: products of error and embedding at the last level, under a first prime of 60 bits, without a rescale, against the
same products one level higher with a rescale.

not kept: sending each unit's masked error to the key owner, who knows the embedding in clear and returns the sum less
the opened sum of mask x embedding. It spares products and relinearisations, but every mask x embedding is still packed,
the masked errors travel whole, and the key owner decrypts and multiplies. Both sides' work is added up; packing, which
both ways pay, is left out of both. docs/adr/0007-no-masked-errors-to-the-key-owner.md says why.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from other_steps import BATCH, Case, table
from tenseal import sealapi

from crypto.ciphertexts import write_words
from crypto.ckks import CkksPrivateKey
from crypto.ckks_context import contexts_of, secret_under
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import PRESETS, RING_DEGREE
from crypto.ring import block_inner_products, uniform_words
from crypto.seal_stream import Words, read_ciphertext, read_plain_words
from vfl.planning.training import opened_per_step

RUNS = 5
PRESET = PRESETS["ckks-mlp"]
CASE = Case("linear", 8)


def milliseconds(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


class Ways:
    """Both ways over one batch that has crossed; each method does the work of one release."""

    def __init__(self) -> None:
        values = opened_per_step(CASE.specification(1))
        self._private = CkksPrivateKey(PRESET, values)
        self._public = CkksPublicKey(PRESET, self._private.public_material(values), values)
        self._contexts, self._modulus = contexts_of(PRESET), PRESET.data_moduli[0]
        columns = table()[0][:BATCH].clip(-3, 3)
        self._embedding = self._public.load(self._private.encrypt_rows(columns, 1), columns.shape[1], BATCH, 1)
        release = self._contexts.release.seal
        self._decryptor = sealapi.Decryptor(release, secret_under(self._private._secret, self._contexts.release))  # noqa: SLF001

    def _at(self, primes: int) -> list[Any]:
        return [self._public._at(vector.ciphertext, primes) for vector in self._embedding]  # noqa: SLF001

    def _decrypted(self, ciphertext: Any) -> Words:
        plain = sealapi.Plaintext()
        self._decryptor.decrypt(ciphertext, plain)
        return read_plain_words(plain)

    def products(self, primes: int) -> None:
        factors = self._at(primes)
        for error in factors[: CASE.hidden]:
            for factor in factors:
                result = sealapi.Ciphertext()
                self._contexts.data.evaluator.multiply(error, factor, result)
                if primes > 1:
                    self._contexts.data.evaluator.rescale_to_next_inplace(result)
                keys = self._public._relin_keys  # noqa: SLF001
                self._contexts.relinearise.evaluator.relinearize_inplace(result, keys)

    def masked_errors(self) -> None:
        factors, modulus, release = self._at(1), self._modulus, self._contexts.release
        self._public.prepare_zeros(CASE.hidden)
        own = [self._decrypted(factor) for factor in factors]  # key owner: its embedding with its noise
        for error in factors[: CASE.hidden]:
            mask = np.array(uniform_words(RING_DEGREE, modulus), np.uint64)
            plain = release.plain_words(mask, 1)
            for factor in factors:  # label party: mask x embedding
                release.evaluator.multiply_plain(factor, plain, sealapi.Ciphertext())
            zero = self._public._zeros.pop()  # noqa: SLF001
            zero.scale = error.scale
            release.evaluator.add_inplace(zero, error)
            words = read_ciphertext(zero)
            write_words((words[:, 0] + mask) % np.uint64(modulus), (modulus, modulus))
            opened = self._decrypted(zero)
            for factor in own:  # key owner: inner products with the embedding
                block_inner_products(opened, factor, 1, modulus)


def measure() -> dict[str, float]:
    ways = Ways()
    return {
        "products_a_level_higher_milliseconds": milliseconds(lambda: ways.products(2)),
        "products_at_the_last_level_milliseconds": milliseconds(lambda: ways.products(1)),
        "masked_errors_instead_milliseconds": milliseconds(ways.masked_errors),
        "masked_errors_bytes_down_per_sample": CASE.hidden * 2 * 8 * RING_DEGREE / BATCH,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    result = measure()
    if parser.parse_args().format == "json":
        print(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        print(f"{name.replace('_', ' '):<46} {value:8.1f}")


if __name__ == "__main__":
    main()
