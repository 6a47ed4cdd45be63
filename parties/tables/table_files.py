"""A table's file: recognised by its first bytes, opened through polars, its header and its rows checked as a whole."""

import contextlib
import csv
import difflib
import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parties.errors import DuplicateColumns, UnknownColumn, UnknownFile, UnreadableFile, printable
from parties.tables.file_kinds import HEAD_BYTES, READABLE, Kind, kind_of
from parties.tables.spellings import between, plain
from parties.tables.text_format import BYTE_ORDER_MARK, UTF_8, TextFormat, unpacked_file

# What polars reads of a CSV file ahead of whoever takes the rows grows with this size.
os.environ.setdefault("POLARS_CSV_CHUNK_SIZE", str(1 << 21))

MOST_COLUMNS = 10_000
"""A specification names fewer, and a profile looks at each."""
NAMES_SHOWN = 20
BATCH_ROWS = 1 << 16
_NUMBER = "\0number"
"""Of a row; no file has a column of this name."""
REASON_LIMIT = 300


@dataclass(frozen=True)
class Rows:
    """The rows of a file that hold anything."""

    frame: pl.DataFrame
    numbers: NDArray[np.int64]
    """Of each row, its place among all rows of the file, from 1."""
    blank: int
    """Rows left out: every cell of them is empty."""
    decimal_comma: bool = False
    """Whether numbers are written with one."""

    def kept(self, is_kept: NDArray[np.bool_]) -> "Rows":
        """Those of the rows for which it holds."""
        return Rows(self.frame.filter(pl.Series(is_kept)), self.numbers[is_kept], self.blank, self.decimal_comma)

    def taken(self, numbers: NDArray[np.int64]) -> "Rows":
        """The rows of these numbers, in this order."""
        at = np.searchsorted(self.numbers, numbers)
        return Rows(self.frame[at], self.numbers[at], self.blank, self.decimal_comma)


