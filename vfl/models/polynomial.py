"""The label party's top models as they are trained, written once for numbers and for ciphertexts.

Steps 3 to 6 of the protocol (ckks_training.md) are the method `passes` of a top model, written against `Arithmetic`,
which exists for numbers here and for ciphertexts in `crypto.ckks_evaluator`. The same polynomials run in both, so an
encrypted run can be compared with a clear one number by number. How a top model scores rows: `vfl.models.scorer`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from vfl.models.halves import OF_TOP
from vfl.models.optimisers import Descent
from vfl.models.scorer import SQUARE_ACTIVATION, Matrices, Scorer, Shape
from vfl.planning.training import INPUT_BOUND
from vfl.schedule import philox
from vfl.spec.sections import Optimiser

Floats = NDArray[np.float64]
V = TypeVar("V")

LINEAR_ERROR = {"linear": (0.25, 0.5), "squared": (1.0, 0.0)}
"""Loss errors slope u + constant - y: the logistic loss linearised at 0, and the squared error."""

CUBIC_ERROR = (0.5, 0.15012, -0.001593)
"""Least-squares cubic of the logistic function on [-8, 8] (ckks_training.md)."""

INITIAL_DEVIATION = 0.01

OUTPUT_SHARE = 1 / 2
"""Part of the weight limit that an output above hidden neurons has: what it reads is a square of what they read."""

OVERSHOOT = 2.0
"""An update that would carry weights beyond so many times their limit has diverged and is taken back; one that stays
within is scaled back to the limit."""

OPENED_EPSILON = 1e-3
"""Adam's epsilon for a top model: about the noise of an opened mean gradient. With the usual 1e-8 Adam would scale
gradients that have become smaller than their noise up to full steps, and follow the noise."""

SHRUNK = 0.25
"""Factor on one of two equal errors that are multiplied, so that the sum of squares keeps the range of a release."""

RowProducts: TypeAlias = list[tuple[V, V | Floats]]
"""Pairs to be multiplied row by row and summed over rows: each sum is one weight's gradient."""


@dataclass(frozen=True)
class Passes(Generic[V]):
    """What one block of rows leaves behind: gradients before their sum, and errors of the joined layer's neurons."""

    products: RowProducts[V]
    """In the order of the model's weights."""
    joined_errors: list[V]
    """One per neuron that reads the joined layer; times its weights they are the cut error."""


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


class Numbers:
    """Arithmetic on clear float64 arrays, one per column."""

    def weighted_sum(
        self, columns: Sequence[Floats], weights: Floats, offset: Floats, factors: Floats | None = None
    ) -> Floats:
        if factors is None:
            return sum((w * z for w, z in zip(weights, columns, strict=True)), start=offset)
        return factors * self.weighted_sum(columns, weights, np.zeros(len(offset))) + offset

    def product(self, left: Floats, right: Floats) -> Floats:
        return left * right

    def weighted_products(self, errors: Sequence[Floats], value: Floats, weights: Floats) -> Floats:
        return value * sum((w * e for w, e in zip(weights, errors, strict=True)), start=np.zeros(len(value)))

    def subtract_from(self, constant: float, value: Floats) -> Floats:
        return constant - value

    def plus(self, value: Floats, rows: Floats) -> Floats:
        return value + rows

    def subtract_encrypted(self, value: Floats, rows: Floats) -> Floats:
        return value - rows

    def sums(self, products: RowProducts[Floats]) -> Floats:
        """The gradients: each product summed over rows."""
        return np.array([left @ right for left, right in products])


class Weights:
    """Matrices trained on opened gradients; the absolute sum of each row keeps a limit."""

    def __init__(self, matrices: dict[str, Floats], optimiser: Optimiser, limits: dict[str, float]) -> None:
        self._matrices, self._limits = matrices, limits
        self._descent = Descent(optimiser, OPENED_EPSILON)
        self.scaled_back = 0
        """Updates that met the limit."""
        self._scale_back()

    def __getitem__(self, name: str) -> Floats:
        return self._matrices[name]

    def tensors(self, prefix: str = OF_TOP) -> dict[str, Floats]:
        return {f"{prefix}{name}": self[name].copy() for name in self._matrices}

    def restore(self, tensors: Mapping[str, Floats], prefix: str) -> None:
        self._matrices = {name: tensors[prefix + name].astype(np.float64) for name in self._matrices}
        self._scale_back()

    def checkpoint(self) -> dict[str, Any]:
        matrices = {name: matrix.copy() for name, matrix in self._matrices.items()}
        return {"matrices": matrices, "descent": self._descent.checkpoint(), "scaled_back": self.scaled_back}

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        """Bit by bit as they were: a row at its limit is not scaled back once more."""
        self._matrices, self.scaled_back = dict(state["matrices"]), state["scaled_back"]
        self._descent.restore(state["descent"])

    def update(self, gradients: dict[str, Floats]) -> str:
        """One step of the optimiser. Returns why it was taken back, weights and momentum alike; "" where it stands."""
        weights, take_back = {name: matrix.copy() for name, matrix in self._matrices.items()}, self._descent.saved()
        with np.errstate(invalid="ignore", over="ignore"):  # what it makes of them is looked at below
            for name, gradient in gradients.items():
                self._descent.move(name, self._matrices[name], gradient)
            reach = self._scale_back()
        if reach <= OVERSHOOT:
            self.scaled_back += reach > 1.0
            return ""
        self._matrices = weights
        take_back()
        if np.isnan(reach):
            return "a sum over the batch left the range of the agreed parameters"
        return f"weights would reach {reach:.3g} times their limit"

    def _scale_back(self) -> float:
        """Bring every row's sum to its limit; returns the largest before, in units of its limit."""
        largest = 0.0
        for name, matrix in self._matrices.items():
            reach = np.abs(matrix).sum(axis=1, keepdims=True) / self._limits[name]
            np.divide(matrix, np.maximum(reach, 1.0), out=matrix)
            largest = np.maximum(largest, float(reach.max()))  # NaN stays NaN
        return float(largest)


