"""Classes, by one score of two classes and one of each of several."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from api.estimators.estimator import Floats, VerticalEstimator
from api.estimators.federation import Labels

STRAIGHT = 0.45
"""How far from 1/2 the linearised loss error's probability follows the score; beyond, it bends and reaches neither 0
nor 1."""


class VerticalClassifier(ClassifierMixin, VerticalEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Two classes or more."""

    def __init__(
        self,
        feature_columns: Sequence[str | int] | None = None,
        *,
        prepare: Sequence[Mapping[str, Any]] = (),
        test: float = 0.2,
        stratify: bool = False,
        hidden: Sequence[int] = (),
        epochs: int = 20,
        batch_rows: int = 4096,
        optimiser: str = "sgd",
        rate: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        weight_limit: float = 0.0,
        scheme: str = "ckks",
        loss_error: str = "linear",
        values_per_key: int = 0,
        random_state: Any = None,
    ) -> None:
        super().__init__(
            feature_columns,
            prepare=prepare,
            test=test,
            hidden=hidden,
            epochs=epochs,
            batch_rows=batch_rows,
            optimiser=optimiser,
            rate=rate,
            momentum=momentum,
            weight_decay=weight_decay,
            weight_limit=weight_limit,
            scheme=scheme,
            values_per_key=values_per_key,
            random_state=random_state,
        )
        self.stratify = stratify
        self.loss_error = loss_error

    def fit(self, X: Any, y: Any) -> Self:
        X, y = self._validated(X, y=y, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y holds one class alone, {self.classes_[0]!r}; a classifier needs rows of two")
        self._train(X, Labels(codes.astype(np.float64), tuple(map(str, self.classes_))))
        return self

    def decision_function(self, X: Any) -> Floats:
        """The scores: of two classes one number a row, above 0 for the second; else one of each class."""
        scores = self._scores(X)
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> NDArray[Any]:
        scores = self.decision_function(X)
        chosen = scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0).astype(int)
        predicted: NDArray[Any] = self.classes_[chosen]
        return predicted

    def predict_proba(self, X: Any) -> Floats:
        """Rows x classes. Scores of several classes are each against all others, and are brought to a sum of 1."""
        shares = self._shares(self.decision_function(X))
        if shares.ndim == 1:
            return np.column_stack([1 - shares, shares])
        of_rows: Floats = shares / shares.sum(axis=1, keepdims=True)
        return of_rows

    def _shares(self, scores: Floats) -> Floats:
        """What the loss error takes a score for: the logistic function, or its line score / 4 + 1/2."""
        if self.job_.encryption.loss_error == "cubic":
            from scipy.special import expit  # noqa: PLC0415 - where a probability is asked for

            of_scores: Floats = expit(scores)
            return of_scores
        away = np.abs(scores) / 4
        bent = 0.5 - (0.5 - STRAIGHT) * np.exp(-np.maximum(away - STRAIGHT, 0) / (0.5 - STRAIGHT))
        line: Floats = 0.5 + np.sign(scores) * np.where(away <= STRAIGHT, away, bent)
        return line

    def _task(self) -> dict[str, Any]:
        several = len(self.classes_) > 2
        positive = self.classes_[-1]
        return {
            "job": {"task": "multiclass", "classes": len(self.classes_)} if several else {"task": "binary"},
            "label": {} if several or not isinstance(positive, str) else {"positive": str(positive)},
            "split": {"stratify": self.stratify},
            "encryption": {"loss_error": self.loss_error},
        }