@dataclass(frozen=True)
class TableFile:
    """An open file whose kind and header are known; `shown` is what its owner's errors call it."""

    shown: str
    names: tuple[str, ...]
    kind: Kind
    text: TextFormat
    """Of a CSV file."""
    schema: pl.Schema
    _path: Path
    _frame: pl.LazyFrame

    @property
    def decimal_comma(self) -> bool:
        return self.kind is Kind.CSV and self.text.decimal == ","

    @property
    def repeated_names(self) -> tuple[str, ...]:
        """Names that stand over more than one column."""
        if self.kind is not Kind.CSV:
            return ()
        return tuple(name for name in self.names if f"{name}_duplicated_0" in self.names)  # polars' name for the second

    def check_columns(self, wanted: Sequence[str], hint: str = "") -> None:
        """Raises UnknownColumn, naming the nearest column and what keeps it apart, or DuplicateColumns."""
        for column in wanted:
            if column not in self.names:
                raise UnknownColumn(
                    f"{self.shown} has no column {column!r}",
                    fix=f"{self._what_is_near(column)} It has: {_listed(self.names)}. {hint}".strip(),
                )
            if column in self.repeated_names:
                raise DuplicateColumns(
                    f"{self.shown} has two columns {column!r}", fix="Rename or remove one of them in the header line."
                )

    def rows(self, columns: Sequence[str], id_columns: Sequence[str]) -> Rows:
        """These columns, the ids among them, without blank rows. Raises UnreadableFile."""
        with self.reading():
            frame = self._frame.select(columns).collect()
            numbers = np.arange(1, frame.height + 1)
            if not frame.select(self._is_blank(id_columns[0]).any()).item():
                return Rows(frame, numbers, 0, self.decimal_comma)
            # Only a row without an id may be blank, so that the other columns are rarely looked at.
            blank = self._frame.select(self._is_wholly_blank()).collect().to_series()
            return Rows(frame.filter(~blank), numbers[~blank.to_numpy()], int(blank.sum()), self.decimal_comma)

    def blank_rows(self, id_columns: Sequence[str]) -> int:
        """How many rows are wholly empty. Raises UnreadableFile."""
        with self.reading():
            is_blank = self._frame.select(self._is_blank(id_columns[0]).any())
            if not is_blank.collect(engine="streaming").item():  # so that the other columns are rarely looked at
                return 0
            return int(self._frame.select(self._is_wholly_blank().sum()).collect(engine="streaming").item())

    def batches(self, columns: Sequence[str], id_columns: Sequence[str], *, skip_blank: bool) -> Iterator[Rows]:
        """The same rows as `rows`, some at a time, in the order of the file. Raises UnreadableFile."""
        with self.reading():
            frame = self._frame.with_row_index(_NUMBER, offset=1)
            if skip_blank:
                frame = frame.filter(~(self._is_blank(id_columns[0]) & self._is_wholly_blank()))
            chosen = frame.select(_NUMBER, *columns)
            for batch in chosen.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
                if batch.height:
                    numbers = batch[_NUMBER].to_numpy().astype(np.int64)
                    yield Rows(batch.drop(_NUMBER), numbers, 0, self.decimal_comma)

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[str]:
        """SHA-256 of the file as hexadecimal digits. Raises UnreadableFile where it changes while a block reads it."""
        with reading(self.shown):
            before = _version(self._path)
            with self._path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        yield digest
        with reading(self.shown):
            if _version(self._path) != before:
                raise UnreadableFile(f"{self.shown} changed while it was read", fix="Write the whole file first.")

    def digest_and_rows(self, columns: Sequence[str], id_columns: Sequence[str]) -> tuple[str, Rows]:
        """SHA-256 of the file as hexadecimal digits, and the same rows, read from these very bytes."""
        with self.unchanged() as digest:
            return digest, self.rows(columns, id_columns)

    def filled(self, id_columns: Sequence[str]) -> pl.LazyFrame:
        """All columns, without rows that are wholly empty; what collects it stands in a block of `reading`."""
        return self._frame.filter(~(self._is_blank(id_columns[0]) & self._is_wholly_blank()))

    def holds_nothing(self, names: Sequence[str]) -> pl.Expr:
        """Of a row: whether it is empty in all these columns."""
        return _all([self._is_blank(name) for name in names])

    def _is_wholly_blank(self) -> pl.Expr:
        return self.holds_nothing(self.names)

    def _what_is_near(self, column: str) -> str:
        if near := _nearest(column, self.names):
            return near
        if self.kind is Kind.CSV and any(map(_is_number, self.names)):
            return "Its first line looks like a row: a table begins with a line that names its columns."
        return ""

    def _is_blank(self, name: str) -> pl.Expr:
        column, texts = pl.col(name), self.schema[name] == pl.String
        return column.is_null() | (column.str.strip_chars() == "") if texts else column.is_null()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """What goes wrong while its rows are read, by its place in the file."""
        with reading(self.shown, (self._path, self.text) if self.kind is Kind.CSV else None):
            yield


def kind_of_file(path: Path, shown: str, *, absent: str) -> Kind:
    """Raises UnknownFile with the fix `absent`, or UnreadableFile, naming what the file is."""
    with reading(shown):
        if not path.is_file():
            what = f"{path} is a folder, not a file" if path.is_dir() else f"there is no file {path}"
            raise UnknownFile(what, fix=absent)
        with path.open("rb") as file:
            return kind_of(file.read(HEAD_BYTES), shown)


def open_table(path: Path, shown: str, kind: Kind, text: TextFormat, missing_words: Sequence[str] = ()) -> TableFile:
    """`text` is how a CSV file is read. Cells that are one of `missing_words` are empty. Raises UnreadableFile."""
    with reading(shown, (path, text) if kind is Kind.CSV else None):
        frame = _scan(path, kind, text)
        schema = frame.collect_schema()
        if len(schema) > MOST_COLUMNS:
            raise UnreadableFile(
                f"{shown} has {len(schema):,} columns; {MOST_COLUMNS:,} are the most",
                fix="Write the columns that jobs take, and the ids, into a file of their own.",
            )
        if missing_words:
            texts = [name for name, dtype in schema.items() if dtype == pl.String]
            is_missing = pl.col(texts).str.strip_chars().is_in(list(missing_words))
            frame = frame.with_columns(pl.when(~is_missing).then(pl.col(texts)))
        return TableFile(shown, tuple(schema.names()), kind, text, schema, path, frame)