class PolynomialTop(Scorer):
    """K outputs over [embedding, own columns, 1], with or without one hidden layer of square-type neurons: what its
    weights as they are make of the rows of a block, forward and backward."""

    def __init__(self, shape: Shape, matrices: Matrices, loss: str, *, encrypt_labels: bool = False) -> None:
        super().__init__(shape, matrices)
        self.loss, self.encrypt_labels = loss, encrypt_labels

    def passes(
        self,
        values: Arithmetic[V],
        embedding: Sequence[V],
        own: Floats,
        targets: Floats,
        row_weights: Floats | None = None,
    ) -> Passes[V]:
        """Steps 3 to 6 on one block: forward, loss error, errors of the neurons, gradients not yet summed.

        `own` is rows x own columns, `targets` rows x outputs. The error of a row is multiplied by its weight, which is
        above 0 and at most 1, so that no error exceeds what range and noise are sized for.
        """
        hidden, active = self._hidden(values, embedding, own)
        ones = np.ones(len(own))
        inputs: list[V | Floats] = [*embedding, *(np.ascontiguousarray(column) for column in own.T), ones]
        if not self.shape.hidden:
            errors = self._errors(values, embedding, self.embedding_weights, self.own_part(own), targets, row_weights)
            return Passes([(e, f) for e in errors for f in inputs], errors)
        alpha, _ = SQUARE_ACTIVATION
        output = self._matrices["weights"]
        bias = np.tile(output[:, -1], (len(own), 1))
        errors = self._errors(values, active, alpha * output[:, :-1], bias, targets, row_weights)
        # h' = 2 alpha (a + beta / 2 alpha): the slope of a hidden neuron is its own shifted value.
        slopes = 2 * alpha * output[:, :-1]
        joined = [values.weighted_products(errors, a, slopes[:, k]) for k, a in enumerate(hidden)]
        above: list[V | Floats] = [*active, ones]
        return Passes([(e, f) for e in joined for f in inputs] + [(e, f) for e in errors for f in above], joined)

    def linear_errors(self, own: Floats, targets: Floats) -> tuple[Floats, Floats]:
        """(weights, constants) of a linear model with a linear error, the one of `passes`: for the embedding z of row i
        the error of output k is weights[k] . z + constants[i, k]."""
        slope, constant = LINEAR_ERROR[self.loss]
        return slope * self.embedding_weights, slope * self.own_part(own) + constant - targets

    def squared_errors(
        self, values: Arithmetic[V], embedding: Sequence[V], own: Floats, targets: Floats, row_weights: Floats
    ) -> RowProducts[V]:
        """For each output, the row products whose sum is SHRUNK times that of the weighted squared errors."""
        inputs, weights, offset = embedding, self.joined_weights[:, : self.shape.embedding], self.own_part(own)
        if self.shape.hidden:
            output = self._matrices["weights"]
            _, inputs = self._hidden(values, embedding, own)
            weights, offset = SQUARE_ACTIVATION[0] * output[:, :-1], np.tile(output[:, -1], (len(own), 1))
        errors = self._errors(values, inputs, weights, offset, targets, None)
        shrunk = self._errors(values, inputs, weights, offset, targets, SHRUNK * row_weights)
        return list(zip(errors, shrunk, strict=True))

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

    def _errors(
        self,
        values: Arithmetic[V],
        inputs: Sequence[V],
        weights: Floats,
        offset: Floats,
        targets: Floats,
        factors: Floats | None,
    ) -> list[V]:
        """Output minus target for each output, times the row's factor. Constants join the target, so that both cost one
        addition; a factor joins the weights, so that it costs no level."""
        errors, each = [], 1.0 if factors is None else factors
        for k, row in enumerate(weights):
            target = np.zeros(len(targets)) if self.encrypt_labels else targets[:, k]
            if self.loss == "cubic":
                constant, slope, cubic = CUBIC_ERROR
                # v = root u: v (slope / root - v^2) spends two products instead of three.
                root = float(np.cbrt(-cubic))
                scaled = values.weighted_sum(inputs, root * row, root * offset[:, k])
                factor = values.subtract_from(slope / root, values.product(scaled, scaled))
                if factors is not None:
                    scaled = values.weighted_sum(inputs, root * row, each * root * offset[:, k], factors)
                error = values.plus(values.product(scaled, factor), each * (constant - target))
            else:
                slope, constant = LINEAR_ERROR[self.loss]
                constants = each * (slope * offset[:, k] + constant - target)
                error = values.weighted_sum(inputs, slope * row, constants, factors)
            errors.append(values.subtract_encrypted(error, each * targets[:, k]) if self.encrypt_labels else error)
        return errors


