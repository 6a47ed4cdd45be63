"""Scores of a model with square neurons from encrypted weights (docs/protocols/ckks_prediction.md).

Such a score is a quadratic function of a row of the feature party, z: a constant, plus a slope for each coordinate of
z, plus a weight for each product of two. The weights of products are those of the model; slopes and constant differ
from row to row, as the label party's own columns do. So the label party encrypts the weights once and the slopes of
each row, and the feature party multiplies both with its clear columns and their products.

A ciphertext holds `entries` numbers of each of `rows` rows (`RowLayout`), two to a slot: real and imaginary. Slot
j holds the polynomial's value at zeta^(3^j). The coefficients at multiples of N / 2n depend on the sums over slots with
equal j modulo n alone, and the differences of the k-th of them and the k-th from behind on the real parts of these sums
alone. So for n rows n numbers travel, from which the n scores follow by cosines, and nothing else does. The rules that
the feature party keeps stand in `crypto.scoring_keys`.
"""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crypto.ciphertexts import write_words
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
from crypto.scoring_parameters import COLUMN_SCALE, DEGREE, FIRST, QUADRATIC, RowLayout, layout_for


class QuadraticKey(ScoringKey):
    """The label party's end."""

    def __init__(self, width: int) -> None:
        super().__init__(QUADRATIC)
        self._layout = layout_for(width)

    def encrypt(self, squares: Floats) -> WeightMaterial:
        """Outputs x products of two coordinates, in the order of `products_of`."""
        layout, weights = self._layout, list[list[complex]]()
        for output in squares:
            weights += [_factors(np.tile(part, (layout.rows, 1)), layout) for part in _parts(output[None], layout)]
        return WeightMaterial(self._public(), self._encrypt(weights))

    def encrypt_slopes(self, slopes: Floats) -> bytes:
        """Rows x outputs x coordinates."""
        layout, factors = self._layout, list[list[complex]]()
        for start in range(0, len(slopes), layout.rows):
            group = slopes[start : start + layout.rows]
            for output in range(group.shape[1]):
                factors += [_factors(part, layout) for part in _parts(group[:, output], layout)]
        return self._encrypt(factors)

    def read(self, block: ScoreBlock, rows: int, outputs: int) -> Floats:
        """Rows x outputs, without their constants; NaN for all that were opened together where one left the range.

        Raises InvalidCiphertext for another number of bytes. What is out of range is no error: an error would end the
        job, and tell the feature party about the weights.
        """
        pieces = self._layout.pieces(rows)
        products, sent = self._parts(block, len(pieces) * outputs, rows * outputs)
        scores, at = np.empty((rows, outputs)), 0
        for number, product in enumerate(products):
            piece, output = pieces[number // outputs], number % outputs
            own = _differences(product, len(piece))
            numbers = self._numbers((sent[at : at + len(piece)] + own) % np.uint64(FIRST))
            scores[piece.start : piece.stop, output] = _cosines(len(piece)) @ numbers
            at += len(piece)
        self.operations["read score"] += rows * outputs
        return scores


class EncryptedQuadratics(EncryptedFactors):
    """The feature party's end."""

    def __init__(self, material: WeightMaterial, width: int, outputs: int) -> None:
        """Raises InvalidCiphertext for what no honest label party sends."""
        super().__init__(material.public, QUADRATIC)
        self._layout, self._outputs = layout_for(width), outputs
        weights, each = self._load(material.weights, outputs * self._layout.squares), self._layout.squares
        self._smallest = self._contexts.encode(2.0**-COLUMN_SCALE, COLUMN_SCALE)
        """In place of zero: SEAL refuses a product with zero, and leaving it out would tell of a single row."""
        self._squares = [weights[at : at + each] for at in range(0, len(weights), each)]

    def scores(self, embedding: Floats, slopes: bytes) -> ScoreBlock:
        """What these rows (rows x coordinates) add to each output, for the owner of the weights to read.

        Raises InvalidCiphertext for what no honest label party sends.
        """
        layout, each = self._layout, self._layout.slopes
        groups = layout.groups(len(embedding))
        loaded = self._load(slopes, groups * self._outputs * each)
        polynomials, coefficients = list[bytes](), list[Words]()
        for piece in layout.pieces(len(embedding)):
            columns, group = self._columns(embedding[piece.start : piece.stop], piece), piece.start // layout.rows
            for output, squares in enumerate(self._squares):
                at = (group * self._outputs + output) * each
                total = self._sum(zip([*loaded[at : at + each], *squares], columns, strict=True))
                numbers = _differences(self._contexts.coefficients(total), len(piece))
                polynomials.append(second_polynomial(total))
                coefficients.append(with_noise(numbers, self._scale.noise / _noise_gain(len(piece))))
        return ScoreBlock(b"".join(polynomials), write_words(np.concatenate(coefficients)[None], (FIRST,)))

    def _columns(self, rows: Floats, piece: range) -> list[Any]:
        """Plaintexts of coordinates, then of their products, in the places of these rows; all other places are zero."""
        layout, plains = self._layout, []
        share, start = layout.rows / len(piece), piece.start % layout.rows
        for part in (*_parts(rows, layout), *_parts(products_of(rows), layout)):
            placed = np.zeros((layout.rows, part.shape[1]))
            placed[start : start + len(piece)] = share * part
            plain = self._contexts.encode(_to_slots(placed, layout).tolist(), COLUMN_SCALE)
            plains.append(self._smallest if plain.is_zero() else plain)
        return plains


def products_of(rows: Floats) -> Floats:
    """Rows x products of two coordinates, each pair once."""
    first, second = np.triu_indices(rows.shape[1])
    return rows[:, first] * rows[:, second]


def _parts(numbers: Floats, layout: RowLayout) -> list[Floats]:
    """Columns as they share ciphertexts."""
    return [numbers[:, at : at + layout.entries] for at in range(0, numbers.shape[1], layout.entries)]


def _to_slots(numbers: Floats, layout: RowLayout) -> NDArray[np.complex128]:
    """Rows x entries at most."""
    grid, half = np.zeros((layout.entries, layout.rows)), layout.entries // 2
    grid[: numbers.shape[1], : len(numbers)] = numbers.T
    slots: NDArray[np.complex128] = (grid[:half] + 1j * grid[half:]).ravel()
    return slots


def _factors(numbers: Floats, layout: RowLayout) -> list[complex]:
    """The same for what is multiplied with it: the real part of a product is then the sum of two products.

    The sum over the slots of a row comes out divided by their number.
    """
    factors: list[complex] = (layout.entries // 2 * _to_slots(numbers, layout).conj()).tolist()
    return factors


def _differences(coefficients: Words, rows: int) -> Words:
    """So many numbers, on which the real parts of sums over slots with equal places modulo `rows` depend alone."""
    step, modulus = DEGREE // (2 * rows), np.uint64(FIRST)
    chosen = coefficients[::step]
    differences = chosen[:rows].copy()
    differences[1:] = (differences[1:] + modulus - chosen[:-rows:-1]) % modulus
    return differences


@functools.cache
def _cosines(rows: int) -> Floats:
    """By which scores follow from such numbers."""
    exponents = np.array([pow(3, row, 4 * rows) for row in range(rows)])
    cosines: Floats = np.cos(np.pi * np.outer(exponents, np.arange(rows)) / (2 * rows))
    return cosines


def _noise_gain(rows: int) -> float:
    """Deviation of a score over that of the numbers from which it follows."""
    return float(np.sqrt((rows + 1) / 2))