def _scan(path: Path, kind: Kind, text: TextFormat) -> pl.LazyFrame:
    if kind is Kind.PARQUET:
        return pl.scan_parquet(path, glob=False)
    if kind is Kind.ARROW:
        return pl.scan_ipc(path)
    if kind is Kind.ARROW_STREAM:
        return pl.read_ipc_stream(path).lazy()
    # All cells as text: inference would guess ids ("007") and hide the row of a cell that is no number.
    return pl.scan_csv(
        path if text.encoding == UTF_8 else io.BytesIO(_as_utf8(path, text.encoding)),
        infer_schema=False,
        glob=False,
        separator=text.separator,
        quote_char=text.quote,
        skip_lines=text.skipped_lines,
    )


def _as_utf8(path: Path, encoding: str) -> bytes:
    """The whole text: polars reads no other encoding."""
    with unpacked_file(path) as file:
        return file.read().decode(encoding).removeprefix(BYTE_ORDER_MARK).encode()


@contextlib.contextmanager
def reading(shown: str, text: tuple[Path, TextFormat] | None = None) -> Iterator[None]:
    """Whatever a damaged file does to the reader, its owner reads where it is, or the first line of the reason.

    `text` is a CSV file and how it is read.
    """
    try:
        yield
    # A panic of the reader is no Exception; left alone it would end the thread and not the job.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, UnicodeDecodeError) as error:
        if text is not None and (damage := _damage(*text, shown)) is not None:
            raise damage from error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:REASON_LIMIT]
        raise UnreadableFile(f"{shown} cannot be read: {printable(reason)}", fix=READABLE) from error


def _all(conditions: Sequence[pl.Expr]) -> pl.Expr:
    """Joined in halves: an expression that nests as deep as a table is wide would end the process."""
    half = len(conditions) // 2
    return _all(conditions[:half]) & _all(conditions[half:]) if half else conditions[0]


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


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*[+-]?\d+([.,]\d+)?\s*", text) is not None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name if name and name.isprintable() else repr(name) for name in names[:NAMES_SHOWN])
    return shown + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")


def _damage(path: Path, text: TextFormat, shown: str) -> UnreadableFile | None:
    """The first line of a CSV file that does not fit; None when the cause is another."""
    started, fields, skipped = 0, 0, text.skipped_lines
    try:
        with unpacked_file(path) as file:
            encoding = "utf-8-sig" if text.encoding == UTF_8 else text.encoding
            lines = io.TextIOWrapper(file, encoding=encoding, newline="")
            for _ in range(skipped):
                lines.readline()
            reader = csv.reader(lines, strict=True, delimiter=text.separator, quotechar=text.quote)
            for row in reader:
                fields = fields or len(row)
                if len(row) > fields:
                    return UnreadableFile(
                        f"{shown}: line {skipped + reader.line_num} has {len(row)} fields, the header {fields}",
                        fix="Put a cell that holds the separator into quotation marks.",
                    )
                started = reader.line_num
    except UnicodeDecodeError:
        return UnreadableFile(
            f"{shown} is not {text.encoding.upper()}: it holds bytes that stand for no letter after line "
            f"{skipped + started}",
            fix="State its encoding with --encoding when it is added, or save it as CSV UTF-8.",
        )
    except csv.Error:
        return UnreadableFile(
            f"{shown}: a quotation mark in or after line {skipped + started + 1} is not closed, or does not enclose "
            "its cell",
            fix="Close it, or remove it: two of them inside a quoted cell stand for one.",
        )
    except (OSError, EOFError, zlib.error):
        pass
    return None