class Top(PolynomialTop):
    """A top model with an optimiser and a limit of its weights."""

    def __init__(
        self,
        shape: Shape,
        loss: str,
        optimiser: Optimiser,
        private_seed: bytes,
        weight_limit: float,
        *,
        encrypt_labels: bool = False,
    ) -> None:
        # From this party's private seed: a shared one would show the feature party the first weights (threat_model.md).
        draws = np.random.Generator(philox(private_seed, "top model"))
        matrices = {name: draws.standard_normal(of_matrix) for name, of_matrix in shape.matrices.items()}
        if shape.hidden:
            matrices["hidden"] /= np.sqrt(matrices["hidden"].shape[1])
            matrices["weights"] /= np.sqrt(shape.hidden)
        else:
            matrices["weights"] *= INITIAL_DEVIATION
        limits = dict.fromkeys(matrices, weight_limit)
        if shape.hidden:
            limits["weights"] *= OUTPUT_SHARE
        self._weights = Weights(matrices, optimiser, limits)
        super().__init__(shape, self._weights, loss, encrypt_labels=encrypt_labels)
        self._gradients: list[float] = []

    def measures(self) -> dict[str, float]:
        """Length of the mean gradient as it was opened: its mean over the steps since the last time this was asked."""
        lengths, self._gradients = self._gradients, []
        return {"gradient": float(np.mean(lengths))} if lengths else {}

    def restore(self, tensors: Mapping[str, Floats], prefix: str = OF_TOP) -> None:
        """Take weights as `tensors` gave them, scaled back to the limit where this one is lower."""
        self._weights.restore(tensors, prefix)

    def checkpoint(self) -> dict[str, Any]:
        """All that the next steps hang on; `go_on_from` takes it."""
        return {"weights": self._weights.checkpoint(), "gradients": list(self._gradients)}

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        self._weights.go_on_from(state["weights"])
        self._gradients = list(state["gradients"])

    def update(self, sums: Floats, rows: float) -> str:
        """Step 10: one optimiser step on mean gradients; `sums` in the order of `Passes.products`, NaN where unknown.

        `rows` is their number, or the sum of their weights.

        Returns why the update was dropped, "" for one that stands.
        """
        means = sums / rows
        self._gradients.append(float(np.linalg.norm(means)))
        if not self.shape.hidden:
            return self._weights.update({"weights": means.reshape(self.joined_weights.shape)})
        size = self.joined_weights.size
        output = means[size:].reshape(self.shape.outputs, -1)
        output[:, :-1] *= SQUARE_ACTIVATION[0]
        return self._weights.update({"hidden": means[:size].reshape(self.joined_weights.shape), "weights": output})

    @property
    def scaled_back(self) -> int:
        """Updates after which weights were scaled back to their limit."""
        return self._weights.scaled_back

    def tensors(self, prefix: str = OF_TOP) -> dict[str, Floats]:
        """By name, behind the prefix."""
        return self._weights.tensors(prefix)


def largest_cut_error(loss: str, weight_limit: float, *, hidden: bool, outputs: int, largest_input: float) -> float:
    """What no coordinate of a cut error exceeds while weights keep their limit and inputs their bound."""
    reach = weight_limit * max(largest_input, 1.0)
    slope = output_limit = 1.0
    if hidden:
        alpha, beta = SQUARE_ACTIVATION
        output_limit = weight_limit * OUTPUT_SHARE
        slope = 2 * alpha * reach + beta
        reach = output_limit * max(alpha * reach**2 + beta * reach, 1.0)
    if loss == "cubic":
        constant, linear, cubic = CUBIC_ERROR
        error = constant + linear * reach + abs(cubic) * reach**3
    else:
        error = LINEAR_ERROR[loss][0] * reach + (INPUT_BOUND if loss == "squared" else 0.5)
    return outputs * error * output_limit * slope * weight_limit
