"""Amounts, by the squared error."""

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin

from api.estimators.estimator import Floats, VerticalEstimator
from api.estimators.federation import Labels


class VerticalRegressor(RegressorMixin, VerticalEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Predictions are in the units of y."""

    def fit(self, X: Any, y: Any) -> Self:
        X, y = self._validated(X, y=y, y_numeric=True, ensure_min_samples=2)
        self._train(X, Labels(y.astype(np.float64)))
        return self

    def predict(self, X: Any) -> Floats:
        return self._scores(X)[:, 0]

    def _task(self) -> dict[str, Any]:
        return {"job": {"task": "regression"}, "label": {}, "split": {}, "encryption": {}}
