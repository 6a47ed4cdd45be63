"""What both estimators do alike: their parameters as a job's specification, its training, and scores of new rows."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from api.estimators.federation import (
    FEATURE_PARTY,
    LABEL_PARTY,
    Labels,
    as_value_errors,
    named_rows,
    score,
    train,
)
from api.written_specifications import written
from parties.job_check import check
from vfl.kinds import spec_of
from vfl.notices import Notice
from vfl.spec.preparation import PreparationStep

Floats = NDArray[np.float64]

LARGEST_SEED = 2**31 - 1


class VerticalEstimator(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """A training job between a label party and a feature party. Parameters have the names of the specification's keys
    (docs/job_specification.md); docs/estimators.md says what each is for."""

    def __init__(
        self,
        feature_columns: Sequence[str | int] | None = None,
        *,
        prepare: Sequence[Mapping[str, Any]] = (),
        test: float = 0.2,
        hidden: Sequence[int] = (),
        epochs: int = 20,
        batch_rows: int = 4096,
        optimiser: str = "sgd",
        rate: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        weight_limit: float = 0.0,
        scheme: str = "ckks",
        values_per_key: int = 0,
        random_state: Any = None,
    ) -> None:
        self.feature_columns = feature_columns
        self.prepare = prepare
        self.test = test
        self.hidden = hidden
        self.epochs = epochs
        self.batch_rows = batch_rows
        self.optimiser = optimiser
        self.rate = rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.weight_limit = weight_limit
        self.scheme = scheme
        self.values_per_key = values_per_key
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.non_deterministic = self.scheme != "none"  # noise on what is opened comes from the system's entropy
        return tags

    def to_spec(
        self,
        *,
        name: str,
        label_party: str,
        label_dataset: str,
        label: str,
        feature_party: str,
        feature_dataset: str,
        alignment: str = "",
        purpose: str = "",
    ) -> str:
        """The same job between two servers, as the TOML text that `vfl job submit` and `Client.submit` take.

        Columns and classes are those of the last fit, everything else is as the parameters are now. Raises ValueError
        where servers could not run it.
        """
        check_is_fitted(self)
        if not hasattr(self, "feature_names_in_"):
            raise ValueError(
                "The columns have no names, and a specification names them. Fit on a table with the names that the "
                "parties' data sets have."
            )
        document = self._document(
            list(self.feature_names_in_),
            {"name": name, "purpose": purpose, "seed": self._stated_seed()},
            {label_party: {"dataset": label_dataset, "label": label}, feature_party: {"dataset": feature_dataset}},
        )
        if alignment:
            document["rows"] = {"alignment": alignment}
        text = written(document)
        with as_value_errors():
            check(spec_of(tomllib.loads(text)), self.check_.rows)
        return text

    def _task(self) -> dict[str, Any]:
        """What the task adds to the tables [job] and [encryption] and to the label party's, by their names."""
        raise NotImplementedError

    def _train(self, X: NDArray[Any], labels: Labels) -> None:
        rows = named_rows(X, names := self._names())
        seed = self._stated_seed()
        if isinstance(seed, str):
            seed = int(check_random_state(self.random_state).randint(LARGEST_SEED))
        document = self._document(
            names,
            {"name": "rehearsal", "seed": seed},
            {LABEL_PARTY: {"dataset": "rows", "label": _unlike("label", names)}, FEATURE_PARTY: {"dataset": "rows"}},
        )
        trained = train(written(document), rows, labels)
        self.job_, self.check_ = trained.spec, trained.check
        self.halves_ = {party: outcome.state for party, outcome in trained.outcomes.items()}
        self.metrics_: dict[str, float] = trained.outcomes[LABEL_PARTY].metrics
        self.notices_: list[Notice] = [notice for each in trained.outcomes.values() for notice in each.notices]

    def _scores(self, X: Any) -> Floats:
        """Rows x outputs; of a regression in the units of its label."""
        check_is_fitted(self)
        return score(self.job_, self.halves_, named_rows(self._validated(X, reset=False), self._names()))

    def _validated(self, X: Any, **others: Any) -> Any:
        """By scikit-learn's own rules; words and empty cells pass where `prepare` takes them in some column."""
        try:
            steps = msgspec.convert(_plain(self.prepare), tuple[PreparationStep, ...])
        except msgspec.ValidationError as error:
            raise ValueError(f"prepare: {error}. docs/job_specification.md lists what each kind takes.") from error
        return validate_data(
            self,
            X,
            **others,
            dtype=object if any(step.reads_words for step in steps) else np.float64,
            ensure_all_finite="allow-nan" if any(step.takes_gaps for step in steps) else True,
        )

    def _names(self) -> list[str]:
        return list(getattr(self, "feature_names_in_", (f"x{at}" for at in range(self.n_features_in_))))

    def _stated_seed(self) -> int | Literal["joint"]:
        return int(self.random_state) if isinstance(self.random_state, Integral) else "joint"

    def _document(self, names: Sequence[str], job: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
        """`data` is what is known of the label party's table, then of the feature party's."""
        columns, of_task = self._columns(names), self._task()
        label_party, feature_party = data
        brought = {
            party: {**own, "columns": of_party, "prepare": [*_of_party(self.prepare, of_party)]}
            for (party, own), of_party in zip(data.items(), columns, strict=True)
        }
        brought[label_party] |= of_task["label"]
        encryption = {"scheme": self.scheme, **of_task["encryption"]}
        if self.values_per_key:
            encryption["values_per_key"] = self.values_per_key
        optimiser = {"name": self.optimiser, "rate": self.rate, "weight_decay": self.weight_decay}
        if self.optimiser == "sgd":
            optimiser["momentum"] = self.momentum
        document: dict[str, Any] = _plain(
            {
                "job": {**job, "protocol": "training", **of_task["job"]},
                "roster": {"label": label_party, "features": [feature_party]},
                "data": brought,
                "split": {"test": self.test, **of_task["split"]},
                "model": {"top": {"kind": "mlp", "hidden": self.hidden} if len(self.hidden) else {"kind": "linear"}},
                "train": {
                    "epochs": self.epochs,
                    "batch_rows": self.batch_rows,
                    "weight_limit": self.weight_limit,
                    "optimiser": optimiser,
                },
                "encryption": encryption,
            }
        )
        return document

    def _columns(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """(The label party's, the feature party's), each in the order of `names`."""
        chosen = range(len(names) // 2, len(names)) if self.feature_columns is None else self.feature_columns
        features = {_name_of(column, names) for column in chosen}
        unknown = {column for entry in self.prepare for column in entry.get("columns", ())} - set(names)
        if unknown:
            raise ValueError(f"prepare names {', '.join(map(repr, sorted(unknown)))}, and X has no such column")
        return [name for name in names if name not in features], [name for name in names if name in features]


def _name_of(column: str | int, names: Sequence[str]) -> str:
    if isinstance(column, str):
        if column not in names:
            raise ValueError(f"feature_columns names {column!r}, and X has no such column. It has: {', '.join(names)}.")
        return column
    if not -len(names) <= column < len(names):
        raise ValueError(f"feature_columns has the position {column}, and X has {len(names)} columns")
    return names[column]


def _of_party(prepare: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The entries of `prepare` that are for some of these columns."""
    for entry in prepare:
        own = [column for column in entry.get("columns", ()) if column in columns]
        if own or not entry.get("columns"):
            yield {**entry, "columns": own}


def _unlike(name: str, names: Sequence[str]) -> str:
    """The name itself, or one like it that is not taken."""
    return _unlike(f"{name}_", names) if name in names else name


def _plain(value: Any) -> Any:
    """The same without NumPy's numbers and without tuples, which no specification has."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | range | np.ndarray):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value
