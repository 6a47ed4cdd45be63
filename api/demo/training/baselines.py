"""What the trained model is compared with, computed after the job by whoever holds both tables: the demonstration.

All four are judged on the rows the job held out, from columns scaled as the parties scale them.
"""

import warnings
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler

from api.demo.training.joined_rows import JoinedRows, Metrics
from api.demo.training.one_pass_in_clear import models_in_clear
from vfl.flow import run_together
from vfl.kinds import flow_of
from vfl.models.intervals import intervals
from vfl.models.metrics import measure
from vfl.models.scaling import Scaling
from vfl.planning.one_pass import scored_as
from vfl.setup import Setup, Table
from vfl.spec.encryption import NoEncryption
from vfl.spec.joined_rows import Columns, JoinedRowsSpec
from vfl.spec.one_pass import OnePassSpec
from vfl.spec.training import Model, TrainingSpec

Floats = NDArray[np.float64]


def compare(spec: JoinedRowsSpec, rows: JoinedRows, federated: Metrics) -> dict[str, Metrics]:
    """Metrics of the job's model, of the same model in clear, of the label party alone, and centralised."""
    if isinstance(spec, OnePassSpec):
        return {
            "federated": federated,
            **models_in_clear(spec, rows),
            "centralised": centralised(scored_as(spec), rows),
        }
    if not isinstance(spec, TrainingSpec):
        raise TypeError(spec)
    return {
        "federated": federated,
        "same_model_in_clear": same_model_in_clear(spec, rows),
        "label_party_alone": label_party_alone(spec, rows),
        "centralised": centralised(spec, rows),
    }


def same_model_in_clear(spec: TrainingSpec, rows: JoinedRows) -> Metrics:
    """The same polynomials, batches, optimiser and first weights as the job's, in clear in this process."""
    spec = msgspec.structs.replace(spec, encryption=NoEncryption(loss_error=spec.encryption.loss_error))
    feature = spec.roster.features[0]
    tables = {
        spec.roster.label: Table(b"", rows.own, rows.labels),
        feature: Table(b"", rows.features, words=rows.words),
    }
    together = run_together(
        {
            party: flow_of(Setup(spec, party, {"rows": table}, rows.joint_seed, rows.private_seeds[party]))
            for party, table in tables.items()
        }
    )
    return together.results[spec.roster.label].metrics


def label_party_alone(spec: TrainingSpec, rows: JoinedRows) -> Metrics:
    """The same training without the feature party: a constant column stands in, which scaling turns into zeros."""
    label, feature = spec.roster.label, spec.roster.features[0]
    alone = msgspec.structs.replace(
        spec,
        data={label: spec.data[label], feature: Columns(dataset="none", columns=("constant",))},
        model=Model(top=spec.model.top),
        protection=None,
    )
    return same_model_in_clear(alone, replace(rows, features=np.ones((len(rows.labels), 1)), words={}))


def centralised(spec: TrainingSpec, rows: JoinedRows) -> Metrics:
    """All columns in one place: logistic or ridge regression; with a top model `mlp` a network of scikit-learn.

    That network has as many hidden neurons as the top model, of the ReLU kind, and the true loss.
    """
    train, test = rows.split(spec)
    joined = np.column_stack([rows.features, rows.own])
    columns = Scaling.fit(joined[train]).apply(joined)
    task, labels = spec.job.task, rows.labels
    if task == "regression":
        regression = Ridge()
        if spec.hidden:
            regression = TransformedTargetRegressor(_network(MLPRegressor, spec), transformer=StandardScaler())
        scores = _fitted(regression, columns[train], labels[train]).predict(columns[test])[:, None]
    elif len(np.unique(labels[train])) == 1:
        return {}
    else:
        classifier = _network(MLPClassifier, spec) if spec.hidden else LogisticRegression(max_iter=5000)
        model = _fitted(classifier, columns[train], labels[train])
        scores = model.predict_proba(columns[test])
        if task == "binary":
            scores = scores[:, 1:]
        if task == "multiclass":
            # A class without a training row has no score, and can never be the highest.
            some_scores, scores = scores, np.full((len(test), spec.outputs), -np.inf)
            scores[:, model.classes_.astype(int)] = some_scores
    return measure(task, labels[test], scores) | intervals(task, labels[test], scores, rows.joint_seed)


def _network(kind: type[Any], spec: TrainingSpec) -> Any:
    return kind(
        hidden_layer_sizes=spec.model.top.hidden, learning_rate_init=0.01, alpha=0.1, max_iter=100, random_state=0
    )


def _fitted(model: Any, columns: Floats, labels: Floats) -> Any:
    with warnings.catch_warnings():
        # A network is trained for a fixed number of epochs, converged or not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(columns, labels)
