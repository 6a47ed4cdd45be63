"""What a table looks like to its owner: for each column its type, gaps, values and range, and what is suspicious of it.

Reads the file in two streaming passes that keep numbers and no rows, the second for the most common values; of
distinct values all are counted, or about how many of a large file.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import polars as pl

from parties.tables.cells import LARGEST, as_points, without_marks
from parties.tables.column_profile import column_notices
from parties.tables.spellings import MISSING
from parties.tables.table_files import TableFile
from vfl.notices import Notice

COUNTED_ROWS = 1_000_000
"""Of a longer table distinct values are estimated (HyperLogLog, as polars counts)."""
SAMPLE_ROWS = 100_000
"""The first rows, on which the warnings about single columns look."""
COMMON_VALUES, FEW_VALUES = 5, 100
"""How many of the most common values are shown, of a column that has few."""
NEARLY_ALL = 0.95
NEARLY_NUMBERS, MARKED_NUMBERS = "nearly numbers", "marked numbers"

_INTEGER, _LEADING_ZERO = r"^[+-]?\d+$", r"^0\d+$"
_EMAIL, _DATE = r"^[^@\s]+@[^@\s]+\.[^@\s]+$", r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?$"


class CommonValue(msgspec.Struct, frozen=True):
    value: str
    rows: int


class ColumnProfile(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    type: str
    """integer, number, boolean, date, text, empty or other."""
    missing: int
    """Rows without a value."""
    distinct: int
    """Different values, the empty one aside; about so many in a long table."""
    least: float | str | None = None
    greatest: float | str | None = None
    """Of numbers and dates."""
    mean: float | None = None
    common: tuple[CommonValue, ...] = ()
    """The most common values of a column that has few."""
    suspicious: tuple[str, ...] = ()
    """all different (as many values as rows), sequence (numbers without a gap), e-mail, constant, nearly numbers (words
    in a few rows), marked numbers (with a unit or a sign between thousands)."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    rows: int
    columns: tuple[ColumnProfile, ...]


def profile_of(file: TableFile, id_columns: Sequence[str]) -> Profile:
    """Of every column. Raises UnreadableFile."""
    frame = file.filled(id_columns)
    schema = file.schema
    with file.reading():
        counts = frame.select(
            pl.len().alias("rows"),
            *(each for at, name in enumerate(schema) for each in _counts(at, schema[name], name, file)),
        ).collect(engine="streaming")
    counted = counts.row(0, named=True)
    rows = int(counted["rows"])
    of_column: list[dict[str, object]] = [{} for _ in schema]
    for key, value in counted.items():
        at, _, word = key.partition(" ")
        if word:
            of_column[int(at)][word] = value
    columns = [_column(name, dtype, rows, of) for (name, dtype), of in zip(schema.items(), of_column, strict=True)]
    with file.reading():
        few = [each.name for each in columns if each.distinct <= FEW_VALUES and each.type not in {"empty", "other"}]
        common = _common(frame, few)
    return Profile(
        rows=rows,
        columns=tuple(msgspec.structs.replace(each, common=common.get(each.name, ())) for each in columns),
    )


def missing_words(file: TableFile, profile: Profile, id_columns: Sequence[str]) -> tuple[str, ...]:
    """Words that programs write for a missing value, in columns whose other cells are all numbers."""
    frame, missing = file.filled(id_columns), set[str]()
    for each in profile.columns:
        if file.schema[each.name] != pl.String or each.type != "text" or each.name in id_columns:
            continue
        cells = pl.col(each.name).str.strip_chars()
        is_word = cells.str.to_lowercase().is_in(sorted(MISSING))
        is_number = number_of(each.name, file.schema[each.name], file).is_not_null()
        empty = cells.is_null() | (cells == "")
        with file.reading():
            others = frame.filter(~is_word & ~is_number & ~empty).select(pl.len())
            words = frame.filter(is_word).select(cells.unique())
            numbers = frame.filter(is_number).select(pl.len())
            counts = pl.collect_all([others, numbers, words], engine="streaming")
        if not counts[0].item() and counts[1].item():
            missing |= set(counts[2].to_series().to_list())
    return tuple(sorted(missing))


def column_warnings(
    file: TableFile, profile: Profile, id_columns: Sequence[str], label: str | None
) -> tuple[Notice, ...]:
    """What is worth a look in columns of numbers, on the first rows."""
    names = [each.name for each in profile.columns if each.type in {"integer", "number"}]
    names = [name for name in names if name not in id_columns]
    if not names:
        return ()
    with file.reading():
        sample = file.filled(id_columns).select(number_of(name, file.schema[name], file) for name in names)
        columns = sample.head(SAMPLE_ROWS).collect(engine="streaming").to_numpy().astype(np.float64)
    columns[~(np.abs(columns) <= LARGEST)] = np.nan
    inputs = [at for at, name in enumerate(names) if name != label]
    shown = file.shown if profile.rows <= SAMPLE_ROWS else f"the first {SAMPLE_ROWS:,} rows of {file.shown}"
    of_label = (label, columns[:, names.index(label)]) if label is not None and label in names else None
    return column_notices(shown, [names[at] for at in inputs], columns[:, inputs], of_label)


def cells_of(name: str, dtype: pl.DataType) -> pl.Expr:
    """A text without the spaces around it."""
    return pl.col(name).str.strip_chars() if dtype == pl.String else pl.col(name)


