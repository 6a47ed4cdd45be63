"""What an added table looks like to its owner: types, gaps, values, range, and what is suspicious."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from parties.dataset_errors import InvalidDataset
from parties.errors import MissingValue, UnknownColumn
from parties.tables.addition import Addition, Examined, examine
from parties.tables.profile import ColumnProfile

ROWS = 200
NUMBER = pl.int_range(pl.len())
"""Of a row."""


def frame() -> pl.DataFrame:
    random = np.random.default_rng(2)
    return pl.DataFrame(
        {
            "id": [f"c-{row}" for row in range(ROWS)],
            "age": random.integers(18, 90, ROWS),
            "income": random.normal(40, 9, ROWS).round(3),
            "plan": random.choice(["basic", "plus", "pro"], ROWS),
            "since": [f"20{10 + row % 10}-0{1 + row % 9}-15" for row in range(ROWS)],
            "mail": [f"someone{row}@example.org" for row in range(ROWS)],
            "zip": [f"{row % 50:05}" for row in range(ROWS)],
            "row": range(1, ROWS + 1),
            "same": [7] * ROWS,
            "nothing": [None] * ROWS,
            "active": [["true", "false"][row % 2] for row in range(ROWS)],
            "default": [row % 3 == 0 for row in range(ROWS)],
        },
        schema_overrides={"nothing": pl.String},
    )


def added(folder: Path, table: pl.DataFrame, kind: str = "csv", **said: object) -> Examined:
    path = folder / f"table.{kind}"
    getattr(table, {"csv": "write_csv", "parquet": "write_parquet", "arrow": "write_ipc"}[kind])(path)
    said.setdefault("id", ("id",))
    return examine(folder, Addition(source=path.name, **said))  # type: ignore[arg-type]


def columns(examined: Examined) -> dict[str, ColumnProfile]:
    return {column.name: column for column in examined.profile.columns}


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_each_column_has_a_type_its_gaps_and_its_range(tmp_path: Path, kind: str) -> None:
    table = frame().with_columns(pl.when(NUMBER % 10 != 3).then(pl.col("income")).alias("income"))
    found = columns(added(tmp_path, table, kind, label="default"))
    types = {name: column.type for name, column in found.items()}
    assert types == {
        "id": "text",
        "age": "integer",
        "income": "number",
        "plan": "text",
        "since": "date",
        "mail": "text",
        "zip": "text",
        "row": "integer",
        "same": "integer",
        "nothing": "empty",
        "active": "boolean",
        "default": "boolean",
    }
    assert (found["income"].missing, found["nothing"].missing, found["age"].missing) == (20, ROWS, 0)
    assert (found["age"].least, found["age"].greatest) == (table["age"].min(), table["age"].max())
    assert found["income"].mean == pytest.approx(table["income"].mean())
    assert found["since"].least == "2010-01-15"
    assert found["plan"].distinct == 3
    assert sum(common.rows for common in found["plan"].common) == ROWS


def test_what_is_suspicious_is_named_in_the_profile_and_as_a_warning(tmp_path: Path) -> None:
    table = frame().with_columns(pl.when(NUMBER % 9 == 0).then(-999).otherwise(pl.col("age")).alias("age"))
    examined = added(tmp_path, table)
    suspicious = {name: column.suspicious for name, column in columns(examined).items() if column.suspicious}
    assert suspicious == {
        "id": ("all different",),
        "mail": ("all different", "e-mail"),
        "row": ("all different", "sequence"),
        "same": ("constant",),
    }
    told = {notice.code: notice.text for notice in examined.notices}
    assert "'age' (-999 in 23 of 200 rows" in told["suspicious_value"]
    assert "'mail'" in told["identifying_column"]
    assert "'id'" not in told["identifying_column"]
    assert "'same' (7)" in told["constant_column"]
    assert "'row'" in told["row_number_column"]


def test_words_for_missing_values_among_numbers_are_found_said_and_stored(tmp_path: Path) -> None:
    table = frame().with_columns(
        pl.when(NUMBER % 7 == 0)
        .then(pl.lit("NA"))
        .when(NUMBER % 7 == 1)
        .then(pl.lit("?"))
        .otherwise(pl.col("age").cast(pl.String))
        .alias("age")
    )
    examined = added(tmp_path, table)
    assert examined.registered.missing == ("?", "NA")
    assert "missing_words" in {notice.code for notice in examined.notices}
    age = columns(examined)["age"]
    assert (age.type, age.missing) == ("integer", 29 + 29)
    stated = added(tmp_path, table, missing=("NA",))
    assert columns(stated)["age"].type == "text"
    assert columns(stated)["age"].missing == 29


def test_a_word_that_may_be_a_category_is_not_taken_for_missing(tmp_path: Path) -> None:
    table = frame().with_columns(
        pl.when(NUMBER % 7 == 0).then(pl.lit("unknown")).otherwise(pl.col("plan")).alias("plan")
    )
    assert not added(tmp_path, table).registered.missing


def test_several_columns_make_an_id_together(tmp_path: Path) -> None:
    table = frame().with_columns((NUMBER % 20).alias("part"), (NUMBER // 20).alias("id"))
    assert "duplicate_ids" not in {notice.code for notice in added(tmp_path, table, id=("id", "part")).notices}
    assert "duplicate_ids" in {notice.code for notice in added(tmp_path, table, id=("id",)).notices}


def test_what_cannot_be_added_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="no column of ids"):
        added(tmp_path, frame(), id=())
    with pytest.raises(InvalidDataset, match="named twice"):
        added(tmp_path, frame(), label="id")
    with pytest.raises(UnknownColumn, match="no column 'Id'") as refused:
        added(tmp_path, frame(), id=("Id",))
    assert "Did you mean 'id'?" in refused.value.fix
    gaps = frame().with_columns(pl.when(NUMBER == 4).then(None).otherwise(pl.col("id")).alias("id"))
    with pytest.raises(MissingValue, match="the id column 'id' is empty in data row 5"):
        added(tmp_path, gaps)
