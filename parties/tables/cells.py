"""The cells of a column as numbers: each of them fits, or one error names all that is wrong and how to mend it."""

import contextlib
import re
from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parties.dataset_errors import TooManyCategories
from parties.errors import MissingValue, NonNumericCell, NotFinite
from parties.tables.spellings import MISSING
from parties.tables.table_files import Rows
from parties.tables.text_format import decimal_comma
from vfl.errors import InvalidData

Cells = TypeVar("Cells", pl.Series, pl.Expr)

LARGEST = 1e100
"""Beyond it a column's variance no longer fits a float64, and standardising gives NaN."""
COLUMN_FIX = (
    "Encode the column as numbers, or leave it out. A training job can take words as categories: `prepare` of the "
    "specification, kind `one_hot`."
)
FILL = (
    "Fill such cells, or remove their rows from every party's file that has them. A training job can fill them: "
    '`prepare` of the specification, missing = "median".'
)
MOST_CATEGORIES = 10_000
UNIT, BETWEEN_DIGITS = r"^\s*[%€$£]\s*|^\s*[A-Z]{3}\s+|\s*[%€$£]\s*$|\s+[A-Z]{3}\s*$", r"[,'\s]"
"""A sign or a currency's three letters (ISO 4217) before a number or after it; what stands between thousands."""
SMALLER_UNIT = "Bring the column to a smaller unit."


def numbers_of(
    rows: Rows, name: str, file: str, fix_of_words: str = COLUMN_FIX, *, gaps_allowed: bool = False
) -> NDArray[np.float64]:
    """One number a row; NaN stands for an empty cell where gaps are allowed. Raises InvalidData."""
    column = rows.frame[name]
    named = isinstance(column.dtype, pl.Categorical | pl.Enum)
    if not (named or column.dtype.is_numeric() or column.dtype in {pl.String, pl.Boolean, pl.Null}):
        raise NonNumericCell(f"{file}: column {column.name!r} holds {column.dtype}, not numbers", fix=fix_of_words)
    column = column.cast(pl.String) if named else column
    if not rows.decimal_comma and _all_fit(read := column.cast(pl.Float64, strict=False)):
        return read.to_numpy()
    cells = column.str.strip_chars() if column.dtype == pl.String else column
    empty = cells.is_null() | (cells == "") if cells.dtype == pl.String else cells.is_null()
    written = as_points(cells) if rows.decimal_comma and cells.dtype == pl.String else cells
    numbers = written.cast(pl.Float64, strict=False)
    faults: list[tuple[type[InvalidData], str, str]] = []
    for error, wrong, what, fix in (
        (MissingValue, empty & (not gaps_allowed), "is empty", FILL),
        (NonNumericCell, numbers.is_null() & ~empty, "is not a number", fix_of_words),
        (NotFinite, ~numbers.is_finite(), "is not finite", "Replace NaN and infinite values."),
        (NotFinite, numbers.is_finite() & (numbers.abs() > LARGEST), f"is beyond {LARGEST:g}", SMALLER_UNIT),
    ):
        places = wrong.arg_true()
        if len(places):
            first, others = places[0], f" (and in {len(places) - 1} more)" if len(places) > 1 else ""
            value = "" if error is MissingValue else f": {column[first]!r}"
            everywhere = len(places) == len(column)
            nearly = "" if error is NotFinite else _fix_of(column[first], rows, everywhere=everywhere)
            faults.append((error, f"{what} in data row {rows.numbers[first]}{others}{value}", nearly or fix))
    if faults:
        faults_text, fixes = "; it ".join(fault[1] for fault in faults), dict.fromkeys(fault[2] for fault in faults)
        raise faults[0][0](f"{file}: column {column.name!r} {faults_text}", fix=" ".join(fixes))
    return numbers.fill_null(float("nan")).to_numpy().astype(np.float64, copy=False)


def _all_fit(numbers: pl.Series) -> bool:
    """Of most columns, which then need no second look."""
    if numbers.has_nulls() or not numbers.is_finite().all():
        return False
    largest = numbers.abs().max()
    return not isinstance(largest, float) or largest <= LARGEST


class Categories(NamedTuple):
    codes: NDArray[np.float64]
    """One a row; NaN is an empty cell."""
    words: tuple[str, ...]
    """What code 0, 1, ... stands for."""


def categories_of(rows: Rows, name: str, file: str) -> Categories:
    """Each different text of a column as a category. Raises NonNumericCell, TooManyCategories."""
    column = rows.frame[name]
    if column.dtype.is_nested() or column.dtype in {pl.Binary, pl.Object}:
        raise NonNumericCell(f"{file}: column {name!r} holds {column.dtype}, not categories", fix="Leave it out.")
    if column.dtype.is_float() and (whole := column.cast(pl.Int64, strict=False)).cast(column.dtype).equals(column):
        column = whole  # 1.0 is the category 1
    texts = column.cast(pl.String).str.strip_chars()
    texts = texts.set((texts == "").fill_null(value=False), None)
    words = texts.drop_nulls().unique().sort()
    if len(words) > MOST_CATEGORIES:
        raise TooManyCategories(
            f"{file}: column {name!r} holds {len(words):,} different words; {MOST_CATEGORIES:,} is the most",
            fix="Leave it out, or group its words before it is added: of a category of few rows nothing is learned.",
        )
    codes = texts.cast(pl.Enum(words)).to_physical().cast(pl.Float64)
    return Categories(codes.fill_null(float("nan")).to_numpy(), tuple(words.to_list()))


def as_points(cells: Cells) -> Cells:
    """Numbers with a decimal comma as they are read everywhere; one that holds a point too is none."""
    return cells.str.replace_all(".", "no", literal=True).str.replace(",", ".", literal=True)


def without_marks(cells: Cells) -> Cells:
    """Numbers without a unit, a percent sign or a sign between thousands."""
    return cells.str.replace(UNIT, "").str.replace_all(BETWEEN_DIGITS, "")


def _fix_of(cell: object, rows: Rows, *, everywhere: bool) -> str:
    """For cells that many a program writes for a number or in place of one."""
    text = cell.strip() if isinstance(cell, str) else ""
    if not text and everywhere:
        return "The column is empty in every row: leave it out."
    if decimal_comma(text) and not rows.decimal_comma:
        return "Write numbers with a decimal point, or say --decimal ',' when the data set is added."
    if text.lower() in MISSING:
        return f"{text!r} seems to stand for a missing value: say --missing {text!r} when the data set is added. {FILL}"
    if _is_number(re.sub(BETWEEN_DIGITS, "", re.sub(UNIT, "", text, count=1))):
        return "Write the number alone: no unit, no percent sign, no sign between thousands."
    return ""


def _is_number(text: str) -> bool:
    with contextlib.suppress(ValueError):
        float(text)
        return True
    return False
