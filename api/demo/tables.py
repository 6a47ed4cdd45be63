"""What the demonstration trains on: one table, divided between a label party and a feature party."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

LABEL_PARTY, FEATURE_PARTY = "label-party", "feature-party"
DATASET = "rows"
"""The name both parties register their file under."""


@dataclass(frozen=True)
class Training:
    """How a table is trained unless the user says otherwise."""

    epochs: int
    batch_rows: int
    rate: float
    momentum: float


@dataclass(frozen=True)
class DividedTable:
    """The same rows in the same order, as each party's own file holds them."""

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
    training: Training

    @property
    def rows(self) -> int:
        return self.label_file.height

    @property
    def outputs(self) -> int:
        """Width of the model's output."""
        return self.classes or 1

    @property
    def opened_per_step(self) -> int:
        """Gradient sums of one encrypted step: one per weight."""
        return self.outputs * (len(self.own_columns) + len(self.feature_columns) + 1)

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
    )
