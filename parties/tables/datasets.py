"""Tables by name through polars: CSV and Parquet, read whole, checked cell by cell, told apart by named errors.

A cell's value stands only in the error its owner reads; `redacted_for_peer` keeps it from the peer.
"""

import contextlib
import difflib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parties.errors import (
    DuplicateIds,
    IdAmongColumns,
    LabelInFeatureFile,
    MissingValue,
    NonNumericCell,
    NotFinite,
    TooFewRows,
    UnknownDataset,
    UnreadableFile,
    WrongWidth,
)
from parties.settings import DatasetSettings
from parties.tables.aligned_rows import AlignedRows
from parties.tables.column_profile import column_notices
from parties.tables.file_kinds import decimal_comma
from parties.tables.id_columns import read_ids
from parties.tables.labels import Labels, guess_task, read_labels
from parties.tables.row_ids import oddities
from parties.tables.spellings import MISSING
from parties.tables.table_files import Rows, TableFile, open_table, reading
from vfl.errors import InvalidData
from vfl.ids import HashedIds
from vfl.notices import Notice
from vfl.spec.job import JobSpec
from vfl.spec.sections import HANDED_OUT_BYTES, HANDED_OUT_VALUE_BYTES, IdRules, PartyId, TableUse

MINIMUM_ROWS = 2
LARGEST = 1e100
"""Beyond it a column's variance no longer fits a float64, and standardising gives NaN."""
COLUMN_FIX = "Encode the column as numbers, or leave it out."
LABEL_FIX = {
    "binary": "Encode the labels as the numbers 0 and 1.",
    "multiclass": "Encode the labels as the numbers 0, 1, 2 and so on, one for each class.",
    "regression": "Encode the labels as numbers.",
}
FILL = "Fill such cells, or remove their rows from every party's file that has them."
SMALLER_UNIT = "Bring the column to a smaller unit."
TABLE_LIMIT = 3 << 30
"""Bytes of a table; it reaches the worker in one frame of at most 4 GiB."""


@dataclass(frozen=True)
class LoadedTable:
    """One party's rows for one job, in the order of its file."""

    ids: tuple[str, ...] = field(repr=False)
    columns: NDArray[np.float64] = field(repr=False)
    """rows x columns, in the order of the specification."""
    labels: NDArray[np.float64] | None = field(repr=False)
    """rows; at the label party only."""
    names: tuple[str, ...] = ()
    """Of the columns."""
    classes: tuple[str, ...] = ()
    """What the file holds for class 0, 1, ... of labels that are classes."""
    notices: tuple[Notice, ...] = ()
    """For this party's operator; nothing of them goes to a peer."""
    digest: str = ""
    """SHA-256 of the file, as hexadecimal digits."""
    hashed_ids: HashedIds | None = None
    """Of a job that compares ids."""
    order_digest: str = ""
    """Of the alignment by which the rows were taken; then their ids were not read."""

    @property
    def rows(self) -> int:
        return len(self.columns)


def load(
    folder: Path,
    datasets: dict[str, DatasetSettings],
    spec: JobSpec,
    me: PartyId,
    alignment: Callable[[str], AlignedRows] | None = None,
) -> dict[str, LoadedTable]:
    """What this party brings to a job, by use; `alignment` finds one that the job names.

    Raises a subclass of InvalidData, naming file, column and row, or what `alignment` raises.
    """

    def load_use(use: TableUse) -> LoadedTable:
        aligned = alignment(use.alignment) if use.alignment and alignment else None
        return _load(folder, datasets, spec, me, use, aligned)

    return {name: load_use(use) for name, use in spec.tables_of(me).items()}


