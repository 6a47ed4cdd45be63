"""Tables by name through polars: CSV and Parquet, read whole, checked cell by cell, told apart by named errors.

A cell's value stands only in the error its owner reads; `Failure.told` keeps it from the peer.
"""

import contextlib
import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parties.errors import (
    ConstantLabel,
    DuplicateColumns,
    DuplicateIds,
    IdAmongColumns,
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
    WrongWidth,
)
from parties.settings import DatasetSettings
from vfl.job import JobSpec
from vfl.terms import Brought, PartyId

MINIMUM_ROWS = 2
EXAMPLES = 3
FEWEST_CLASSES = 3
REASON_LIMIT = 300
LARGEST = 1e100
"""Beyond it a column's variance no longer fits a float64, and standardising gives NaN."""
PARQUET = {".parquet", ".pq"}
TABLE_LIMIT = 3 << 30
"""Bytes of a table; it reaches the worker in one frame of at most 4 GiB."""


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


def load(folder: Path, datasets: dict[str, DatasetSettings], spec: JobSpec, me: PartyId) -> dict[str, Table]:
    """What this party brings to a job, by use. Raises a subclass of InvalidData, naming file, column and row."""
    return {use: _load(folder, datasets, spec, me, brought) for use, brought in spec.brings(me).items()}


def _load(folder: Path, datasets: dict[str, DatasetSettings], spec: JobSpec, me: PartyId, brought: Brought) -> Table:
    if brought.dataset not in datasets:
        near = difflib.get_close_matches(brought.dataset, datasets, n=1)
        raise UnknownDataset(
            f"{me} has no data set {brought.dataset!r}", fix=f"Did you mean {near[0]!r}?" if near else _ADD_DATASET
        )
    registered = datasets[brought.dataset]
    path = folder / registered.path
    frame = _open(path)
    known = frame.collect_schema().names()
    if brought.label_at_peer and brought.label_at_peer in known:
        raise LabelInFeatureFile(
            f"label in the feature file: {path.name} of {me} has the column {brought.label_at_peer!r}, "
            f"which is {spec.coordinator}'s label",
            fix=f"Remove {brought.label_at_peer!r} from the file: a feature party must not hold the label.",
        )
    labelled = (brought.label,) if brought.label else ()
    asked = brought.columns
    if brought.every_column:
        asked = tuple(column for column in known if column not in {registered.id, brought.label_ignored})
    if registered.id in {*asked, *labelled}:
        raise IdAmongColumns(
            f"the job asks {me} to train on {registered.id!r}, the id column of its data set {brought.dataset!r}",
            fix=f"Leave {registered.id!r} out of data.{me}: an id names a row and says nothing about it.",
        )
    wanted = (registered.id, *asked, *labelled)
    _check_columns(known, wanted, path, me)
    if brought.width and len(asked) != brought.width:
        raise WrongWidth(
            f"{path.name} of {me} has {len(asked)} input columns, the job's model takes {brought.width}",
            fix="Name the input columns in model.columns, or correct model.input_shape.",
        )
    with _reading(f"{path.name} of {me}"):
        rows = frame.select(list(dict.fromkeys(wanted))).collect()
    if rows.height < MINIMUM_ROWS:
        raise TooFewRows(f"{path.name} of {me} has {rows.height} rows; a job needs at least {MINIMUM_ROWS}")
    if rows.height * len(asked) * 8 > TABLE_LIMIT:
        raise UnreadableFile(f"{path.name} of {me} has {rows.height} rows, too many for one job's worker")
    ids = _ids(rows[registered.id], path.name)
    columns = np.empty((rows.height, len(asked)), dtype=np.float64)
    for position, column in enumerate(asked):
        columns[:, position] = _numbers(rows[column], path.name)
    labels = _numbers(rows[brought.label], path.name) if brought.label else None
    if labels is not None:
        _check_labels(spec, labels, brought)
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
    with _reading(path.name):
        if not path.is_file():
            raise UnknownFile(
                f"there is no file {path}", fix="Correct [datasets] in party.toml; paths are relative to its folder."
            )
        if path.suffix.lower() in PARQUET:
            frame = pl.scan_parquet(path, glob=False)
        else:
            # All cells as text: inference would guess ids ("007") and hide the row of a cell that is no number.
            frame = pl.scan_csv(path, infer_schema=False, glob=False)
        frame.collect_schema()
    return frame


@contextlib.contextmanager
def _reading(file: str) -> Iterator[None]:
    """Whatever a damaged file does to the reader, its owner reads the first line of the reason."""
    try:
        yield
    # A panic of the reader is no Exception; left alone it would end the thread and not the job.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:REASON_LIMIT]
        raise UnreadableFile(
            f"{file} cannot be read: {reason}", fix="CSV (UTF-8, with a header line) or Parquet."
        ) from error


