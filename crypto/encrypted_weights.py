"""Scores of a linear model from encrypted weights: the label party encrypts them once, the feature party multiplies.

A score is one coefficient of a polynomial, for up to 4,096 rows at once. The feature party keeps three rules:

1. What it returns is first re-randomised with a fresh encryption of zero; else the second polynomial is a linear
   system in its columns.
2. Of the first polynomial only the coefficients of the agreed rows travel; else weights that the label party chooses
   would read as many numbers as the ring has coefficients, however few rows are scored.
3. Each of them gets noise, which covers the ciphertext noise that depends on the columns.

The public key and every ciphertext travel seeded, so that the random halves are not the key owner's choice.
"""

import functools
from collections import Counter
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from crypto.ciphertexts import Seeded, read_seeded, read_words, word_bytes, write_seeded, write_words
from crypto.ckks_context import (
    Context,
    fresh_secret,
    load_public_key,
    secret_under,
    seeded_public_key,
    slots_of_coefficients,
)
from crypto.errors import InvalidCiphertext
from crypto.noise import gaussian
from crypto.scoring_parameters import (
    COLUMN_SCALE,
    DEGREE,
    FIRST,
    NOISE,
    PUBLIC_MODULI,
    RESCALE,
    SCORE_UNIT,
    SPECIAL,
    WEIGHT_MODULI,
    WEIGHT_SCALE,
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
    """Scores of some rows, output by output: whole second polynomials, and a coefficient of the first for each row."""

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


@functools.cache
def _contexts() -> _Contexts:
    return _Contexts()


class WeightsKey:
    """The label party's end: encrypts weights, and reads scores. Cannot be printed or pickled."""

    def __init__(self) -> None:
        self._contexts = _contexts()
        self._secret = fresh_secret(self._contexts.weights)
        self.operations: Counter[str] = Counter()

    def __repr__(self) -> str:
        return "WeightsKey(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key stays in the process that made it")

    def encrypt(self, weights: Floats) -> WeightMaterial:
        """Outputs x columns."""
        context = self._contexts.weights
        encryptor, batch = sealapi.Encryptor(context.seal, secret_under(self._secret, context)), []
        for weight in weights.ravel():
            plain = context.encode(float(weight), len(WEIGHT_MODULI), 2.0**WEIGHT_SCALE)
            words, seed, _ = parse_seeded(payload(encryptor.encrypt_symmetric(plain)))
            batch.append(Seeded(words, seed))
        self.operations["encrypt weight"] += len(batch)
        public = seeded_public_key(self._secret, self._contexts.zero, PUBLIC_MODULI)
        return WeightMaterial(public, write_seeded(batch, WEIGHT_MODULI))

    def read(self, block: ScoreBlock, rows: int, outputs: int) -> Floats:
        """Rows x outputs; NaN for a score that left the range. Raises InvalidCiphertext for another number of bytes.

        What is out of range is no error: an error would end the job, and tell the feature party about the weights.
        """
        context, width = self._contexts.public, word_bytes(FIRST)
        parts, size = -(-rows // DEGREE), width * DEGREE
        due = outputs * parts * size, outputs * rows * width
        if (len(block.polynomials), len(block.coefficients)) != due:
            raise InvalidCiphertext(
                f"polynomials of {due[0]} and coefficients of {due[1]} bytes were due, and "
                f"{len(block.polynomials)} and {len(block.coefficients)} bytes came"
            )
        decryptor = sealapi.Decryptor(context.seal, secret_under(self._secret, context))
        sent = read_words(memoryview(block.coefficients), (FIRST,), rows * outputs)[0].reshape(outputs, rows)
        totals, polynomials = np.empty((outputs, rows), np.uint64), memoryview(block.polynomials)
        for number in range(outputs * parts):
            output, part = divmod(number, parts)
            at = slice(part * DEGREE, min((part + 1) * DEGREE, rows))
            second = read_words(polynomials[number * size : (number + 1) * size], (FIRST,), DEGREE)
            if not second.any():
                raise InvalidCiphertext("a polynomial is zero")
            product = self._times_secret(decryptor, second)
            totals[output, at] = (sent[output, at] + product[: at.stop - at.start]) % np.uint64(FIRST)
        values = totals.astype(np.int64)
        values[values > FIRST // 2] -= FIRST
        self.operations["read score"] += rows * outputs
        return np.where(np.abs(values) <= FIRST // 4, values / SCORE_UNIT, np.nan).T

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


class EncryptedWeights:
    """The feature party's end: weights that it cannot read, and scores of its rows that it cannot read either."""

    def __init__(self, material: WeightMaterial, columns: int, outputs: int) -> None:
        """Raises InvalidCiphertext for what no honest label party sends."""
        self._contexts, seeds = _contexts(), set[bytes]()
        self.operations: Counter[str] = Counter()
        (zero,) = read_seeded(material.public, 1, PUBLIC_MODULI, DEGREE, seeds)
        self._encryptor = load_public_key(self._contexts.public, zero)
        context, weights = self._contexts.weights, []
        for words, seed in read_seeded(material.weights, columns * outputs, WEIGHT_MODULI, DEGREE, seeds):
            body = seeded_payload(identifier(context.levels[-1]), 2.0**WEIGHT_SCALE, words, seed)
            weights.append(load(sealapi.Ciphertext(), context.seal, stream(body)))
        self._weights = [weights[at : at + columns] for at in range(0, len(weights), columns)]

    def scores(self, embedding: Floats) -> ScoreBlock:
        """What these rows (rows x columns) add to each output, for the owner of the weights to read."""
        parts = [self._scores_of(embedding[at : at + DEGREE]) for at in range(0, len(embedding), DEGREE)]
        polynomials = (part[output][0] for output in range(len(self._weights)) for part in parts)
        coefficients = np.concatenate([part[output][1] for output in range(len(self._weights)) for part in parts])
        return ScoreBlock(b"".join(polynomials), write_words(coefficients[None], (FIRST,)))

    def _scores_of(self, rows: Floats) -> list[tuple[bytes, Words]]:
        """Of at most as many rows as the ring has coefficients: a polynomial and coefficients for each output."""
        quanta = np.rint(rows * 2.0**COLUMN_SCALE)
        if len(quanta) < DEGREE:
            # A coefficient that does not travel: no column is zero, so that the time says nothing of single rows.
            quanta = np.vstack([quanta, np.ones((1, quanta.shape[1]))])
        columns = {
            at: self._contexts.weights.encode(
                slots_of_coefficients(column / 2.0**COLUMN_SCALE, DEGREE), len(WEIGHT_MODULI), 2.0**COLUMN_SCALE
            )
            for at, column in enumerate(quanta.T)
            if column.any()  # SEAL refuses a product with zero
        }
        return [self._output(weights, columns, len(rows)) for weights in self._weights]

    def _output(self, weights: list[Any], columns: dict[int, Any], rows: int) -> tuple[bytes, Words]:
        evaluator, total, sum_of = self._contexts.weights.evaluator, sealapi.Ciphertext(), None
        for at, column in columns.items():
            term = sealapi.Ciphertext()
            evaluator.multiply_plain(weights[at], column, term)
            if sum_of is None:
                sum_of = term
            else:
                evaluator.add_inplace(sum_of, term)
        self._encryptor.encrypt_zero(self._contexts.public.levels[0], total)
        if sum_of is not None:
            evaluator.rescale_to_next_inplace(sum_of)
            total.scale = sum_of.scale
            evaluator.add_inplace(total, sum_of)
        noise = np.rint(gaussian((rows,), NOISE)).astype(np.int64) % FIRST
        coefficients = (self._contexts.coefficients(total)[:rows] + noise.astype(np.uint64)) % np.uint64(FIRST)
        self.operations.update({"multiply plain": len(columns), "encrypt zero": 1})
        return write_words(read_ciphertext(total)[1], (FIRST,)), coefficients
