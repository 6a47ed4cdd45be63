"""The estimators as a data scientist uses them: both parties in one process, by scikit-learn's rules."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from api.estimators import VerticalClassifier, VerticalRegressor
from vfl.kinds import read_spec_as
from vfl.models.halves import LabelHalf
from vfl.spec.training import TrainingSpec

ROWS = 240
PARTIES: dict[str, Any] = {
    "name": "risk",
    "label_party": "bank",
    "label_dataset": "customers",
    "label": "default",
    "feature_party": "telco",
    "feature_dataset": "usage",
}


@pytest.fixture(scope="module")
def customers() -> tuple[pl.DataFrame, pl.Series]:
    """Words and gaps among the columns, and labels that are words."""
    draws = np.random.default_rng(3)
    rows = pl.DataFrame(
        {
            "income": draws.normal(40, 10, ROWS),
            "calls": draws.normal(100, 30, ROWS),
            "plan": draws.choice(["basic", "plus", "pro"], ROWS),
        }
    )
    risk = (rows["income"] - 40) / 10 + (rows["plan"] == "pro") * 3.0 - (rows["calls"] - 100) / 30 - 1
    gaps = rows.with_columns(calls=pl.when(pl.int_range(ROWS) % 10 == 0).then(None).otherwise("calls"))
    return gaps, pl.Series("default", np.where(risk > 0, "Y", "N"))


WITH_WORDS: dict[str, Any] = {
    "feature_columns": ["calls", "plan"],
    "prepare": [
        {"columns": ["plan"], "kind": "one_hot", "categories": 3},
        {"columns": ["calls"], "kind": "standardise", "missing": "median"},
    ],
}


@parametrize_with_checks([VerticalClassifier(scheme="none"), VerticalRegressor(scheme="none")])  # type: ignore[untyped-decorator]
def test_an_estimator_keeps_the_rules_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_an_encrypted_fit_scores_as_one_in_clear_does() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    model = VerticalClassifier(epochs=2, scheme="none", random_state=0).fit(X[:, :8], y)
    in_clear = model.decision_function(X[:, :8])
    encrypted = model.set_params(scheme="ckks").fit(X[:, :8], y)
    assert np.abs(encrypted.decision_function(X[:, :8]) - in_clear).max() < 0.01
    assert {line.message for line in encrypted.check_.learned} >= {"OpenedGradient", "EncryptedScores"}


def test_an_encrypted_regression_predicts_as_one_in_clear_does() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = VerticalRegressor(epochs=2, scheme="none", random_state=0).fit(X, y)
    in_clear = model.predict(X)
    assert np.abs(model.set_params(scheme="ckks").fit(X, y).predict(X) - in_clear).max() < 0.01 * y.std()


def test_columns_of_the_feature_party_are_named_or_counted_and_else_the_second_half() -> None:
    X, y = load_diabetes(return_X_y=True, as_frame=False)
    named = pl.DataFrame(X, schema=[f"c{at}" for at in range(10)])
    chosen: dict[str, Any] = {"scheme": "none", "epochs": 2, "random_state": 0}
    by_name = VerticalRegressor(["c3", "c1"], **chosen).fit(named, y)
    by_place = VerticalRegressor([1, -7], **chosen).fit(named, y)
    half = VerticalRegressor(**chosen).fit(named, y)
    assert by_name.job_ == by_place.job_
    assert by_name.job_.data["feature-party"].columns == ("c1", "c3")
    assert by_name.job_.data["label-party"].columns == tuple(f"c{at}" for at in (0, 2, 4, 5, 6, 7, 8, 9))
    assert half.job_.data["feature-party"].columns == tuple(f"c{at}" for at in range(5, 10))


def test_a_regressor_predicts_in_the_units_of_y() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = VerticalRegressor(scheme="none", random_state=0).fit(X, y)
    assert model.score(X, y) > 0.4
    assert abs(model.predict(X).mean() - y.mean()) < y.std() / 4
    assert {"r2", "r2_low", "r2_high", "own_columns_r2"} == set(model.metrics_)


def test_words_and_gaps_are_prepared_as_a_server_prepares_them(customers: tuple[pl.DataFrame, pl.Series]) -> None:
    X, y = customers
    model = VerticalClassifier(**WITH_WORDS, scheme="none", random_state=0).fit(X, y)
    assert model.score(X, y) > 0.85
    assert list(model.classes_) == ["N", "Y"]
    assert {notice.code for notice in model.notices_} >= {"gaps_filled", "categories"}
    assert LabelHalf.read(model.job_, model.halves_["label-party"]).preparation.names == ("income",)
    new = pl.DataFrame({"income": [40.0, 40.0], "calls": [None, 100.0], "plan": ["pro", "a word nobody knew"]})
    first, second = model.predict_proba(new)[:, 1]
    assert first > second


def test_a_gap_where_nothing_is_said_of_gaps_is_refused_with_its_column_and_row() -> None:
    X = pl.DataFrame({"income": [1.0, None, 3.0] * 20, "calls": [None, 2.0, 3.0] * 20})
    prepare = [{"columns": ["calls"], "kind": "standardise", "missing": "median"}]
    model = VerticalClassifier(["calls"], prepare=prepare, scheme="none")
    with pytest.raises(ValueError, match="column 'income' is empty in data row 2"):
        model.fit(X, [0, 1, 1] * 20)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "train.epochs must be at least 1. docs/job_specification.md"),
        ({"feature_columns": ["x9"]}, "feature_columns names 'x9', and X has no such column. It has: x0, x1, x2"),
        ({"feature_columns": [7]}, "feature_columns has the position 7, and X has 3 columns"),
        ({"prepare": [{"columns": ["x8"], "kind": "quantile"}]}, "prepare names 'x8', and X has no such column"),
        ({"prepare": [{"kind": "quantiles"}]}, "prepare: Invalid value 'quantiles'"),
        ({"hidden": (200,), "scheme": "ckks", "values_per_key": 300}, "one step opens .* values, more than the 300"),
    ],
)
def test_a_setting_that_no_server_could_run_is_a_value_error(settings: dict[str, Any], message: str) -> None:
    X = np.random.default_rng(0).normal(size=(100, 3))
    with pytest.raises(ValueError, match=message):
        VerticalClassifier(**{"scheme": "none"} | settings).fit(X, X[:, 0] > 0)


def test_few_rows_are_trained_on_here_and_said_to_be_too_few_for_a_party() -> None:
    X = np.random.default_rng(0).normal(size=(40, 3))
    model = VerticalClassifier(scheme="none", random_state=0).fit(X, X[:, 0] > 0)
    said = "\n".join(model.check_.must_accept)
    assert "minimum_rows in label-party's party.toml: lower it (its table has 40 rows, fewer than 1000)" in said


def test_a_search_tries_settings_in_a_pipeline(customers: tuple[pl.DataFrame, pl.Series]) -> None:
    X, y = customers
    numbers = FunctionTransformer(lambda rows: rows.drop("plan").fill_null(100.0))
    pipeline = make_pipeline(numbers, VerticalClassifier(["calls"], scheme="none", random_state=0))
    search = GridSearchCV(pipeline, {"verticalclassifier__hidden": [(), (4,)], "verticalclassifier__rate": [1e-4, 0.1]})
    search.fit(X, y)
    assert search.best_params_["verticalclassifier__rate"] == 0.1
    assert list(search.best_estimator_[-1].feature_names_in_) == ["income", "calls"]


@pytest.mark.parametrize("settings", [{}, {"loss_error": "cubic"}, {"several": True}])
def test_probabilities_follow_the_scores_and_sum_to_one(settings: dict[str, Any]) -> None:
    X = np.random.default_rng(0).normal(size=(300, 3))
    y = np.digitize(X[:, 0], [-0.5, 0.5]) if settings.pop("several", False) else X[:, 0] > 0
    model = VerticalClassifier(**settings, scheme="none", random_state=0).fit(X, y)
    shares, scores = model.predict_proba(50 * X), model.decision_function(50 * X)
    assert np.allclose(shares.sum(axis=1), 1)
    assert ((shares > 0) & (shares < 1)).all()
    assert (model.classes_[shares.argmax(axis=1)] == model.predict(50 * X)).all()
    if scores.ndim == 1:
        order = scores.argsort()
        assert (np.diff(shares[order, 1]) >= 0).all()


def test_the_same_job_is_written_for_two_servers(customers: tuple[pl.DataFrame, pl.Series]) -> None:
    X, y = customers
    model = VerticalClassifier(**WITH_WORDS, scheme="none", stratify=True, random_state=7).fit(X, y)
    spec = read_spec_as(TrainingSpec, model.to_spec(**PARTIES, alignment="ab12", purpose="a test"))
    assert (spec.job.name, spec.job.seed, spec.job.purpose, spec.rows.alignment) == ("risk", 7, "a test", "ab12")
    assert (spec.roster.label, spec.roster.features) == ("bank", ("telco",))
    for written, rehearsed in (("bank", "label-party"), ("telco", "feature-party")):
        assert spec.data[written].columns == model.job_.data[rehearsed].columns
        assert spec.data[written].prepare == model.job_.data[rehearsed].prepare
    bank = spec.data["bank"]
    assert (bank.dataset, bank.label, bank.positive) == ("customers", "default", "Y")
    assert (spec.split, spec.model, spec.train.epochs) == (model.job_.split, model.job_.model, model.job_.train.epochs)
    assert spec.encryption.scheme == "none"


def test_what_was_searched_in_clear_is_written_encrypted_and_with_a_seed_both_draw(
    customers: tuple[pl.DataFrame, pl.Series],
) -> None:
    X, y = customers
    model = VerticalClassifier(**WITH_WORDS, scheme="none", random_state=7).fit(X, y)
    spec = read_spec_as(TrainingSpec, model.set_params(scheme="ckks", random_state=None).to_spec(**PARTIES))
    assert (spec.encryption.scheme, spec.job.seed) == ("ckks", "joint")


def test_columns_without_names_are_rehearsed_and_not_written() -> None:
    X = np.random.default_rng(0).normal(size=(60, 2))
    model = VerticalClassifier(scheme="none").fit(X, X[:, 0] > 0)
    with pytest.raises(ValueError, match="The columns have no names"):
        model.to_spec(**PARTIES)
