"""What the demonstration trains on: one table, divided between a label party and a feature party."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import polars as pl
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from vfl.notices import Notice
from vfl.spec.training import Bottom

LABEL_PARTY, FEATURE_PARTY = "label-party", "feature-party"
DATASET, NEW_ROWS = "rows", "new-rows"
"""The names both parties register their files under: of the rows that are trained on, and of those that are scored."""


@dataclass(frozen=True)
class Training:
    """What network a table is trained with, and how, unless the user says otherwise."""

    epochs: int
    batch_rows: int
    rate: float
    momentum: float = 0.0
    """Of sgd."""
    optimiser: str = "sgd"
    hidden: tuple[int, ...] = ()
    """Hidden layers of the top model; none: it is linear."""
    bottom: Bottom | None = None
    """The feature party's own network; None: its columns themselves are the embedding."""
    weight_limit: float = 0.0
    """Of the top model; 0: the preset's."""

    def for_share(self, share: float) -> Self:
        """The same on this share of the rows: smaller batches, and fewer epochs, so that rho grows no larger."""
        batch_rows, epochs = math.ceil(share * self.batch_rows), max(1, math.floor(share * self.epochs))
        return replace(self, batch_rows=batch_rows, epochs=epochs)

    @property
    def layout(self) -> str:
        return "embeddings" if self.bottom else "features"

    @property
    def top(self) -> str:
        return "mlp" if self.hidden else "linear"


@dataclass(frozen=True)
class NewRows:
    """Rows that are scored once the model is trained, as each party's own file holds them; nobody has a label."""

    label_file: pl.DataFrame
    feature_file: pl.DataFrame


@dataclass(frozen=True)
class DividedTable:
    """Rows as each party's own file holds them: what both hold of a row has the same id."""

    name: str
    task: str
    classes: int
    """Of a multiclass task, else 0."""
    id: str
    label: str
    label_file: pl.DataFrame
    """Id, label, and the label party's own columns."""
    feature_file: pl.DataFrame
    """Id and the feature party's columns."""
    stratified: bool = False
    """Each class is held out in its share."""
    positive: str = ""
    """The value of a binary label that counts as 1, where the user names it."""
    guesses: tuple[Notice, ...] = ()
    """What was told from the labels, for want of --task."""
    training: Training | None = None
    """A linear top model over the features; None: whatever suits the number of rows."""
    others: tuple[Training, ...] = ()
    """Other layouts and top models."""
    new_rows: NewRows | None = None

    def training_of(self, layout: str, top: str) -> Training | None:
        """How this layout and top model are trained on this table, if it says so."""
        trainings = (self.training, *self.others)
        return next((each for each in trainings if each and (each.layout, each.top) == (layout, top)), None)

    @property
    def files(self) -> Mapping[str, Mapping[str, pl.DataFrame]]:
        """By party and data set."""
        files = {LABEL_PARTY: {DATASET: self.label_file}, FEATURE_PARTY: {DATASET: self.feature_file}}
        if self.new_rows:
            files[LABEL_PARTY][NEW_ROWS] = self.new_rows.label_file
            files[FEATURE_PARTY][NEW_ROWS] = self.new_rows.feature_file
        return files

    def ids(self, dataset: str) -> Mapping[str, pl.Series]:
        """Of each party's file, without blank rows."""
        return {
            party: files[dataset][self.id].cast(pl.String).drop_nulls()
            for party, files in self.files.items()
            if dataset in files
        }

    @property
    def rows(self) -> int:
        """Those that both files hold."""
        label, feature = self.ids(DATASET).values()
        return int(label.is_in(feature.implode()).sum())

    @property
    def own_columns(self) -> tuple[str, ...]:
        return tuple(column for column in self.label_file.columns if column not in {self.id, self.label})

    @property
    def feature_columns(self) -> tuple[str, ...]:
        return tuple(column for column in self.feature_file.columns if column != self.id)


