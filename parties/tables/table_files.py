"""A table's file: recognised by its first bytes, opened through polars, its header and its rows checked as a whole."""

import contextlib
import csv
import difflib
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from pathlib import Path
from typing import IO, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parties.errors import DuplicateColumns, UnknownColumn, UnknownFile, UnreadableFile, printable
from parties.tables.file_kinds import GZIP, HEAD_BYTES, READABLE, Kind, kind_of, not_utf8
from parties.tables.spellings import between, plain

NAMES_SHOWN = 20
REASON_LIMIT = 300


@dataclass(frozen=True)
class Rows:
    """The rows of a file that hold anything."""

    frame: pl.DataFrame
    numbers: NDArray[np.int64]
    """Of each row, its place among all rows of the file, from 1."""
    blank: int
    """Rows left out: every cell of them is empty."""

    def taken(self, numbers: NDArray[np.int64]) -> "Rows":
        """The rows of these numbers, in this order."""
        at = np.searchsorted(self.numbers, numbers)
        return Rows(self.frame[at], self.numbers[at], self.blank)


@dataclass(frozen=True)
class TableFile:
    """An open file whose kind and header are known; `shown` is what its owner's errors call it."""

    shown: str
    names: tuple[str, ...]
    _path: Path
    _kind: Kind
    _frame: pl.LazyFrame

    def check_columns(self, wanted: Sequence[str], hint: str = "") -> None:
        """Raises UnknownColumn, naming the nearest column and what keeps it apart, or DuplicateColumns."""
        for column in wanted:
            if column not in self.names:
                raise UnknownColumn(
                    f"{self.shown} has no column {column!r}",
                    fix=f"{_nearest(column, self.names)} It has: {_listed(self.names)}. {hint}".strip(),
                )
            if f"{column}_duplicated_0" in self.names and self._kind is Kind.CSV:  # polars' name for the second
                raise DuplicateColumns(
                    f"{self.shown} has two columns {column!r}", fix="Rename or remove one of them in the header line."
                )

    def rows(self, columns: Sequence[str], id_column: str) -> Rows:
        """These columns, the ids among them, without blank rows. Raises UnreadableFile."""
        with self._reading():
            frame = self._frame.select(columns).collect()
            numbers = np.arange(1, frame.height + 1)
            if not frame.select(self._is_blank(id_column).any()).item():
                return Rows(frame, numbers, 0)
            # Only a row without an id may be blank, so that the other columns are rarely looked at.
            blank = self._frame.select(reduce(and_, map(self._is_blank, self.names))).collect().to_series()
            return Rows(frame.filter(~blank), numbers[~blank.to_numpy()], int(blank.sum()))

    def digest_and_rows(self, columns: Sequence[str], id_column: str) -> tuple[str, Rows]:
        """SHA-256 of the file as hexadecimal digits, and the same rows, read from these very bytes."""
        with reading(self.shown):
            before = _version(self._path)
            with self._path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            rows = self.rows(columns, id_column)
            if _version(self._path) != before:
                raise UnreadableFile(f"{self.shown} changed while it was read", fix="Write the whole file first.")
        return digest, rows

    def _is_blank(self, name: str) -> pl.Expr:
        column = pl.col(name)
        texts = self._frame.collect_schema()[name] == pl.String
        return column.is_null() | (column.str.strip_chars() == "") if texts else column.is_null()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with reading(self.shown, self._path if self._kind is Kind.CSV else None):
            yield


def open_table(path: Path, shown: str, *, missing: str) -> TableFile:
    """Raises UnknownFile with the fix `missing`, or UnreadableFile, naming what the file is."""
    with reading(shown):
        if not path.is_file():
            raise UnknownFile(f"there is no file {path}", fix=missing)
        with path.open("rb") as file:
            kind = kind_of(file.read(HEAD_BYTES), shown)
    with reading(shown, path if kind is Kind.CSV else None):
        if kind is Kind.PARQUET:
            frame = pl.scan_parquet(path, glob=False)
        else:
            # All cells as text: inference would guess ids ("007") and hide the row of a cell that is no number.
            frame = pl.scan_csv(path, infer_schema=False, glob=False)
        return TableFile(shown, tuple(frame.collect_schema().names()), path, kind, frame)


@contextlib.contextmanager
def reading(shown: str, text: Path | None = None) -> Iterator[None]:
    """Whatever a damaged file does to the reader, its owner reads where it is, or the first line of the reason."""
    try:
        yield
    # A panic of the reader is no Exception; left alone it would end the thread and not the job.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        if text is not None and (damage := _damage(text, shown)) is not None:
            raise damage from error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:REASON_LIMIT]
        raise UnreadableFile(f"{shown} cannot be read: {printable(reason)}", fix=READABLE) from error


def _version(path: Path) -> tuple[int, int, int]:
    """Differs once a file has been written or replaced."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _nearest(column: str, names: Sequence[str]) -> str:
    for name in names:
        if plain(name) == plain(column):
            return f"Did you mean {name!r}? It differs by {between(column, name)}."
    near = difflib.get_close_matches(column, names, n=1)
    return f"Did you mean {near[0]!r}?" if near else ""


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name if name and name.isprintable() else repr(name) for name in names[:NAMES_SHOWN])
    return shown + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")


def _damage(path: Path, shown: str) -> UnreadableFile | None:
    """The first line of a CSV file that does not fit; None when the cause is another."""
    started, fields = 0, 0
    try:
        with _unpacked(path) as file:
            lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            for row in (reader := csv.reader(lines, strict=True)):
                fields = fields or len(row)
                if len(row) > fields:
                    return UnreadableFile(
                        f"{shown}: line {reader.line_num} has {len(row)} fields, the header {fields}",
                        fix="Put a cell that holds a comma into quotation marks; write numbers with a decimal point.",
                    )
                started = reader.line_num
    except UnicodeDecodeError:
        with _unpacked(path) as file:
            return not_utf8(shown, next(number for number, line in enumerate(file, 1) if not _is_utf8(line)))
    except csv.Error:
        return UnreadableFile(
            f"{shown}: a quotation mark in or after line {started + 1} is not closed, or does not enclose its cell",
            fix="Close it, or remove it: two of them inside a quoted cell stand for one.",
        )
    except (OSError, EOFError, zlib.error):
        pass
    return None


@contextlib.contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        if file.read(len(GZIP)) != GZIP:
            file.seek(0)
            yield file
            return
    with gzip.open(path) as packed:
        yield cast("IO[bytes]", packed)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