def _load(
    folder: Path,
    datasets: dict[str, DatasetSettings],
    spec: JobSpec,
    me: PartyId,
    use: TableUse,
    aligned: AlignedRows | None,
) -> LoadedTable:
    registered = _registered(datasets, me, use)
    path = folder / registered.path
    file = open_table(path, f"{path.name} of {me}", missing=_CORRECT_PATH)
    if use.ids is not None:
        return _load_ids(file, path.name, use, use.ids)
    names = file.names
    if use.label_at_peer and use.label_at_peer in names:
        raise LabelInFeatureFile(
            f"label in the feature file: {file.shown} has the column {use.label_at_peer!r}, "
            f"which is {spec.coordinator}'s label",
            fix=f"Remove {use.label_at_peer!r} from the file: a feature party must not hold the label.",
        )
    labelled = (use.label,) if use.label else ()
    asked = use.columns
    if use.every_column:
        asked = tuple(column for column in names if column not in {registered.id, use.label_ignored})
    if registered.id in {*asked, *labelled}:
        raise IdAmongColumns(
            f"the job asks {me} to train on {registered.id!r}, the id column of its data set {use.dataset!r}",
            fix=f"Leave {registered.id!r} out of data.{me}: an id names a row and says nothing about it.",
        )
    wanted = (registered.id, *asked, *labelled)
    file.check_columns(wanted)
    if use.width and len(asked) != use.width:
        raise WrongWidth(
            f"{file.shown} has {len(asked)} input columns, the job's model takes {use.width}",
            fix="Name the input columns in model.columns, or correct model.input_shape.",
        )
    digest, rows = file.digest_and_rows(list(dict.fromkeys(wanted)), registered.id)
    if aligned is not None:
        aligned.check(use.dataset, digest, frozenset(spec.parties))
        rows = rows.taken(aligned.rows)
    height = rows.frame.height
    _check_size(use, file.shown, height, len(asked))
    ids = () if aligned else _ids(rows, registered.id, path.name)
    columns = np.empty((height, len(asked)), dtype=np.float64)
    for position, column in enumerate(asked):
        columns[:, position] = _numbers(rows, column, path.name)
    read = Labels(None)
    if use.label:
        numbers = partial(_numbers, rows, use.label, path.name, LABEL_FIX[spec.job.task])
        read = read_labels(spec.job, use, me, rows.frame[use.label], numbers)
    label = None if read.numbers is None else (use.label, read.numbers)
    notices = (*_row_notices(rows, ids, path.name), *column_notices(path.name, asked, columns, label), *read.notices)
    return LoadedTable(
        ids, columns, read.numbers, asked, read.classes, notices, digest, order_digest=aligned.digest if aligned else ""
    )


def _registered(datasets: dict[str, DatasetSettings], me: PartyId, use: TableUse) -> DatasetSettings:
    if use.dataset not in datasets:
        near = difflib.get_close_matches(use.dataset, datasets, n=1)
        raise UnknownDataset(
            f"{me} has no data set {use.dataset!r}", fix=f"Did you mean {near[0]!r}?" if near else _ADD_DATASET
        )
    return datasets[use.dataset]


def _load_ids(file: TableFile, name: str, use: TableUse, rules: IdRules) -> LoadedTable:
    """Of a job that compares ids and reads nothing else."""
    file.check_columns(use.columns)
    digest, rows = file.digest_and_rows(use.columns, use.columns[0])
    hashed, notices = read_ids(rows, use.columns, rules, name)
    if len(hashed.rows) < rules.minimum_ids:
        raise TooFewRows(
            f"{file.shown} has {len(hashed.rows)} ids; the specification asks for {rules.minimum_ids} at least",
            fix="With few ids a party could ask about single people. Bring more, or lower align.minimum_ids.",
        )
    nothing = np.empty((len(hashed.rows), 0))
    return LoadedTable(
        (), nothing, None, use.columns, notices=(*_blank(rows, name), *notices), digest=digest, hashed_ids=hashed
    )


def task_of(file: str, label: str, rows: Rows) -> tuple[str, tuple[Notice, ...]]:
    """What the labels of a file suggest is to be learned, as a guess. Raises InvalidData."""
    return guess_task(label, rows.frame[label], partial(_numbers, rows, label, file))


def _row_notices(rows: Rows, ids: tuple[str, ...], file: str) -> Iterator[Notice]:
    yield from _blank(rows, file)
    if odd := oddities(ids, file):
        yield Notice("warning", "odd_ids", f"{odd}: ids are compared as they are written")


def _blank(rows: Rows, file: str) -> Iterator[Notice]:
    if rows.blank:
        yield Notice("note", "blank_rows", f"{rows.blank} rows of {file} are wholly empty and were left out")


def classes_of(table: LoadedTable) -> int:
    """Number of classes of checked multiclass labels."""
    return len(table.classes)


def ids_digest(joint_seed: bytes, ids: tuple[str, ...]) -> bytes:
    """SHA-256 over seed and ordered ids, each with its length before it, so that no two lists collide by joining."""
    digest = hashlib.sha256(len(joint_seed).to_bytes(4, "big") + joint_seed + len(ids).to_bytes(8, "big"))
    for identifier in ids:
        encoded = identifier.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.digest()


