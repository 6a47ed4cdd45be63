"""The label party's top model, written once for numbers and for ciphertexts.

A linear top model over the joined layer: K scores from the feature parties' embedding, the label party's own columns
and a bias (encrypted-training.md 1, layout features). Steps 3 to 6 of the protocol are the methods `loss_error` and
`row_gradients`; both are written against `Arithmetic`, which exists for numbers here and for ciphertexts in
`crypto.ckks`. The same polynomials run in both, so an encrypted run can be compared with a clear one number by number.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save

from vfl.errors import Diverged
from vfl.job import Optimiser
from vfl.schedule import philox

Floats = NDArray[np.float64]
V = TypeVar("V")

LINEAR_ERROR = {"linear": (0.25, 0.5), "squared": (1.0, 0.0)}
"""Loss errors slope u + constant - y: the logistic loss linearised at 0, and the squared error."""

CUBIC_ERROR = (0.5, 0.15012, -0.001593)
"""Least-squares cubic of the logistic function on [-8, 8] (encrypted-training.md 1)."""

INITIAL_DEVIATION = 0.01


class Arithmetic(Protocol[V]):
    """What a polynomial model needs of the values it runs on: one V holds one value per row of a batch."""

    def weighted_sum(self, columns: Sequence[V], weights: Floats, offset: Floats) -> V:
        """sum_j weights[j] columns[j] + offset, with an offset per row."""

    def product(self, left: V, right: V) -> V:
        """Row by row."""

    def subtract_from(self, constant: float, value: V) -> V:
        """constant - value."""

    def plus(self, value: V, rows: Floats) -> V:
        """value + rows, a number per row."""

    def row_products(self, errors: Sequence[V], columns: Sequence[V], own: Floats) -> list[V]:
        """For each error: its products with every column, then with every column of `own` (rows x columns)."""


class Numbers:
    """Arithmetic on clear float64 arrays, one per column."""

    def weighted_sum(self, columns: Sequence[Floats], weights: Floats, offset: Floats) -> Floats:
        return sum((w * z for w, z in zip(weights, columns, strict=True)), start=offset)

    def product(self, left: Floats, right: Floats) -> Floats:
        return left * right

    def subtract_from(self, constant: float, value: Floats) -> Floats:
        return constant - value

    def plus(self, value: Floats, rows: Floats) -> Floats:
        return value + rows

    def row_products(self, errors: Sequence[Floats], columns: Sequence[Floats], own: Floats) -> list[Floats]:
        return [error * column for error in errors for column in (*columns, *own.T)]


class LinearTop:
    """K linear outputs over [embedding, own columns, 1], trained by the label party on sums it may read.

    Raises Diverged when weights leave the range the agreed parameters hold, so a run stops at its last good state.
    """

    def __init__(
        self,
        embedding_width: int,
        own_width: int,
        outputs: int,
        loss: str,
        optimiser: Optimiser,
        private_seed: bytes,
        weight_limit: float,
    ) -> None:
        self.embedding_width = embedding_width
        self.loss = loss
        self.weight_limit = weight_limit
        width = embedding_width + own_width + 1
        draws = np.random.Generator(philox(private_seed, "top model")).standard_normal((outputs, width))
        # From this party's private seed: a shared one would show the feature party the first weights (trust.md 9.4).
        self._weights = torch.nn.Parameter(torch.from_numpy(draws * INITIAL_DEVIATION))
        self._optimiser = torch.optim.SGD([self._weights], lr=optimiser.rate, momentum=optimiser.momentum)

    @property
    def weights(self) -> Floats:
        """outputs x (embedding + own + 1), the bias last."""
        weights: Floats = self._weights.detach().numpy()
        return weights

    @property
    def embedding_weights(self) -> Floats:
        return self.weights[:, : self.embedding_width]

    def own_part(self, own: Floats) -> Floats:
        """What own columns (rows x columns) and bias add to the scores: rows x outputs."""
        rest = self.weights[:, self.embedding_width :]
        part: Floats = own @ rest[:, :-1].T + rest[:, -1]
        return part

    def loss_error(self, values: Arithmetic[V], embedding: Sequence[V], own: Floats, targets: Floats) -> list[V]:
        """Steps 3 and 4: output minus target for each output, one value per row.

        `own` is rows x own columns, `targets` rows x outputs. Constants join the label's so that an encrypted step
        spends one addition on both.
        """
        offset = self.own_part(own)
        errors = []
        for k, weights in enumerate(self.embedding_weights):
            if self.loss == "cubic":
                constant, slope, cubic = CUBIC_ERROR
                root = float(
                    np.cbrt(-cubic)
                )  # v = root u, so that v (slope / root - v^2) spends two products, not three
                scaled = values.weighted_sum(embedding, root * weights, root * offset[:, k])
                factor = values.subtract_from(slope / root, values.product(scaled, scaled))
                errors.append(values.plus(values.product(scaled, factor), constant - targets[:, k]))
            else:
                slope, constant = LINEAR_ERROR[self.loss]
                rest = slope * offset[:, k] + constant - targets[:, k]
                errors.append(values.weighted_sum(embedding, slope * weights, rest))
        return errors

    def row_gradients(self, values: Arithmetic[V], embedding: Sequence[V], own: Floats, errors: Sequence[V]) -> list[V]:
        """Steps 5 and 6: gradient of every weight per row, not yet summed, in the order of `weights`."""
        return values.row_products(errors, embedding, np.column_stack([own, np.ones(len(own))]))

    def update(self, sums: Floats, rows: int, step: int) -> None:
        """Step 10: one optimiser step on the mean gradient. `sums` is flat, in the order of `row_gradients`."""
        gradient = sums.reshape(self.weights.shape) / rows
        self._weights.grad = torch.from_numpy(gradient)
        self._optimiser.step()
        reach = np.abs(self.weights).sum(axis=1).max()
        if not np.isfinite(gradient).all() or not reach <= self.weight_limit:
            raise Diverged(
                f"training diverged at step {step}: weights add up to {reach:.3g}, the limit is {self.weight_limit:g}",
                safe="The states of the epochs before are kept.",
            )

    def scores(self, embedding: Floats, own: Floats) -> Floats:
        """Clear scores, rows x outputs, from a clear embedding."""
        scores: Floats = embedding @ self.embedding_weights.T + self.own_part(own)
        return scores

    def tensors(self) -> dict[str, Floats]:
        return {"top.weights": self.weights.copy()}


def save_tensors(tensors: dict[str, Floats]) -> bytes:
    """Tensors as safetensors bytes, float64."""
    data: bytes = save({name: np.ascontiguousarray(value, np.float64) for name, value in sorted(tensors.items())})
    return data


def load_tensors(data: bytes) -> dict[str, Any]:
    """The inverse of `save_tensors`."""
    tensors: dict[str, Any] = load(data)
    return tensors


def floats(data: bytes, *shape: int) -> Floats | None:
    """Raw little-endian float64 bytes as an array of this shape; None when the length does not fit."""
    if len(data) != 8 * int(np.prod(shape)):
        return None
    return np.frombuffer(data, "<f8").reshape(shape)
