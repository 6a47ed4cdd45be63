"""The tables that a party brings to a job: data sets by name, checked cell by cell, refused by name.

A cell's value stands only in the error its owner reads; `redacted_for_peer` keeps it from the peer.
"""

import difflib
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parties.dataset_errors import LabelAmongInputs
from parties.errors import IdAmongColumns, LabelInFeatureFile, TooFewRows, UnknownDataset, WrongWidth
from parties.tables.aligned_rows import AlignedRows
from parties.tables.cells import numbers_of
from parties.tables.column_profile import column_notices
from parties.tables.id_columns import check_each_once, id_table, read_ids
from parties.tables.job_rows import JobRows, JobRowsReader
from parties.tables.labels import Labels, guess_task, read_labels
from parties.tables.matrix import NamelessFile
from parties.tables.registered import Registered, open_registered
from parties.tables.row_ids import oddities
from parties.tables.split_keys import hashes_of, times_of
from parties.tables.table_files import Rows, TableFile
from parties.worker.mapped_rows import release
from vfl.errors import InvalidData
from vfl.ids import HashedIds
from vfl.notices import Notice
from vfl.spec.job import JobSpec
from vfl.spec.sections import HANDED_OUT_BYTES, HANDED_OUT_VALUE_BYTES, IdRules, PartyId, TableUse

MINIMUM_ROWS = 2
LABEL_FIX = {
    "binary": "Encode the labels as the numbers 0 and 1.",
    "multiclass": "Encode the labels as the numbers 0, 1, 2 and so on, one for each class.",
    "regression": "Encode the labels as numbers.",
}