def breast_cancer() -> DividedTable:
    """569 tumours. The label party holds the standard errors and the diagnosis, about 0.95 AUC alone."""
    data = load_breast_cancer()
    return _divide(
        "breast-cancer",
        "binary",
        [str(name) for name in data.feature_names],
        data.data,
        label="malignant",
        labels=(data.target == 0).astype(np.int64),  # scikit-learn's 0 is malignant
        own=range(10, 20),
        # 455 training rows make two batches of nearly one size; ten epochs then stay under rho 0.05.
        training=Training(epochs=10, batch_rows=228, rate=0.05, momentum=0.5),
        others=(
            Training(20, 228, 0.03, optimiser="adam", hidden=(8,)),
            Training(10, 228, 0.03, optimiser="adam", bottom=Bottom(hidden=(16,), out=6)),
            Training(10, 228, 0.02, optimiser="adam", hidden=(8,), bottom=Bottom(hidden=(16,), out=6)),
        ),
    )


def digits() -> DividedTable:
    """1,797 images of 8 x 8 pixels. The label party holds the right half of each image and the digit."""
    data = load_digits()
    return _divide(
        "digits",
        "multiclass",
        [str(name) for name in data.feature_names],
        data.data,
        label="digit",
        labels=data.target.astype(np.int64),
        own=[8 * row + column for row in range(8) for column in range(4, 8)],
        # All training rows in one batch: ten outputs then stay under rho 0.10, though not under 0.05.
        training=Training(epochs=14, batch_rows=1438, rate=0.2, momentum=0.5),
        others=(
            Training(12, 720, 0.05, optimiser="adam", hidden=(32,), weight_limit=9),
            Training(20, 720, 0.03, optimiser="adam", bottom=Bottom(hidden=(32,), out=16)),
            Training(
                20, 720, 0.03, optimiser="adam", hidden=(32,), bottom=Bottom(hidden=(32,), out=16), weight_limit=9
            ),
        ),
    )


def diabetes() -> DividedTable:
    """442 patients. The feature party holds body mass, blood pressure and three serum values."""
    data = load_diabetes(scaled=False)
    names = [str(name) for name in data.feature_names]
    brought = {"bmi", "bp", "s3", "s5", "s6"}
    return _divide(
        "diabetes",
        "regression",
        names,
        data.data,
        label="progression",
        labels=data.target,
        own=[position for position, name in enumerate(names) if name not in brought],
        training=Training(epochs=8, batch_rows=177, rate=0.1, momentum=0.3),
        others=(
            Training(12, 177, 0.02, optimiser="adam", hidden=(8,)),
            Training(20, 177, 0.03, optimiser="adam", bottom=Bottom(hidden=(16,), out=4)),
            Training(20, 177, 0.03, optimiser="adam", hidden=(8,), bottom=Bottom(hidden=(16,), out=4)),
        ),
    )


BUNDLED: dict[str, Callable[[], DividedTable]] = {
    "breast-cancer": breast_cancer,
    "digits": digits,
    "diabetes": diabetes,
}


def _divide(
    name: str,
    task: str,
    names: list[str],
    values: np.ndarray,
    *,
    label: str,
    labels: np.ndarray,
    own: "range | list[int]",
    training: Training,
    others: tuple[Training, ...],
) -> DividedTable:
    ids = pl.Series("id", [f"row-{number:04d}" for number in range(1, len(values) + 1)])
    columns = [pl.Series(text.replace(" ", "_"), values[:, j]) for j, text in enumerate(names)]
    return DividedTable(
        name=name,
        task=task,
        classes=len(np.unique(labels)) if task == "multiclass" else 0,
        id="id",
        label=label,
        label_file=pl.DataFrame([ids, pl.Series(label, labels), *(columns[j] for j in own)]),
        feature_file=pl.DataFrame([ids, *(column for j, column in enumerate(columns) if j not in own)]),
        training=training,
        others=others,
    )
