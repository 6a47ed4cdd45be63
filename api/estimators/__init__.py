"""A training job as a scikit-learn estimator: both parties play in this process, with the roles that servers run."""

from api.estimators.classifier import VerticalClassifier
from api.estimators.regressor import VerticalRegressor

__all__ = ["VerticalClassifier", "VerticalRegressor"]