def _check_size(use: TableUse, shown: str, rows: int, columns: int) -> None:
    """Raises TooFewRows, UnreadableFile, InvalidData."""
    if rows < MINIMUM_ROWS:
        raise TooFewRows(f"{shown} has {rows} rows; a job needs at least {MINIMUM_ROWS}")
    if rows * columns * 8 > TABLE_LIMIT:
        raise UnreadableFile(f"{shown} has {rows} rows, too many for one job's worker")
    size = rows * (columns + 1) * HANDED_OUT_VALUE_BYTES
    if use.leaves and size > HANDED_OUT_BYTES:
        raise InvalidData(
            f"{shown} would have {size} bytes as it is handed to every client; {HANDED_OUT_BYTES} is the most",
            fix="Hand out fewer rows or columns, or choose another rule of shared_data than `share`.",
        )


def _ids(rows: Rows, name: str, file: str) -> tuple[str, ...]:
    column = rows.frame[name]
    missing = column.is_null().arg_true()
    if len(missing):
        raise MissingValue(f"{file}: the id column {column.name!r} is empty in data row {rows.numbers[missing[0]]}")
    with reading(f"{file}: the id column {column.name!r}"):
        texts = column.cast(pl.String)
    duplicated = texts.is_duplicated()
    if duplicated.any():
        first, second = rows.numbers[texts.eq(texts.filter(duplicated)[0]).arg_true()[:2].to_numpy()]
        raise DuplicateIds(
            f"{file}: {texts.n_unique()} ids in {len(texts)} rows; data rows {first} and {second} share one",
            fix=f"Each {column.name!r} must stand in one row. {oddities(texts, file)}".strip(),
        )
    return tuple(texts.to_list())


def _numbers(rows: Rows, name: str, file: str, fix_of_words: str = COLUMN_FIX) -> NDArray[np.float64]:
    column = rows.frame[name]
    named = isinstance(column.dtype, pl.Categorical | pl.Enum)
    if not (named or column.dtype.is_numeric() or column.dtype in {pl.String, pl.Boolean, pl.Null}):
        raise NonNumericCell(
            f"{file}: column {column.name!r} holds {column.dtype}, not numbers",
            fix=fix_of_words,
        )
    column = column.cast(pl.String) if named else column
    cells = column.str.strip_chars() if column.dtype == pl.String else column
    empty = cells.is_null() | (cells == "") if cells.dtype == pl.String else cells.is_null()
    numbers = cells.cast(pl.Float64, strict=False)
    faults: list[tuple[type[InvalidData], str, str]] = []
    for error, wrong, what, fix in (
        (MissingValue, empty, "is empty", FILL),
        (NonNumericCell, numbers.is_null() & ~empty, "is not a number", fix_of_words),
        (NotFinite, ~numbers.is_finite(), "is not finite", "Replace NaN and infinite values."),
        (NotFinite, numbers.is_finite() & (numbers.abs() > LARGEST), f"is beyond {LARGEST:g}", SMALLER_UNIT),
    ):
        places = wrong.arg_true()
        if len(places):
            first, others = places[0], f" (and in {len(places) - 1} more)" if len(places) > 1 else ""
            value = "" if error is MissingValue else f": {column[first]!r}"
            nearly = "" if error is NotFinite else _fix_of(column[first], everywhere=len(places) == len(column))
            faults.append((error, f"{what} in data row {rows.numbers[first]}{others}{value}", nearly or fix))
    if faults:
        told, fixes = "; it ".join(fault[1] for fault in faults), dict.fromkeys(fault[2] for fault in faults)
        raise faults[0][0](f"{file}: column {column.name!r} {told}", fix=" ".join(fixes))
    return numbers.to_numpy().astype(np.float64, copy=False)


def _fix_of(cell: object, *, everywhere: bool) -> str:
    """For cells that many a program writes for a number or in place of one."""
    text = cell.strip() if isinstance(cell, str) else ""
    if not text and everywhere:
        return "The column is empty in every row: leave it out."
    if decimal_comma(text):
        return "Write numbers with a decimal point: the comma separates fields."
    if text.lower() in MISSING:
        return f"{text!r} seems to stand for a missing value. {FILL}"
    if _number(text.strip("%€$£ ").replace(",", "").replace("\u00a0", "").replace(" ", "")):
        return "Write the number alone: no unit, no percent sign, no sign between thousands."
    return ""


def _number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        float(text)
        return True
    return False


_CORRECT_PATH = "Correct [datasets] in party.toml; paths are relative to its folder."
_ADD_DATASET = "Add it under [datasets] in party.toml."
