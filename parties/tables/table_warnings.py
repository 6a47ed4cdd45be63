"""What only a whole table shows of a data set that is added, and a job would refuse or learn nothing from.

Its owner is told when the table is added, and not by the first job that fails.
"""

from collections.abc import Iterator, Sequence

import polars as pl

from parties.tables.profile import (
    MARKED_NUMBERS,
    NEARLY_NUMBERS,
    ColumnProfile,
    Profile,
    cells_of,
    number_of,
)
from parties.tables.table_files import TableFile
from vfl.notices import Notice

COLUMNS_SHOWN, CELL_SHOWN = 5, 40


def table_warnings(file: TableFile, profile: Profile, ids: Sequence[str], label: str | None) -> Iterator[Notice]:
    """Of a table whose rows are named by the columns `ids`. Raises UnreadableFile."""
    others = [each for each in profile.columns if each.name not in ids]
    inputs = [each for each in others if each.name != label]
    if repeated := file.repeated_names:
        names = _listed([repr(name) for name in repeated])
        text = f"more than one column of {file.shown} is called {names}: a job can take none of them"
        yield Notice("warning", "duplicate_columns", text)
    if empty := [repr(each.name) for each in inputs if each.type == "empty" and profile.rows]:
        text = f"columns of {file.shown} are empty in every row: {_listed(empty)}; leave them out of a job"
        yield Notice("warning", "empty_column", text)
    yield from _almost_numbers(file, inputs, ids)
    like_ids = [
        each.name
        for each in inputs
        if {"all different", "e-mail"} & set(each.suspicious) and MARKED_NUMBERS not in each.suspicious
    ]
    like_ids = [repr(name) for name in like_ids if file.schema[name].is_numeric() is False]
    if like_ids:
        text = (
            f"columns of {file.shown} look like ids or addresses: {_listed(like_ids)}; they say who a row is and "
            "nothing that can be learned"
        )
        yield Notice("warning", "identifying_column", text)
    of_label = next((each for each in others if each.name == label), None)
    if of_label is not None and of_label.missing:
        text = f"the label {label!r} of {file.shown} is empty in {of_label.missing:,} rows: a job refuses such rows"
        yield Notice("warning", "label_missing", text)
    yield from _bare_ids(file, others, ids)


def _almost_numbers(file: TableFile, inputs: Sequence[ColumnProfile], ids: Sequence[str]) -> Iterator[Notice]:
    """Columns that a person reads as numbers, and a job as words."""
    marked = [repr(each.name) for each in inputs if MARKED_NUMBERS in each.suspicious]
    mixed = [_mixed(file, each.name, ids) for each in inputs if NEARLY_NUMBERS in each.suspicious]
    if marked:
        text = (
            f"columns of {file.shown} hold numbers with a unit, a percent sign or a sign between thousands: "
            f"{_listed(marked)}; they are words to a job until the number stands alone"
        )
        yield Notice("warning", "marked_numbers", text)
    if mixed:
        text = (
            f"columns of {file.shown} hold numbers, and something else in a few rows: {_listed(mixed)}; a job refuses "
            "such cells as numbers. Correct them, or name words for a missing value with --missing"
        )
        yield Notice("warning", "nearly_numbers", text)


def _mixed(file: TableFile, name: str, ids: Sequence[str]) -> str:
    cells = cells_of(name, file.schema[name])
    is_other = number_of(name, file.schema[name], file).is_null() & cells.is_not_null() & (cells != "")
    with file.reading():
        others = file.filled(ids).filter(is_other).select(cells.first().alias("first"), pl.len().alias("rows"))
        first, rows = others.collect(engine="streaming").row(0)
    return f"{name!r} ({rows:,} cells, the first {first[:CELL_SHOWN]!r})"


def _bare_ids(file: TableFile, others: Sequence[ColumnProfile], ids: Sequence[str]) -> Iterator[Notice]:
    """Rows that hold an id alone, as a comment or a line that was cut off does."""
    if not others or not all(each.missing for each in others):
        return
    bare = file.holds_nothing([each.name for each in others]).sum()
    with file.reading():
        rows = file.filled(ids).select(bare).collect(engine="streaming").item()
    if rows:
        text = f"{rows:,} rows of {file.shown} hold an id and nothing else: is one of them a remark, or a line cut off?"
        yield Notice("warning", "bare_ids", text)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - COLUMNS_SHOWN} more" if len(names) > COLUMNS_SHOWN else ""
    return ", ".join(names[:COLUMNS_SHOWN]) + more
