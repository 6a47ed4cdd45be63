"""By what the label party holds rows out, where the joint seed does not draw them: a hash of each id, or a time.

Both are one number a row. What stands in the cells is for the owner: `redacted_for_peer` keeps errors from a peer.
"""

import hashlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parties.dataset_errors import NotATime
from parties.errors import MissingValue
from parties.tables.cells import LARGEST, as_points
from parties.tables.id_columns import plain_text
from parties.tables.table_files import Rows
from vfl.errors import InvalidData

DATE_FORMATS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S%.f")
PURPOSE = b"vfl held-out rows\x00"
FIX = "Write in every row a date (2026-01-31, 2026-01-31T12:00:00, in one time zone) or a number that grows with time."


def hashes_of(ids: pl.Series) -> NDArray[np.float64]:
    """Numbers from 0 to 1, the same for the same id in every job and file: no key enters."""
    hashes = [hashlib.sha256(PURPOSE + text.encode()).digest()[:8] for text in plain_text(ids)]
    return np.frombuffer(b"".join(hashes), ">u8").astype(np.float64) / 2**64


def times_of(rows: Rows, name: str, file: str) -> NDArray[np.float64]:
    """Of each row a number that grows with time. Raises MissingValue, NotATime, naming the row."""
    column = rows.frame[name]
    texts = column.cast(pl.String).str.strip_chars() if column.dtype in {pl.String, pl.Categorical} else None
    _refuse(MissingValue, column.is_null() if texts is None else texts.is_null() | (texts == ""), rows, name, file)
    if texts is not None:
        numbers = (as_points(texts) if rows.decimal_comma else texts).cast(pl.Float64, strict=False)
        dates = _dates(texts).dt.epoch("us")
        # What is wrong is told of the few cells that are not as the others.
        numbers = dates if numbers.null_count() > dates.null_count() else numbers
    elif column.dtype in {pl.Date, pl.Datetime}:
        numbers = column.dt.epoch("us")
    elif column.dtype.is_numeric():
        numbers = column
    else:
        raise NotATime(f"{file}: column {name!r} holds {column.dtype}, neither numbers nor dates", fix=FIX)
    numbers = numbers.cast(pl.Float64)
    _refuse(NotATime, numbers.is_null() | ~(numbers.abs() <= LARGEST).fill_null(value=False), rows, name, file)
    return numbers.to_numpy()


def _dates(texts: pl.Series) -> pl.Series:
    plain = texts.str.strip_suffix("Z")
    read = [plain.str.to_datetime(written, strict=False, time_unit="us") for written in DATE_FORMATS]
    return pl.select(pl.coalesce(read)).to_series()


def _refuse(error: type[InvalidData], wrong: pl.Series, rows: Rows, name: str, file: str) -> None:
    places = wrong.arg_true()
    if not len(places):
        return
    first, others = places[0], f" (and in {len(places) - 1} more)" if len(places) > 1 else ""
    what = "is empty" if error is MissingValue else "is neither a number nor a date"
    value = "" if error is MissingValue else f": {rows.frame[name][first]!r}"
    raise error(f"{file}: column {name!r} {what} in data row {rows.numbers[first]}{others}{value}", fix=FIX)
