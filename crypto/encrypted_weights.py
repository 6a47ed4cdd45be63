"""Scores of a linear model from encrypted weights: the label party encrypts them once, the feature party multiplies.

A score is one coefficient of a polynomial, for up to 4,096 rows at once. The rules that the feature party keeps, and
what both ends share, stand in `crypto.scoring_keys`.
"""

import numpy as np

from crypto.ciphertexts import write_words
from crypto.ckks_context import slots_of_coefficients
from crypto.scoring_keys import (
    EncryptedFactors,
    Floats,
    ScoreBlock,
    ScoringKey,
    WeightMaterial,
    Words,
    second_polynomial,
    with_noise,
)
from crypto.scoring_parameters import COLUMN_SCALE, DEGREE, FIRST, LINEAR


class WeightsKey(ScoringKey):
    """The label party's end."""

    def __init__(self) -> None:
        super().__init__(LINEAR)

    def encrypt(self, weights: Floats) -> WeightMaterial:
        """Outputs x columns."""
        return WeightMaterial(self._public(), self._encrypt(map(float, weights.ravel())))

    def read(self, block: ScoreBlock, rows: int, outputs: int) -> Floats:
        """Rows x outputs; NaN for a score that left the range. Raises InvalidCiphertext for another number of bytes.

        What is out of range is no error: an error would end the job, and tell the feature party about the weights.
        """
        parts = -(-rows // DEGREE)
        products, sent = self._parts(block, outputs * parts, outputs * rows)
        whole = np.stack([np.concatenate(products[at : at + parts])[:rows] for at in range(0, len(products), parts)])
        self.operations["read score"] += rows * outputs
        return self._numbers((sent.reshape(outputs, rows) + whole) % np.uint64(FIRST)).T


class EncryptedWeights(EncryptedFactors):
    """The feature party's end."""

    def __init__(self, material: WeightMaterial, columns: int, outputs: int) -> None:
        """Raises InvalidCiphertext for what no honest label party sends."""
        super().__init__(material.public, LINEAR)
        weights = self._load(material.weights, columns * outputs)
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
            at: self._contexts.encode(slots_of_coefficients(column / 2.0**COLUMN_SCALE, DEGREE), COLUMN_SCALE)
            for at, column in enumerate(quanta.T)
            if column.any()  # SEAL refuses a product with zero
        }
        scores = []
        for weights in self._weights:
            total = self._sum((weights[at], column) for at, column in columns.items())
            numbers = self._contexts.coefficients(total)[: len(rows)]
            scores.append((second_polynomial(total), with_noise(numbers, self._scale.noise)))
        return scores
