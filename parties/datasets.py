"""Tables by name through polars: CSV and Parquet, read whole, checked cell by cell, told apart by named errors.

A cell's value stands only in the error its owner reads; `Failure.told` keeps it from the peer.
"""

import difflib
import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parties.errors import (
    ConstantLabel,
    DuplicateIds,
    LabelInFeatureFile,
    LabelsNotBinary,
    LabelsNotClasses,
    MissingValue,
    NonNumericCell,
    NotFinite,
    TooFewRows,
    UnknownColumn,
    UnknownDataset,
    UnknownFile,
    UnreadableFile,
)
from parties.settings import DatasetSettings
from vfl.job import JobSpec, PartyId, Role

MINIMUM_ROWS = 2
EXAMPLES = 3


@dataclass(frozen=True)
class Table:
    """One party's rows for one job, in the order of its file."""

    ids: tuple[str, ...] = field(repr=False)
    columns: NDArray[np.float64] = field(repr=False)
    """rows x columns, in the order of the specification."""
    labels: NDArray[np.float64] | None = field(repr=False)
    """rows; at the label party only."""

    @property
    def rows(self) -> int:
        return len(self.ids)


def load(folder: Path, datasets: dict[str, DatasetSettings], spec: JobSpec, me: PartyId) -> Table:
    """What this party brings to a job. Raises a subclass of InvalidData, naming file, column and row."""
    brought = spec.data[me]
    if brought.dataset not in datasets:
        near = difflib.get_close_matches(brought.dataset, datasets, n=1)
        raise UnknownDataset(
            f"{me} has no data set {brought.dataset!r}", fix=f"Did you mean {near[0]!r}?" if near else _ADD_DATASET
        )
    registered = datasets[brought.dataset]
    path = folder / registered.path
    frame = _open(path)
    known = frame.collect_schema().names()
    foreign_label = spec.data[spec.roster.label].label
    if spec.role_of(me) is Role.FEATURE and foreign_label in known:
        raise LabelInFeatureFile(
            f"label in the feature file: {path.name} of {me} has the column {foreign_label!r}, which is {spec.roster.label}'s label",
            fix=f"Remove {foreign_label!r} from the file: a feature party must not hold the label.",
        )
    labelled = (brought.label,) if brought.label else ()
    wanted = (registered.id, *brought.columns, *labelled)
    for column in wanted:
        if column not in known:
            near = difflib.get_close_matches(column, known, n=1)
            raise UnknownColumn(
                f"{path.name} of {me} has no column {column!r}",
                fix=f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(known[:20])}.",
            )
    try:
        rows = frame.select(list(dict.fromkeys(wanted))).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UnreadableFile(f"{path.name} of {me} cannot be read: {error}") from error
    if rows.height < MINIMUM_ROWS:
        raise TooFewRows(f"{path.name} of {me} has {rows.height} rows; a job needs at least {MINIMUM_ROWS}")
    ids = _ids(rows[registered.id], path.name)
    columns = np.empty((rows.height, len(brought.columns)), dtype=np.float64)
    for position, column in enumerate(brought.columns):
        columns[:, position] = _numbers(rows[column], path.name)
    labels = _numbers(rows[brought.label], path.name) if brought.label else None
    if labels is not None:
        _check_labels(spec, labels, brought.label)
    return Table(ids, columns, labels)


def classes_of(table: Table) -> int:
    """Number of classes of checked multiclass labels."""
    return 0 if table.labels is None else int(table.labels.max()) + 1


def ids_digest(joint_seed: bytes, ids: tuple[str, ...]) -> bytes:
    """SHA-256 over seed and ordered ids, each with its length before it, so that no two lists collide by joining."""
    digest = hashlib.sha256(len(joint_seed).to_bytes(4, "big") + joint_seed + len(ids).to_bytes(8, "big"))
    for identifier in ids:
        encoded = identifier.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.digest()


def _open(path: Path) -> pl.LazyFrame:
    if not path.is_file():
        raise UnknownFile(
            f"there is no file {path}", fix="Correct [datasets] in party.toml; paths are relative to its folder."
        )
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            frame = pl.scan_parquet(path)
        else:
            # All cells as text: inference would guess ids ("007") and hide the row of a cell that is no number.
            frame = pl.scan_csv(path, infer_schema=False)
        frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UnreadableFile(
            f"{path.name} cannot be read: {error}", fix="CSV (UTF-8, with a header line) or Parquet."
        ) from error
    return frame


def _ids(column: pl.Series, file: str) -> tuple[str, ...]:
    missing = column.is_null().arg_true()
    if len(missing):
        raise MissingValue(f"{file}: the id column {column.name!r} is empty in data row {missing[0] + 1}")
    texts = column.cast(pl.String)
    duplicated = texts.is_duplicated()
    if duplicated.any():
        first, second = texts.eq(texts.filter(duplicated)[0]).arg_true()[:2]
        raise DuplicateIds(
            f"{file}: {texts.n_unique()} ids in {len(texts)} rows; data rows {first + 1} and {second + 1} share one",
            fix=f"Each {column.name!r} must stand in one row.",
        )
    return tuple(texts.to_list())


def _numbers(column: pl.Series, file: str) -> NDArray[np.float64]:
    text = column.str.strip_chars() if column.dtype == pl.String else column
    missing = (text.is_null() | (text == "") if text.dtype == pl.String else text.is_null()).arg_true()
    if len(missing):
        raise MissingValue(
            f"{file}: column {column.name!r} is empty in data row {missing[0] + 1} ({len(missing)} such rows)",
            fix="Fill or remove these rows at both parties.",
        )
    numbers = text.cast(pl.Float64, strict=False)
    wrong = numbers.is_null().arg_true()
    if len(wrong):
        raise NonNumericCell(
            f"{file}: column {column.name!r} is not a number in data row {wrong[0] + 1}: {column[wrong[0]]!r} ({len(wrong)} such rows)",
            fix="Encode the column as numbers, or leave it out of the job.",
        )
    bad = (~numbers.is_finite()).arg_true()
    if len(bad):
        raise NotFinite(
            f"{file}: column {column.name!r} is {numbers[bad[0]]} in data row {bad[0] + 1} ({len(bad)} such rows)",
            fix="Replace NaN and infinite values.",
        )
    return numbers.to_numpy().astype(np.float64, copy=False)


def _check_labels(spec: JobSpec, labels: NDArray[np.float64], name: str) -> None:
    found = np.unique(labels)
    if len(found) == 1:
        raise ConstantLabel(f"the label {name!r} is {found[0]:g} in every row: there is nothing to learn")
    if spec.job.task == "binary":
        wrong = ~np.isin(labels, (0.0, 1.0))
        if wrong.any():
            raise LabelsNotBinary(
                f"the label {name!r} of a binary job must be 0 or 1; {int(wrong.sum())} rows hold others, such as {_examples(labels[wrong])}",
                fix='Recode the label, or set job.task to "multiclass" or "regression".',
            )
    if spec.job.task == "multiclass":
        classes = len(found)
        if not np.array_equal(found, np.arange(classes)) or classes < 3 or spec.job.classes not in {0, classes}:
            wanted = f"0 to {spec.job.classes - 1}" if spec.job.classes else "0 to K-1 for at least 3 classes"
            raise LabelsNotClasses(
                f"the label {name!r} of a multiclass job must be the integers {wanted}, each at least once; it holds {classes} values, such as {_examples(found)}",
                fix="Recode the label.",
            )


def _examples(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:g}" for value in np.unique(values)[:EXAMPLES])


_ADD_DATASET = "Add it under [datasets] in party.toml."
