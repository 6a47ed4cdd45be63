"""Both ends of scoring under a key of the label party: what linear models and networks have in common.

The label party owns the key, encrypts weights and alone sees what is decrypted. The feature party multiplies with its
columns and keeps three rules:

1. What it returns is first re-randomised with a fresh encryption of zero; else the second polynomial is a linear
   system in its columns.
2. Of the first polynomial only as many numbers travel as rows were agreed on; else weights that the label party chooses
   would read as many as the ring has coefficients, however few rows are scored.
3. Each of them gets noise, which covers the ciphertext noise that depends on the columns.

The public key and every ciphertext travel seeded, so that the random halves are not the key owner's choice.
"""

import functools
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from crypto.ciphertexts import Seeded, read_seeded, read_words, word_bytes, write_seeded, write_words
from crypto.ckks_context import Context, fresh_secret, load_public_key, secret_under, seeded_public_key
from crypto.errors import InvalidCiphertext
from crypto.noise import gaussian
from crypto.scoring_parameters import (
    DEGREE,
    FIRST,
    PUBLIC_MODULI,
    RESCALE,
    SPECIAL,
    WEIGHT_MODULI,
    ScoreScale,
)
from crypto.seal_stream import ciphertext_payload, identifier, load, payload, read_ciphertext, seeded_payload, stream
from crypto.seal_stream import read_seeded as parse_seeded

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]


class WeightMaterial(NamedTuple):
    """A key's public part and the weights under it, in wire form."""

    public: bytes
    weights: bytes


class ScoreBlock(NamedTuple):
    """Scores of some rows, output by output: whole second polynomials, and of the first ones a number for each row."""

    polynomials: bytes
    coefficients: bytes


class _Contexts:
    def __init__(self) -> None:
        self.weights = Context((*WEIGHT_MODULI, SPECIAL), DEGREE)
        self.public = Context(PUBLIC_MODULI, DEGREE)
        self.zero = Context((*PUBLIC_MODULI, RESCALE), DEGREE)
        """One more prime: only then does SEAL write a seeded zero under the moduli of the public key."""

    def coefficients(self, ciphertext: Any) -> Words:
        """Of the first polynomial of a ciphertext under the first prime."""
        plain = sealapi.Ciphertext()
        self.public.evaluator.transform_from_ntt(ciphertext, plain)
        words: Words = read_ciphertext(plain)[0, 0]
        return words

    def encode(self, value: float | list[float] | list[complex], scale: int) -> Any:
        """At the level of the weights."""
        return self.weights.encode(value, len(WEIGHT_MODULI), 2.0**scale)


@functools.cache
def _contexts() -> _Contexts:
    return _Contexts()