def number_of(name: str, dtype: pl.DataType, file: TableFile) -> pl.Expr:
    """Null where a cell is none: NaN and infinity are no numbers of a profile."""
    cells = cells_of(name, dtype)
    number = (as_points(cells) if dtype == pl.String and file.decimal_comma else cells).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def _counts(at: int, dtype: pl.DataType, name: str, file: TableFile) -> list[pl.Expr]:
    """Of one column, each under its number and a word."""
    is_text = dtype == pl.String
    cells = cells_of(name, dtype)
    filled = cells.is_not_null() & (cells != "") if is_text else cells.is_not_null()
    if dtype.is_float():
        filled &= cells.is_not_nan()
    values = cells.filter(filled)
    number, counted = number_of(name, dtype, file), {"filled": filled.sum()}
    if not dtype.is_nested() and dtype not in {pl.Binary, pl.Object}:
        counted["distinct"] = (
            pl.when(pl.len() > COUNTED_ROWS).then(values.approx_n_unique()).otherwise(values.n_unique())
        )
    if is_text:
        counted |= {
            "numbers": number.is_not_null().sum(),
            "marked": without_marks(cells).cast(pl.Float64, strict=False).is_finite().sum(),
            "integers": cells.str.contains(_INTEGER).sum(),
            "zeros": cells.str.contains(_LEADING_ZERO).sum(),
            "mails": cells.str.contains(_EMAIL).sum(),
            "dates": cells.str.contains(_DATE).sum(),
            "booleans": cells.str.to_lowercase().is_in(["true", "false"]).sum(),
            "first": values.min(),
            "last": values.max(),
        }
    elif dtype.is_temporal():
        counted |= {"first": values.min().cast(pl.String), "last": values.max().cast(pl.String)}
    if is_text or dtype.is_numeric():
        counted |= {"least": number.min(), "greatest": number.max(), "mean": number.mean()}
    return [expression.alias(f"{at} {word}") for word, expression in counted.items()]


def _column(name: str, dtype: pl.DataType, rows: int, counts: dict[str, object]) -> ColumnProfile:
    def count(word: str) -> int:
        return int(str(counts.get(word) or 0))

    filled, distinct = count("filled"), count("distinct")
    kind = _type(dtype, filled, {word: count(word) for word in ("numbers", "integers", "zeros", "dates", "booleans")})
    is_number = kind in {"integer", "number"}
    ends = ("least", "greatest") if is_number else ("first", "last") if kind == "date" else ()
    least, greatest = (counts.get(end) for end in ends) if ends else (None, None)
    suspicious = []
    if filled and distinct == 1:
        suspicious.append("constant")
    if 1 < filled == rows and distinct >= (rows if rows <= COUNTED_ROWS else NEARLY_ALL * rows) and kind != "number":
        suspicious.append("all different")
        if is_number and greatest is not None and float(str(greatest)) - float(str(least)) == rows - 1:
            suspicious.append("sequence")
    if filled and count("mails") >= NEARLY_ALL * filled:
        suspicious.append("e-mail")
    if kind == "text" and not count("zeros"):
        if NEARLY_ALL * filled <= count("numbers"):
            suspicious.append(NEARLY_NUMBERS)
        elif count("marked") == filled:
            suspicious.append(MARKED_NUMBERS)
    return ColumnProfile(
        name=name,
        type=kind,
        missing=rows - filled,
        distinct=distinct,
        least=_end(least),
        greatest=_end(greatest),
        mean=_end(counts["mean"]) if is_number else None,  # type: ignore[arg-type]
        suspicious=tuple(suspicious),
    )


def _type(dtype: pl.DataType, filled: int, counts: dict[str, int]) -> str:
    if not filled:
        return "empty"
    if dtype == pl.String:  # what all its cells look like; leading zeros are kept, as ids and codes need them
        numbers = () if counts["zeros"] else ("integers", "numbers")
        looks = {"integers": "integer", "numbers": "number", "booleans": "boolean", "dates": "date"}
        return next((looks[word] for word in (*numbers, "booleans", "dates") if counts[word] == filled), "text")
    kinds = {
        "integer": dtype.is_integer(),
        "number": dtype.is_numeric(),
        "boolean": dtype == pl.Boolean,
        "text": isinstance(dtype, pl.Categorical | pl.Enum),
        "date": dtype.is_temporal(),
    }
    return next((kind for kind, holds in kinds.items() if holds), "other")


def _end(value: object) -> float | str | None:
    return value if value is None or isinstance(value, str) else float(str(value))


def _common(frame: pl.LazyFrame, names: Sequence[str]) -> dict[str, tuple[CommonValue, ...]]:
    """Of these columns, in one pass over the file."""
    if not names:
        return {}
    counted = (
        frame.select(pl.col(name).cast(pl.String).str.strip_chars() for name in names)
        .unpivot(variable_name="column", value_name="value")
        .filter(pl.col("value").is_not_null() & (pl.col("value") != ""))
        .group_by("column", "value")
        .len("rows")
        .collect(engine="streaming")
        .sort(["rows", "value"], descending=[True, False])
        .group_by("column", maintain_order=True)
        .head(COMMON_VALUES)
    )
    common: dict[str, tuple[CommonValue, ...]] = {}
    for column, value, rows in counted.select("column", "value", "rows").iter_rows():
        common[column] = (*common.get(column, ()), CommonValue(value, rows))
    return common
