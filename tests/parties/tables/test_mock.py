"""A table to give to a peer: the columns and types of the real one, and nothing that stands in it."""

from pathlib import Path

import numpy as np
import polars as pl

from parties.tables.addition import Addition, examine
from parties.tables.mock import mock_table

ROWS = 321


def real() -> pl.DataFrame:
    random = np.random.default_rng(5)
    return pl.DataFrame(
        {
            "id": [f"person-{at}" for at in range(ROWS)],
            "age": random.integers(1000, 2000, ROWS),
            "income": random.normal(1e6, 10, ROWS),
            "plan": random.choice(["gold", "silver"], ROWS),
            "since": ["1999-12-31"] * ROWS,
            "risk": random.choice(["low", "middle", "high"], ROWS),
        }
    )


def test_a_mock_has_the_same_columns_and_types_and_no_value_of_the_table(tmp_path: Path) -> None:
    table = real()
    table.write_csv(tmp_path / "real.csv")
    examined = examine(tmp_path, Addition(source="real.csv", id=("id",), label="risk"))
    mock = mock_table(examined.registered, examined.profile, 200, 0)
    mock.write_csv(tmp_path / "mock.csv")
    of_mock = examine(tmp_path, Addition(source="mock.csv", id=("id",), label="risk"))
    assert [(each.name, each.type) for each in of_mock.profile.columns] == [
        (each.name, each.type) for each in examined.profile.columns
    ]
    assert mock["risk"].n_unique() == 3
    assert mock["id"].n_unique() == mock.height == 200
    for name in table.columns:
        assert set(mock[name].cast(pl.String)).isdisjoint(table[name].cast(pl.String)), name


def test_a_mock_depends_on_names_types_and_seed_alone(tmp_path: Path) -> None:
    real().write_csv(tmp_path / "real.csv")
    other = real().head(40).with_columns((pl.col("age") // 7).alias("age"), pl.lit("bronze").alias("plan"))
    other.write_csv(tmp_path / "other.csv")
    first, second = (
        examine(tmp_path, Addition(source=f"{name}.csv", id=("id",), label="risk")) for name in ("real", "other")
    )
    made = mock_table(first.registered, first.profile, 50, 7)
    assert made.equals(mock_table(second.registered, second.profile, 50, 7))
    assert not made.equals(mock_table(first.registered, first.profile, 50, 8))
