"""The columns of a file that make the id of a row.

A job that compares ids reads them by its rules, so that the same id is the same everywhere; others as they are written.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from operator import and_
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parties.errors import DuplicateIds, IdType, MissingValue
from parties.tables.row_ids import INVISIBLE, oddities, peculiarities
from parties.tables.table_files import Rows, reading
from vfl.ids import HashedIds, id_hashes
from vfl.notices import Notice
from vfl.spec.sections import IdRules

PARTS = "\x1f"
"""Stands between the parts of an id that several columns make, as it is written."""
_WHOLE_NUMBER = r"^(?:0|-?[1-9][0-9]*)$"
_AS_TEXT = 'Store the ids as text at every party, or set align.types to "integer" where all are whole numbers.'


def read_ids(rows: Rows, columns: Sequence[str], rules: IdRules, file: str) -> tuple[HashedIds, tuple[Notice, ...]]:
    """Of every row, but for those left out because their id stands above. Raises InvalidData, naming column and row."""
    read = [_component(rows, column, kind, rules, file) for column, kind in zip(columns, rules.types, strict=True)]
    ids = pl.DataFrame({str(number): column for number, column in enumerate(read)})
    is_first = ids.select(pl.struct(pl.all()).is_first_distinct()).to_series()
    repeated = len(ids) - int(is_first.sum())
    if repeated and rules.duplicates == "refuse":
        fix = f'Each {_named(columns)} must stand in one row, or set align.duplicates to "first".'
        raise _duplicate(rows.numbers, ids, is_first, file, fix)
    first_ids = ids.filter(is_first)
    hashed = HashedIds(id_hashes(first_ids.iter_rows()), rows.numbers[is_first.to_numpy()].astype(np.int64))
    return hashed, tuple(_notices(read, repeated, rules, file))


def ids_as_written(rows: Rows, columns: Sequence[str], file: str) -> pl.Series:
    """One text a row. Raises MissingValue, naming the row."""
    texts = []
    for name in columns:
        at = f"{file}: the id column {name!r}"
        with reading(at):
            text = rows.frame[name].cast(pl.String)
        _check_filled(text.str.strip_chars(), rows, at)
        texts.append(text)
    return texts[0] if len(texts) == 1 else pl.select(pl.concat_str(texts, separator=PARTS)).to_series()


def id_table(ids: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
    """The inverse of `ids_as_written`: each of the columns as text."""
    if len(columns) == 1:
        return ids.alias(columns[0]).to_frame()
    parts = ids.str.split_exact(PARTS, len(columns) - 1).struct.rename_fields(list(columns))
    return parts.struct.unnest()


def check_each_once(ids: pl.Series, numbers: NDArray[np.int64], columns: Sequence[str], file: str) -> None:
    """Of ids as they are written, and their rows' numbers. Raises DuplicateIds, naming two rows that share one."""
    hashes = np.sort(ids.hash().to_numpy())
    if not (hashes[1:] == hashes[:-1]).any():  # which needs less memory than the ids themselves
        return
    is_first = ids.is_first_distinct()
    if not is_first.all():
        fix = f"Each {_named(columns)} must stand in one row. {oddities(ids, file)}".strip()
        raise _duplicate(numbers, ids.to_frame(), is_first, file, fix)


def _component(rows: Rows, name: str, kind: str, rules: IdRules, file: str) -> pl.Series:
    """One column, as its part of the id."""
    column, at = rows.frame[name], f"{file}: the id column {name!r}"
    if isinstance(column.dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    if not (column.dtype == pl.String or column.dtype.is_integer()):
        raise IdType(f"{at} holds {column.dtype}, which is neither text nor whole numbers", fix=_AS_TEXT)
    if kind == "text" and column.dtype != pl.String:
        raise IdType(f"{at} holds whole numbers, and the specification says that it is text", fix=_AS_TEXT)
    with reading(at):
        read = _normalised(column, rules) if column.dtype == pl.String else column
    _check_filled(read, rows, at)
    if kind == "text":
        return read
    with reading(at):
        return _whole_numbers(read, column, rows, at) if read.dtype == pl.String else read.cast(pl.Int64)


def _whole_numbers(read: pl.Series, column: pl.Series, rows: Rows, at: str) -> pl.Series:
    other = (~read.str.contains(_WHOLE_NUMBER)).arg_true()
    if len(other):
        raise IdType(
            f"{at} is not a plain whole number in data row {rows.numbers[other[0]]} (and in {len(other) - 1} more): "
            f"{column[other[0]]!r}",
            fix='Leading zeros, a plus sign and a decimal point make another id: set align.types to "text".',
        )
    return read.cast(pl.Int64)


def _normalised(texts: pl.Series, rules: IdRules) -> pl.Series:
    forms: dict[str, Literal["NFC", "NFKC"]] = {"nfc": "NFC", "nfkc": "NFKC"}
    form = forms.get(rules.unicode)
    if rules.white_space == "strip":
        texts = texts.str.replace_all(INVISIBLE, "")
    texts = texts.str.normalize(form) if form else texts
    if rules.case == "lower":
        texts = texts.str.to_lowercase()
        texts = texts.str.normalize(form) if form else texts
    return texts.str.strip_chars() if rules.white_space == "strip" else texts


def plain_text(ids: pl.Series) -> pl.Series:
    """Ids as they are written, read as a specification that states no rules reads them."""
    return _normalised(ids, IdRules())


def _check_filled(column: pl.Series, rows: Rows, at: str) -> None:
    """Raises MissingValue."""
    missing = (column.is_null() | (column == "") if column.dtype == pl.String else column.is_null()).arg_true()
    if len(missing):
        others = f" (and in {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise MissingValue(
            f"{at} is empty in data row {rows.numbers[missing[0]]}{others}",
            fix="Give each row its id, or leave such rows out of the file.",
        )


def _named(columns: Sequence[str]) -> str:
    return " and ".join(map(repr, columns))


def _duplicate(numbers: NDArray[np.int64], ids: pl.DataFrame, is_first: pl.Series, file: str, fix: str) -> DuplicateIds:
    later = int((~is_first).arg_true()[0])
    same = reduce(and_, (column == column[later] for column in ids))
    first, second = numbers[same.arg_true()[:2].to_numpy()]
    return DuplicateIds(
        f"{file}: {int(is_first.sum())} ids in {len(ids)} rows; data rows {first} and {second} share one", fix=fix
    )


def _notices(read: Sequence[pl.Series], repeated: int, rules: IdRules, file: str) -> Iterator[Notice]:
    if repeated:
        text = f"{repeated} rows of {file} have an id that stands above them, and were left out"
        yield Notice("note", "repeated_ids", text)
    for column, kind in zip(read, rules.types, strict=True):
        seen = peculiarities(column) if kind == "text" else []
        if odd := "; ".join(each.text for each in seen if each.odd):
            yield Notice("warning", "odd_ids", f"{file} holds {odd}: ids are compared as they are written")
        if other := "; ".join(each.text for each in seen if not each.odd):
            yield Notice("note", "ids_as_written", f"{file} holds {other}: other parties must write them so too")
