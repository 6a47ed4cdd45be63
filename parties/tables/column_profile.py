"""Columns that will train badly without an error: what their owner should look at, as warnings with names and shares.

Each column is looked at once, alone; nothing is changed and nothing leaves the party.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from parties.tables.matrix import PART_ROWS
from parties.worker.mapped_rows import release
from vfl.notices import Notice

Floats = NDArray[np.float64]

COLUMNS_SHOWN, NAME_SHOWN = 5, 60
FAR = 2.0
"""A repeated extreme this many times the spread of the others away from them stands for something else."""
FAR_FOR_A_CODE = 0.5
"""The same for a value such as -999, which programs write for a missing one."""
CODES_IN_A_COLUMN = 3
BEYOND = 3.0
"""Standard deviations at which standardised inputs are clipped."""
FLAT = 0.1
"""Standard deviations within which nearly all values of a flattened column lie."""
NEARLY_ALL = (5, 95)
"""Percentiles."""
SAME = 1e-8
"""Two standardised columns that differ by less are one column."""

_CODE = re.compile(r"9{2,}|8{2,}|7{2,}")
_LIMITS = {32767.0, 32768.0, 65535.0, 2147483647.0, 2147483648.0, 4294967295.0}
_UNNAMED = re.compile(r"(unnamed: \d+)?", re.IGNORECASE)
_ID_NAME = re.compile(r"(?i:(.*[_\-. ])?(id|key|uuid|nr|no|number|index))|.*[a-z](Id|ID|Key|Nr|No|Number)")


def column_notices(
    file: str,
    names: Sequence[str],
    columns: Floats,
    label: tuple[str, Floats] | None = None,
    positions: Sequence[int] | None = None,
) -> tuple[Notice, ...]:
    """Warnings about a file's values, rows x columns, NaN where a cell is empty: one for each kind of fault, naming its
    columns. They stand at these positions, or one behind the other."""
    texts: dict[str, list[str]] = {}
    copies = _Copies(len(columns), _Column(*label) if label else None)
    for position, name in zip(range(len(names)) if positions is None else positions, names, strict=True):
        make = partial(_column, name, columns, position)
        column = make()
        if not len(column.values):
            continue
        for code, text in (*_faults(column), *copies.of(column, make)):
            texts.setdefault(code, []).append(text)
    return tuple(
        msgspec.structs.replace(notice, text=f"{file}: {notice.text.format(_listed(texts[notice.code]))}")
        for notice in _TOLD
        if notice.code in texts
    )


def _column(name: str, columns: Floats, position: int) -> "_Column":
    """Read in parts, so that no more of a mapped file than a part stays in memory."""
    values = np.empty(len(columns))
    for start in range(0, len(columns), PART_ROWS):
        values[start : start + PART_ROWS] = columns[start : start + PART_ROWS, position]
        release(columns)
    return _Column(name, values)


_TOLD = (
    Notice(
        "warning", "constant_column", "the same value stands in every row of {}: nothing can be learned from it here"
    ),
    Notice(
        "warning",
        "column_of_tiny_values",
        "the values are too small to compute their spread: {}; bring the column to another unit",
    ),
    Notice(
        "warning", "suspicious_value", "a repeated value lies far from all others, as if it stood for a missing one: {}"
    ),
    Notice(
        "warning",
        "flattened_column",
        "a few values far out leave hardly any difference between the others once scaled: {}",
    ),
    Notice(
        "warning",
        "row_number_column",
        "the values count the rows: {}; leave a row number out of the columns to learn from",
    ),
    Notice(
        "warning",
        "id_like_column",
        "as many values as rows, under the name of an id: {}; leave an id out of the columns to learn from",
    ),
    Notice("warning", "repeated_column", "a column says what another one says already: {}"),
    Notice(
        "warning", "label_among_columns", "the label stands among the columns to learn from: {}; leave that column out"
    ),
)


class _Column:
    """One column and its moments."""

    def __init__(self, name: str, values: Floats) -> None:
        self.name, self.has_gaps = name, bool(np.isnan(values).any())
        self.values = values = values[~np.isnan(values)] if self.has_gaps else values
        """Those that are there."""
        there = values if len(values) else np.zeros(1)
        self.low, self.high = float(there.min()), float(there.max())
        self.mean, self.deviation = float(there.mean()), float(there.std())

    @property
    def shown(self) -> str:
        return repr(self.name[:NAME_SHOWN])

    @property
    def is_constant(self) -> bool:
        return self.low == self.high

    @property
    def is_tiny(self) -> bool:
        """Its variance does not fit a float64."""
        return not self.is_constant and self.deviation**2 < float(np.finfo(np.float64).tiny)

    def standardised(self) -> Floats:
        return (self.values - self.mean) / self.deviation


def _faults(column: _Column) -> Iterator[tuple[str, str]]:
    """(code, what is said of the column)."""
    name = column.shown
    if column.is_constant:
        yield "constant_column", f"{name} ({column.low:g})"
        return
    if column.is_tiny:
        yield "column_of_tiny_values", f"{name} (from {column.low:g} to {column.high:g})"
        return
    if codes := _codes(column.values) or _codes(-column.values, -1.0):
        yield "suspicious_value", f"{name} ({codes})"
    elif flat := _flattened(column):
        yield "flattened_column", f"{name} ({flat})"
    if _counts_rows(column):
        yield "row_number_column", f"{name} (from {column.low:g} to {column.high:g})"
    elif _ID_NAME.fullmatch(column.name) and _all_differ(column):
        yield "id_like_column", name


def _codes(values: Floats, sign: float = 1.0) -> str:
    """Repeated values below all others and far from them, as their owner reads them: times `sign`."""
    rest, codes = values, []
    for _ in range(CODES_IN_A_COLUMN):
        code = rest.min()
        others = rest[rest != code]
        count = len(rest) - len(others)
        if count < 2 or len(others) < 3:
            return ""
        codes.append(f"{sign * code:g} in {count} of {len(values)} rows, {count / len(values):.1%}")
        is_code = _CODE.fullmatch(f"{abs(code):.15g}".replace(".", "")) is not None or abs(code) in _LIMITS
        lowest_other = float(others.min())
        # Of values that are all positive, a negative one is far.
        is_negative = sign > 0 and code < 0 and (lowest_other >= 0 if is_code else lowest_other >= -10 * code)
        if is_negative or _is_far(lowest_other - float(code), others, is_code=is_code):
            lowest, highest = sorted((sign * lowest_other, sign * others.max()))
            return f"{', '.join(codes)}; the others from {lowest:g} to {highest:g}"
        if not is_code:
            break
        rest = others
    return ""


def _is_far(gap: float, others: Floats, *, is_code: bool) -> bool:
    needed = FAR_FOR_A_CODE if is_code else FAR
    if gap < needed * others.std():  # most columns end here, before anything is sorted
        return False
    return 0 < needed * _spread(others) < gap


def _spread(values: Floats) -> float:
    low, high = np.percentile(values, NEARLY_ALL)
    return float(high - low) or float(np.ptp(values))


def _flattened(column: _Column) -> str:
    furthest = BEYOND * column.deviation
    if max(column.high - column.mean, column.mean - column.low) <= furthest:
        return ""
    inside = column.values[np.abs(column.values - column.mean) <= furthest]
    beyond = len(column.values) - len(inside)
    if not beyond or inside.std() > FLAT * column.deviation:
        return ""
    within = _spread(inside) / column.deviation
    if not 0 < within < FLAT:
        return ""
    share = f"{beyond} of {len(column.values)} values, {100 * beyond / len(column.values):.2g}%"
    return f"{share}, beyond {BEYOND:g} standard deviations, where scaling clips; nearly all others within {within:.2g}"


def _counts_rows(column: _Column) -> bool:
    rows = len(column.values)
    if column.high - column.low != rows - 1 and not _UNNAMED.fullmatch(column.name):
        return False
    return _all_differ(column)


def _all_differ(column: _Column) -> bool:
    """Whole numbers, none of them twice."""
    values = column.values
    return bool((values == np.floor(values)).all()) and len(np.unique(values)) == len(values)


class _Copies:
    """Finds columns that are one of those before them, also negated or in another unit."""

    def __init__(self, rows: int, label: _Column | None) -> None:
        self._weights = np.random.default_rng(0).standard_normal(rows)
        self._seen: dict[int, list[Callable[[], _Column]]] = {}
        self._label = label
        if label is not None:
            list(self.of(label, lambda: label))

    def of(self, column: _Column, again: Callable[[], _Column]) -> Iterator[tuple[str, str]]:
        """At most one (code, what is said of the column). `again` makes it anew, so that no copy of it is kept."""
        if column.is_constant or column.is_tiny or column.has_gaps:
            return
        # Equal columns have equal marks up to rounding, so that few pairs are compared value by value. The sum is not a
        # matrix product: the threads of one wait for busy processors longer than the sum takes.
        mark = abs(float(np.einsum("i,i", column.standardised(), self._weights))) / len(self._weights) ** 0.5
        place = round(mark * 1e6)
        for near in (place - 1, place, place + 1):
            for other in self._seen.get(near, ()):
                if how := _copy(column, seen := other()):
                    to_learn = seen is self._label
                    shown = f"the label {seen.shown}" if to_learn else seen.shown
                    code = "label_among_columns" if to_learn else "repeated_column"
                    yield code, f"{column.shown} is {how.format(shown)}"
                    return
        self._seen.setdefault(place, []).append(again)


def _copy(column: _Column, other: _Column) -> str:
    """How it is the other one, with a place for its name; empty when it is not."""
    if np.array_equal(column.values, other.values):
        return "the same as {}"
    here, there = column.standardised(), other.standardised()
    sign = 1.0 if np.einsum("i,i", here, there) > 0 else -1.0
    if np.abs(here - sign * there).max() > SAME * np.abs(there).max():
        return ""
    if np.array_equal(column.values, -other.values):
        return "the negative of {}"
    factor = sign * column.deviation / other.deviation
    offset = column.mean - factor * other.mean
    return f"{factor:.4g} times {{}}" + (f" plus {offset:.4g}" if abs(offset) > SAME * column.deviation else "")


def _listed(texts: list[str]) -> str:
    more = len(texts) - COLUMNS_SHOWN
    return "; ".join(texts[:COLUMNS_SHOWN]) + (f"; and {more} more columns" if more > 0 else "")