def _check_columns(known: list[str], wanted: tuple[str, ...], path: Path, me: PartyId) -> None:
    for column in wanted:
        if column not in known:
            near = difflib.get_close_matches(column, known, n=1)
            raise UnknownColumn(
                f"{path.name} of {me} has no column {column!r}",
                fix=f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(known[:20])}.",
            )
        if f"{column}_duplicated_0" in known and path.suffix.lower() not in PARQUET:  # polars' name for the second
            raise DuplicateColumns(
                f"{path.name} of {me} has two columns {column!r}",
                fix="Rename or remove one of them in the header line.",
            )


def _ids(column: pl.Series, file: str) -> tuple[str, ...]:
    missing = column.is_null().arg_true()
    if len(missing):
        raise MissingValue(f"{file}: the id column {column.name!r} is empty in data row {missing[0] + 1}")
    with _reading(f"{file}: the id column {column.name!r}"):
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
    named = isinstance(column.dtype, pl.Categorical | pl.Enum)
    if not (named or column.dtype.is_numeric() or column.dtype in {pl.String, pl.Boolean, pl.Null}):
        raise NonNumericCell(
            f"{file}: column {column.name!r} holds {column.dtype}, not numbers",
            fix="Encode the column as numbers, or leave it out.",
        )
    column = column.cast(pl.String) if named else column
    cells = column.str.strip_chars() if column.dtype == pl.String else column
    empty = cells.is_null() | (cells == "") if cells.dtype == pl.String else cells.is_null()
    numbers = cells.cast(pl.Float64, strict=False)
    where = f"{file}: column {column.name!r}"
    for error, wrong, what, fix in (
        (MissingValue, empty, "is empty", "Fill or remove such rows at both parties."),
        (NonNumericCell, numbers.is_null(), "is not a number", "Encode the column as numbers, or leave it out."),
        (NotFinite, ~numbers.is_finite(), "is not finite", "Replace NaN and infinite values."),
        (NotFinite, numbers.abs() > LARGEST, f"is beyond {LARGEST:g}", "Bring the column to a smaller unit."),
    ):
        rows = wrong.arg_true()
        if len(rows):
            first, others = rows[0], f" (and in {len(rows) - 1} more)" if len(rows) > 1 else ""
            value = "" if error is MissingValue else f": {column[first]!r}"
            raise error(f"{where} {what} in data row {first + 1}{others}{value}", fix=fix)
    return numbers.to_numpy().astype(np.float64, copy=False)


def _check_labels(spec: JobSpec, labels: NDArray[np.float64], brought: Brought) -> None:
    found, name = np.unique(labels), brought.label
    if len(found) == 1 and not brought.some_classes:
        raise ConstantLabel(f"the label {name!r} is {found[0]:g} in every row: there is nothing to learn")
    if spec.job.task == "binary":
        wrong = labels[~np.isin(labels, (0.0, 1.0))]
        if len(wrong):
            raise LabelsNotBinary(
                f"the label {name!r} of a binary job must be 0 or 1; {len(wrong)} rows hold {_examples(wrong)}",
                fix='Recode the label, or set job.task to "multiclass" or "regression".',
            )
    if spec.job.task == "multiclass" and brought.some_classes:
        wrong = labels[~np.isin(labels, np.arange(spec.job.classes))]
        if len(wrong):
            raise LabelsNotClasses(
                f"the label {name!r} must be an integer from 0 to {spec.job.classes - 1}, as job.classes says; "
                f"{len(wrong)} rows hold {_examples(wrong)}",
                fix="Recode the label, or correct job.classes.",
            )
    elif spec.job.task == "multiclass":
        classes = len(found)
        if not np.array_equal(found, np.arange(classes)) or classes < FEWEST_CLASSES:
            raise LabelsNotClasses(
                f"the label {name!r} of a multiclass job must be the integers 0 to K-1, at least three and each "
                f"in some row; it holds {classes} values: {_examples(found)}",
                fix="Recode the label; two classes are a binary job.",
            )
        if spec.job.classes not in {0, classes}:
            raise LabelsNotClasses(
                f"the label {name!r} holds {classes} classes, job.classes says {spec.job.classes}",
                fix="Leave job.classes out: the label party fills it in.",
            )


def _examples(values: NDArray[np.float64]) -> str:
    distinct = np.unique(values)
    return ", ".join(f"{value:g}" for value in distinct[:EXAMPLES]) + (", ..." if len(distinct) > EXAMPLES else "")


_ADD_DATASET = "Add it under [datasets] in party.toml."
