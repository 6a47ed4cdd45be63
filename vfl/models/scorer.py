"""What the weights of a top model make of rows; loads no torch.

A top model scores rows of the joined layer: the feature parties' embedding, the label party's own columns and a bias
(ckks_training.md). It is trained in `vfl.models.polynomial`, and applied to new rows as it is here.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SQUARE_ACTIVATION = (0.12, 0.5)
"""Hidden neurons compute 0.12 a^2 + 0.5 a (ckks_training.md)."""


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

    def matrices(self) -> dict[str, Floats]:
        return {name: self._matrices[name] for name in self.shape.matrices}

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

    @property
    def square_weights(self) -> Floats:
        """Of a model with hidden neurons, whose score is quadratic in the embedding: what each product of two of its
        coordinates adds to each output; outputs x products, each pair once (`crypto.encrypted_quadratics`)."""
        alpha, _ = SQUARE_ACTIVATION
        first, second = np.triu_indices(self.shape.embedding)
        weights = self.embedding_weights
        pairs = np.where(first == second, 1, 2) * weights[:, first] * weights[:, second]
        return np.asarray(alpha * self.output_weights[:, :-1] @ pairs)

    def slopes(self, own: Floats) -> Floats:
        """What each coordinate adds beside: rows x outputs x coordinates. Own columns are in it."""
        alpha, beta = SQUARE_ACTIVATION
        neurons = 2 * alpha * self.own_part(own) + beta
        weights = self.output_weights[:, None, :-1] * self.embedding_weights.T
        slopes: Floats = np.moveaxis(weights @ neurons.T, 2, 0)
        return slopes

    def scores(self, embedding: Floats, own: Floats) -> Floats:
        """Clear scores, rows x outputs, from a clear embedding, rows x columns."""
        joined: Floats = embedding @ self.embedding_weights.T + self.own_part(own)
        if not self.shape.hidden:
            return joined
        alpha, beta = SQUARE_ACTIVATION
        output = self._matrices["weights"]
        scores: Floats = (alpha * joined**2 + beta * joined) @ output[:, :-1].T + output[:, -1]
        return scores