class ScoringKey:
    """The label party's end: encrypts weights, and reads scores. Cannot be printed or pickled."""

    def __init__(self, scale: ScoreScale) -> None:
        self._contexts, self._scale = _contexts(), scale
        self._secret = fresh_secret(self._contexts.weights)
        self.operations: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key stays in the process that made it")

    def _public(self) -> bytes:
        return seeded_public_key(self._secret, self._contexts.zero, PUBLIC_MODULI)

    def _encrypt(self, values: Iterable[float | list[complex]]) -> bytes:
        """A seeded ciphertext of each, which is one number for all slots or a number for each."""
        context, batch = self._contexts.weights, []
        encryptor = sealapi.Encryptor(context.seal, secret_under(self._secret, context))
        for value in values:
            plain = self._contexts.encode(value, self._scale.weight_bits)
            words, seed, _ = parse_seeded(payload(encryptor.encrypt_symmetric(plain)))
            batch.append(Seeded(words, seed))
        self.operations["encrypt weight"] += len(batch)
        return write_seeded(batch, WEIGHT_MODULI)

    def _parts(self, block: ScoreBlock, polynomials: int, numbers: int) -> tuple[list[Words], Words]:
        """So many second polynomials times the secret, as coefficients, and so many numbers of the first ones.

        Raises InvalidCiphertext for another number of bytes.
        """
        context, width = self._contexts.public, word_bytes(FIRST)
        due = polynomials * width * DEGREE, numbers * width
        if (len(block.polynomials), len(block.coefficients)) != due:
            raise InvalidCiphertext(
                f"polynomials of {due[0]} and coefficients of {due[1]} bytes were due, and "
                f"{len(block.polynomials)} and {len(block.coefficients)} bytes came"
            )
        decryptor = sealapi.Decryptor(context.seal, secret_under(self._secret, context))
        sent, products = read_words(memoryview(block.coefficients), (FIRST,), numbers)[0], []
        for at in range(0, due[0], width * DEGREE):
            second = read_words(memoryview(block.polynomials)[at : at + width * DEGREE], (FIRST,), DEGREE)
            if not second.any():
                raise InvalidCiphertext("a polynomial is zero")
            products.append(self._times_secret(decryptor, second))
        return products, sent

    def _numbers(self, words: Words) -> Floats:
        """Decrypted words as numbers; NaN for one that left the range."""
        values = words.astype(np.int64)
        values[values > FIRST // 2] -= FIRST
        return np.where(np.abs(values) <= FIRST // 4, values / self._scale.unit, np.nan)

    def _times_secret(self, decryptor: Any, second: Words) -> Words:
        """Coefficients of a second polynomial (1 x N) times the secret."""
        plain = sealapi.Plaintext()
        decryptor.decrypt(self._ciphertext(np.stack([np.zeros_like(second), second])), plain)
        words = np.frombuffer(payload(plain), "<u8")[-DEGREE:].reshape(1, DEGREE)
        return self._contexts.coefficients(self._ciphertext(np.stack([words, second])))

    def _ciphertext(self, words: Words) -> Any:
        context = self._contexts.public
        body = ciphertext_payload(identifier(context.levels[0]), 1.0, words)
        return load(sealapi.Ciphertext(), context.seal, stream(body))


class EncryptedFactors:
    """The feature party's end: ciphertexts that it cannot read, and sums of products that it cannot read either."""

    def __init__(self, public: bytes, scale: ScoreScale) -> None:
        """Raises InvalidCiphertext for what no honest label party sends."""
        self._contexts, self._scale, self._seeds = _contexts(), scale, set[bytes]()
        self.operations: Counter[str] = Counter()
        (zero,) = read_seeded(public, 1, PUBLIC_MODULI, DEGREE, self._seeds)
        self._encryptor = load_public_key(self._contexts.public, zero)

    def _load(self, data: bytes, count: int) -> list[Any]:
        context, loaded = self._contexts.weights, []
        for words, seed in read_seeded(data, count, WEIGHT_MODULI, DEGREE, self._seeds):
            body = seeded_payload(identifier(context.levels[-1]), 2.0**self._scale.weight_bits, words, seed)
            loaded.append(load(sealapi.Ciphertext(), context.seal, stream(body)))
        return loaded

    def _sum(self, terms: Iterable[tuple[Any, Any]]) -> Any:
        """Of ciphertexts times plaintexts that are not zero: under the first prime, re-randomised."""
        evaluator, total, sum_of, count = self._contexts.weights.evaluator, sealapi.Ciphertext(), None, 0
        for factor, column in terms:
            term = sealapi.Ciphertext()
            evaluator.multiply_plain(factor, column, term)
            count += 1
            if sum_of is None:
                sum_of = term
            else:
                evaluator.add_inplace(sum_of, term)
        self._encryptor.encrypt_zero(self._contexts.public.levels[0], total)
        if sum_of is not None:
            evaluator.rescale_to_next_inplace(sum_of)
            total.scale = sum_of.scale
            evaluator.add_inplace(total, sum_of)
        self.operations.update({"multiply plain": count, "encrypt zero": 1})
        return total


def second_polynomial(ciphertext: Any) -> bytes:
    """In wire form."""
    return write_words(read_ciphertext(ciphertext)[1], (FIRST,))


def with_noise(numbers: Words, deviation: float) -> Words:
    """Numbers below the first prime, each with Gaussian noise."""
    noise = np.rint(gaussian(numbers.shape, deviation)).astype(np.int64) % FIRST
    return (numbers + noise.astype(np.uint64)) % np.uint64(FIRST)
