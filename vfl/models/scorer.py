"""What the weights of a top model make of rows: written once for numbers and for ciphertexts, and without torch.

A top model scores rows of the joined layer: the feature parties' embedding, the label party's own columns and a bias
(ckks_training.md). It is trained in `vfl.models.polynomial`, and applied to new rows as it is here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
V = TypeVar("V")

SQUARE_ACTIVATION = (0.12, 0.5)
"""Hidden neurons compute 0.12 a^2 + 0.5 a (ckks_training.md)."""


class Arithmetic(Protocol[V]):
    """What a polynomial model needs of the values it runs on: one V holds one value per row of a block."""

    def weighted_sum(self, columns: Sequence[V], weights: Floats, offset: Floats, factors: Floats | None = None) -> V:
        """factor x sum_j weights[j] columns[j] + offset, with an offset per row, and a factor above 0 where there are
        any."""

    def product(self, left: V, right: V) -> V:
        """Row by row."""

    def weighted_products(self, errors: Sequence[V], value: V, weights: Floats) -> V:
        """value x sum_o weights[o] errors[o], row by row."""

    def subtract_from(self, constant: float, value: V) -> V:
        """constant - value."""

    def plus(self, value: V, rows: Floats) -> V:
        """value + rows, a number per row."""

    def subtract_encrypted(self, value: V, rows: Floats) -> V:
        """value - rows, the rows taken through a ciphertext of their own where values are ciphertexts."""


class Matrices(Protocol):
    """Weights by name: `hidden` where there are hidden neurons, and `weights`."""

    def __getitem__(self, name: str) -> Floats: ...


@dataclass(frozen=True)
class Shape:
    """Widths of a top model: embedding, the label party's own columns, hidden neurons (0: linear), outputs."""

    embedding: int
    own: int
    hidden: int
    outputs: int

    @property
    def joined(self) -> int:
        """What reads the joined layer: hidden neurons, or the outputs themselves."""
        return self.hidden or self.outputs

    @property
    def without_embedding(self) -> "Shape":
        """The same on the label party's own columns alone."""
        return Shape(0, self.own, self.hidden, self.outputs)

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each matrix of weights; the last column is the bias."""
        width = self.embedding + self.own + 1
        if self.hidden:
            return {"hidden": (self.hidden, width), "weights": (self.outputs, self.hidden + 1)}
        return {"weights": (self.outputs, width)}


class Scorer:
    """K outputs over [embedding, own columns, 1], with or without one hidden layer of square-type neurons."""

    def __init__(self, shape: Shape, matrices: Matrices) -> None:
        self.shape, self._matrices = shape, matrices

    @property
    def joined_weights(self) -> Floats:
        """Of the neurons that read the joined layer: neurons x (embedding + own + 1), the bias last."""
        return self._matrices["hidden" if self.shape.hidden else "weights"]

    @property
    def embedding_weights(self) -> Floats:
        return self.joined_weights[:, : self.shape.embedding]

    @property
    def output_weights(self) -> Floats:
        """Of the outputs above hidden neurons: outputs x (neurons + 1), the bias last."""
        return self._matrices["weights"]

    def own_part(self, own: Floats) -> Floats:
        """What own columns (rows x columns) and bias add to those neurons: rows x neurons."""
        rest = self.joined_weights[:, self.shape.embedding :]
        part: Floats = own @ rest[:, :-1].T + rest[:, -1]
        return part

    def output(self, values: Arithmetic[V], embedding: Sequence[V], own: Floats) -> list[V]:
        """Scores of a model with hidden neurons, one vector per output."""
        _, active = self._hidden(values, embedding, own)
        output = self._matrices["weights"]
        return [
            values.weighted_sum(active, SQUARE_ACTIVATION[0] * row[:-1], np.full(len(own), row[-1])) for row in output
        ]

    def scores(self, embedding: Floats, own: Floats) -> Floats:
        """Clear scores, rows x outputs, from a clear embedding, rows x columns."""
        joined: Floats = embedding @ self.embedding_weights.T + self.own_part(own)
        if not self.shape.hidden:
            return joined
        alpha, beta = SQUARE_ACTIVATION
        output = self._matrices["weights"]
        scores: Floats = (alpha * joined**2 + beta * joined) @ output[:, :-1].T + output[:, -1]
        return scores

    def _hidden(self, values: Arithmetic[V], embedding: Sequence[V], own: Floats) -> tuple[list[V], list[V]]:
        """Each hidden neuron's input shifted by beta / 2 alpha, and its output over alpha; both empty without neurons.

        alpha a^2 + beta a = alpha ((a + shift)^2 - shift^2): one product, and an output that is small for small inputs,
        so that little of the errors' ciphertext noise is carried into the sums over it.
        """
        if not self.shape.hidden:
            return [], []
        alpha, beta = SQUARE_ACTIVATION
        shift = beta / (2 * alpha)
        offset, square = self.own_part(own) + shift, np.full(len(own), -(shift**2))
        hidden = [values.weighted_sum(embedding, w, offset[:, k]) for k, w in enumerate(self.embedding_weights)]
        return hidden, [values.plus(values.product(a, a), square) for a in hidden]