@dataclass(frozen=True)
class LoadedTable:
    """One party's rows for one job, in the order of its file."""

    ids: pl.Series = field(repr=False)
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
    words: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Of a column of categories, by its position: what its codes stand for. NaN is an empty cell."""
    hashed_ids: HashedIds | None = None
    """Of a job that compares ids."""
    order_digest: str = ""
    """Of the alignment by which the rows were taken; then their ids were not read."""
    id_columns: tuple[str, ...] = ()
    file: NamelessFile | None = field(default=None, repr=False)
    """That holds the columns; None where they are in memory."""
    split_keys: NDArray[np.float64] | None = field(default=None, repr=False)
    """rows; by which rows are held out, where the job asks this party for it."""

    @property
    def rows(self) -> int:
        return len(self.columns)

    @property
    def id_table(self) -> pl.DataFrame:
        """The ids as they are written, in the columns that make them."""
        return id_table(self.ids, self.id_columns)


def load(
    folder: Path,
    datasets: Mapping[str, Registered],
    spec: JobSpec,
    me: PartyId,
    alignment: Callable[[str], AlignedRows] | None = None,
    room: Path | None = None,
) -> dict[str, LoadedTable]:
    """What this party brings to a job, by use; `alignment` finds one that the job names.

    The numbers are kept in a file without a name in the folder `room`, or in memory. Raises a subclass of InvalidData,
    naming file, column and row, StorageFailed, or what `alignment` raises.
    """

    def load_use(use: TableUse) -> LoadedTable:
        aligned = alignment(use.alignment) if use.alignment and alignment else None
        return _load(folder, datasets, spec, me, use, aligned, room)

    return {name: load_use(use) for name, use in spec.tables_of(me).items()}


def check_named(datasets: Mapping[str, Registered], spec: JobSpec, me: PartyId) -> None:
    """Raises UnknownDataset for a data set of the job that this party does not have."""
    for use in spec.tables_of(me).values():
        _registered(datasets, me, use)


def _load(
    folder: Path,
    datasets: Mapping[str, Registered],
    spec: JobSpec,
    me: PartyId,
    use: TableUse,
    aligned: AlignedRows | None,
    room: Path | None,
) -> LoadedTable:
    registered = _registered(datasets, me, use)
    path = folder / registered.source
    file, guesses = open_registered(registered, folder, f"{path.name} of {me}", absent=_ADD_AGAIN)
    if use.ids is not None:
        return _load_ids(file, path.name, use, use.ids)
    names = file.names
    if use.label_at_peer and use.label_at_peer in names:
        raise LabelInFeatureFile(
            f"label in the feature file: {file.shown} has the column {use.label_at_peer!r}, "
            f"which is {spec.coordinator}'s label",
            fix=f"Remove {use.label_at_peer!r} from the file: a feature party must not hold the label.",
        )
    beside = tuple(name for name in (use.label, use.split_by_time) if name)
    asked = use.columns
    if use.every_column:
        asked = tuple(column for column in names if column not in {*registered.id, registered.label, use.label_ignored})
    _check_inputs(use, registered, asked, me)
    wanted = (*registered.id, *asked, *beside)
    file.check_columns(wanted)
    if use.width and len(asked) != use.width:
        raise WrongWidth(
            f"{file.shown} has {len(asked)} input columns, the job's model takes {use.width}",
            fix="Name the input columns in model.columns, or correct model.input_shape.",
        )
    with file.unchanged() as digest:
        if aligned is not None:
            aligned.check(use.dataset, digest, frozenset(spec.parties))
        rows = JobRowsReader(file, path.name, registered.id, use, asked, aligned, room).read()
    _check_size(use, file.shown, len(rows.numbers), len(asked))
    if aligned is None:
        check_each_once(rows.ids, rows.numbers, registered.id, path.name)
    read = _labels(spec, use, me, rows, path.name, decimal_comma=file.decimal_comma)
    rows = rows._replace(label=None)  # its cells leave memory before the columns are looked at
    label = None if read.numbers is None else (use.label, read.numbers)
    columns = rows.matrix.numbers
    numeric = [position for position in range(len(asked)) if position not in rows.words]
    of_columns = column_notices(path.name, [asked[position] for position in numeric], columns, label, numeric)
    release(columns)
    return LoadedTable(
        ids=rows.ids,
        columns=columns,
        labels=read.numbers,
        names=asked,
        classes=read.classes,
        notices=(*guesses, *_row_notices(rows, path.name), *of_columns, *read.notices),
        digest=digest,
        words=rows.words,
        order_digest=aligned.digest if aligned else "",
        id_columns=registered.id,
        file=rows.matrix.file,
        split_keys=_split_keys(rows, use, file, path.name),
    )


def _labels(spec: JobSpec, use: TableUse, me: PartyId, rows: JobRows, name: str, *, decimal_comma: bool) -> Labels:
    if rows.label is None:
        return Labels(None)
    of_label = Rows(rows.label.to_frame(), rows.numbers, rows.blank, decimal_comma)
    numbers = partial(numbers_of, of_label, use.label, name, LABEL_FIX[spec.job.task])
    return read_labels(spec.job, use, me, rows.label, numbers)


def _split_keys(rows: JobRows, use: TableUse, file: TableFile, name: str) -> NDArray[np.float64] | None:
    """Raises InvalidData, naming the row."""
    if rows.time is not None:
        of_time = Rows(rows.time.to_frame(), rows.numbers, rows.blank, file.decimal_comma)
        return times_of(of_time, use.split_by_time, name)
    return hashes_of(rows.ids) if use.split_by_id else None


def _registered(datasets: Mapping[str, Registered], me: PartyId, use: TableUse) -> Registered:
    if use.dataset not in datasets:
        near = difflib.get_close_matches(use.dataset, datasets, n=1)
        raise UnknownDataset(
            f"{me} has no data set {use.dataset!r}", fix=f"Did you mean {near[0]!r}?" if near else _ADD_DATASET
        )
    return datasets[use.dataset]


def _load_ids(file: TableFile, name: str, use: TableUse, rules: IdRules) -> LoadedTable:
    """Of a job that compares ids and reads nothing else."""
    file.check_columns(use.columns)
    digest, rows = file.digest_and_rows(use.columns, use.columns)
    hashed, notices = read_ids(rows, use.columns, rules, name)
    if len(hashed.rows) < rules.minimum_ids:
        raise TooFewRows(
            f"{file.shown} has {len(hashed.rows)} ids; the specification asks for {rules.minimum_ids} at least",
            fix="With few ids a party could ask about single people. Bring more, or lower align.minimum_ids.",
        )
    nothing = np.empty((len(hashed.rows), 0))
    no_ids = pl.Series([], dtype=pl.String)
    return LoadedTable(
        no_ids,
        nothing,
        None,
        use.columns,
        notices=(*_blank(rows.blank, name), *notices),
        digest=digest,
        hashed_ids=hashed,
    )


def _check_inputs(use: TableUse, registered: Registered, asked: tuple[str, ...], me: PartyId) -> None:
    """Raises IdAmongColumns, LabelAmongInputs."""
    for name in registered.id:
        if name in asked or (use.label and name == use.label):
            raise IdAmongColumns(
                f"the job asks {me} to train on {name!r}, the id column of its data set {use.dataset!r}",
                fix=f"Leave {name!r} out of data.{me}: an id names a row and says nothing about it.",
            )
    if registered.label and registered.label in asked:
        raise LabelAmongInputs(
            f"the job asks {me} for {registered.label!r} as an input, which was added as the label of {use.dataset!r}",
            fix=f"Leave {registered.label!r} out of the columns of data.{me}, or add the data set without --label.",
        )


def task_of(file: str, label: str, rows: Rows) -> tuple[str, tuple[Notice, ...]]:
    """What the labels of a file suggest is to be learned, as a guess. Raises InvalidData."""
    return guess_task(label, rows.frame[label], partial(numbers_of, rows, label, file))


def _row_notices(rows: JobRows, file: str) -> Iterator[Notice]:
    yield from _blank(rows.blank, file)
    if odd := oddities(rows.ids, file):
        yield Notice("warning", "odd_ids", f"{odd}: ids are compared as they are written")


def _blank(rows: int, file: str) -> Iterator[Notice]:
    if rows:
        yield Notice("note", "blank_rows", f"{rows} rows of {file} are wholly empty and were left out")


def classes_of(table: LoadedTable) -> int:
    """Number of classes of checked multiclass labels."""
    return len(table.classes)


def ids_digest(joint_seed: bytes, ids: Collection[str] | pl.Series) -> bytes:
    """SHA-256 over seed and ordered ids, each with its length before it, so that no two lists collide by joining."""
    digest = hashlib.sha256(len(joint_seed).to_bytes(4, "big") + joint_seed + len(ids).to_bytes(8, "big"))
    for identifier in ids:
        encoded = identifier.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.digest()


def _check_size(use: TableUse, shown: str, rows: int, columns: int) -> None:
    """Raises TooFewRows, InvalidData."""
    least = MINIMUM_ROWS if use.is_learned_from else 1
    if rows < least:
        raise TooFewRows(f"{shown} has {rows} rows; a job needs at least {least}", fix="Bring more rows.")
    size = rows * (columns + 1) * HANDED_OUT_VALUE_BYTES
    if use.leaves and size > HANDED_OUT_BYTES:
        raise InvalidData(
            f"{shown} would have {size} bytes as it is handed to every client; {HANDED_OUT_BYTES} is the most",
            fix="Hand out fewer rows or columns, or choose another rule of shared_data than `share`.",
        )


_ADD_AGAIN = "Put the file back, or add the data set again with `vfl data add`."
_ADD_DATASET = "Add it with `vfl data add`."
