"""A made-up table with the columns of a data set, to be given to a peer who develops against it.

It is drawn from the names and types of the columns alone: no value, range, share, category or number of rows of the
real table enters it. Of the label it has as many different values as the real one, which a specification tells too.
"""

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from parties.tables.profile import ColumnProfile, Profile
from parties.tables.registered import Registered

WORDS = tuple(f"word-{at}" for at in range(1, 6))
MOST_CLASSES = 20
FIRST_DAY = np.datetime64("2000-01-01")

Draw = Callable[[np.random.Generator, int], pl.Series]
_DRAWS: Mapping[str, Draw] = {
    "integer": lambda random, rows: pl.Series(random.integers(0, 100, rows)),
    "number": lambda random, rows: pl.Series(random.normal(size=rows).round(3)),
    "boolean": lambda random, rows: pl.Series(random.random(rows) < 0.5),
    "date": lambda random, rows: pl.Series(FIRST_DAY + random.integers(0, 9000, rows).astype("timedelta64[D]")),
    "text": lambda random, rows: pl.Series(random.choice(WORDS, rows)),
    "empty": lambda _, rows: pl.Series([None] * rows, dtype=pl.String),
    "other": lambda random, rows: pl.Series(random.choice(WORDS, rows)),
}


def mock_table(registered: Registered, profile: Profile, rows: int, seed: int) -> pl.DataFrame:
    """The same seed gives the same table."""
    random = np.random.default_rng(seed)
    columns = [_column(each, registered, random, rows).alias(each.name) for each in profile.columns]
    return pl.DataFrame(columns)


def _column(column: ColumnProfile, registered: Registered, random: np.random.Generator, rows: int) -> pl.Series:
    if column.name in registered.id:
        numbers = range(1, rows + 1)
        return pl.Series(numbers) if column.type == "integer" else pl.Series([f"id-{at:06}" for at in numbers])
    classes = min(column.distinct, MOST_CLASSES)
    if column.name == registered.label and column.type != "number" and classes:
        codes = random.integers(0, classes, rows)
        return pl.Series(codes if column.type == "integer" else [f"class-{code + 1}" for code in codes])
    return _DRAWS[column.type](random, rows)
