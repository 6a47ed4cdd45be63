"""Linear models from sums over rows alone: least squares with a penalty, which is chosen on parts that a fit left out.

Rows are never seen here. `products` are the sums of the products of two inputs, the bias' 1 last among them, and
`with_targets` those of an input and a target; folds of rows have sums of their own, and those of all rows are theirs
together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Of some rows."""

    rows: int
    products: Floats
    """inputs x inputs"""
    with_targets: Floats
    """inputs x outputs"""
    target_squares: Floats
    """outputs"""

    def __add__(self, other: "Moments") -> "Moments":
        return self._combined(other, 1)

    def __sub__(self, other: "Moments") -> "Moments":
        return self._combined(other, -1)

    def _combined(self, other: "Moments", sign: int) -> "Moments":
        return Moments(
            self.rows + sign * other.rows,
            self.products + sign * other.products,
            self.with_targets + sign * other.with_targets,
            self.target_squares + sign * other.target_squares,
        )

    def of_inputs(self, inputs: Sequence[int]) -> "Moments":
        """The same for these inputs alone."""
        at = np.array(inputs)
        return Moments(self.rows, self.products[np.ix_(at, at)], self.with_targets[at], self.target_squares)

    def squared_error(self, weights: Floats) -> float:
        """The sum over rows and outputs that weights (outputs x inputs) leave."""
        explained = 2 * (weights * self.with_targets.T).sum() - (weights @ self.products * weights).sum()
        return float(self.target_squares.sum() - explained)

    def weights(self, penalty: float) -> Floats:
        """Outputs x inputs: those of least mean squared error plus `penalty` times their squares, that of the bias
        left aside. An input that is zero in every row gets the weight zero."""
        used, _, system = self._system(penalty)
        weights = np.zeros((len(self.target_squares), len(self.products)))
        weights[:, used] = np.linalg.solve(system, self.with_targets[used] / self.rows).T
        return weights

    def standard_errors(self, penalty: float) -> Floats:
        """Of these weights of a single output, NaN where an input is zero in every row: with G the mean products and A
        those with the penalty, the roots of the diagonal of s² A⁻¹ G A⁻¹ / rows, where s² is the squared error that is
        left over rows - trace(A⁻¹ G). NaN everywhere where the inputs leave no degree of freedom."""
        used, mean_products, system = self._system(penalty)
        shrunk = np.linalg.solve(system, mean_products)
        freedom = self.rows - np.trace(shrunk)
        errors = np.full(len(self.products), np.nan)
        if freedom > 0:
            variance = self.squared_error(self.weights(penalty)) / freedom
            errors[used] = np.sqrt(variance * np.diagonal(np.linalg.solve(system, shrunk.T)) / self.rows)
        return errors

    def _system(self, penalty: float) -> tuple[NDArray[np.int64], Floats, Floats]:
        """Which inputs are not zero in every row, the means of their products, and those with the penalty."""
        used = np.flatnonzero(np.diagonal(self.products) > 0)
        mean_products = self.products[np.ix_(used, used)] / self.rows
        system = mean_products.copy()
        system[np.diag_indices(len(used) - 1)] += penalty
        return used, mean_products, system


@dataclass(frozen=True)
class Ridge:
    weights: Floats
    """outputs x inputs, the bias last"""
    penalty: float
    errors: dict[float, float]
    """Mean squared error on the folds that a fit left out, by penalty; empty where there is one fold."""
    whole: Moments
    """Of all rows."""

    def coefficients(self, mean: float, deviation: float) -> dict[str, list[float]]:
        """Of a regression whose target was scaled by these two, in units of the target: each with its standard error,
        z, and the probability of so great a z, on either side, of a coefficient that is zero."""
        values = self.weights[0] * deviation
        values[-1] += mean
        errors = self.whole.standard_errors(self.penalty) * deviation
        with np.errstate(divide="ignore", invalid="ignore"):
            z = values / errors
        return {
            "coefficient": values.tolist(),
            "coefficient_error": errors.tolist(),
            "coefficient_z": z.tolist(),
            "coefficient_p": [math.erfc(abs(each) / math.sqrt(2)) for each in z.tolist()],
        }


def fit(folds: Sequence[Moments], penalties: Sequence[float]) -> Ridge:
    """The penalty of least error over the folds; of equals the greatest."""
    whole = folds[0]
    for fold in folds[1:]:
        whole += fold
    errors = dict[float, float]()
    if len(folds) > 1:
        for penalty in penalties:
            left_out = sum(fold.squared_error((whole - fold).weights(penalty)) for fold in folds)
            errors[penalty] = left_out / whole.rows
    best = min(penalties, key=lambda penalty: (errors.get(penalty, 0.0), -penalty))
    return Ridge(whole.weights(best), best, errors, whole)
