"""The label party's rows are held out by a hash of their ids or by a time, and a wrong column is told by its row."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from registered_tables import in_file

from parties.dataset_errors import NotATime
from parties.errors import MissingValue
from parties.judgement import judge
from parties.settings import Acceptance
from parties.tables.datasets import load
from parties.tables.split_keys import hashes_of
from vfl.errors import ImpossibleJob, InvalidData, SpecError
from vfl.kinds import read_spec_as
from vfl.planning.training import plan, resolve
from vfl.spec.training import TrainingSpec

ROWS = 1000
SPEC = """
job = {name = "test", task = "binary"}
roster = {label = "bank", features = ["telco"]}
train = {epochs = 1, batch_rows = 100}
split = {SPLIT}
[data.bank]
dataset = "table"
columns = ["a"]
label = "y"
[data.telco]
dataset = "table"
columns = ["b"]
"""
BY_HASH, BY_TIME = 'by = "hash"', 'by = "time", time = "day"'


def specification(split: str) -> TrainingSpec:
    return resolve(read_spec_as(TrainingSpec, SPEC.replace("SPLIT", split)))


def write(folder: Path, days: Any, ids: list[Any] | None = None) -> pl.DataFrame:
    rows = len(days)
    frame = pl.DataFrame(
        {
            "id": ids or [f"c-{at}" for at in range(rows)],
            "a": np.linspace(0, 1, rows),
            "y": [at % 2 for at in range(rows)],
            "day": days,
        },
        strict=False,
    )
    frame.write_csv(folder / "table.csv")
    return frame


def keys_of(folder: Path, split: str, file: str = "table.csv") -> NDArray[np.float64]:
    keys = load(folder, {"table": in_file(file)}, specification(split), "bank")["rows"].split_keys
    assert keys is not None
    return keys


def agreed(folder: Path, split: str) -> TrainingSpec:
    accepts = Acceptance(peers=("telco",), datasets=("table",), minimum_rows=2, minimum_batch_rows=1, maximum_rho=9)
    judgement = judge(specification(split), "bank", folder, {"table": in_file()}, accepts, ())
    assert isinstance(judgement.spec, TrainingSpec)
    return judgement.spec


def test_the_same_ids_are_held_out_in_every_file_whatever_else_is_in_it(tmp_path: Path) -> None:
    def held_out(ids: list[Any]) -> set[str]:
        write(tmp_path, [0] * len(ids), ids)
        keys = keys_of(tmp_path, BY_HASH)
        return {str(ids[at]) for at in specification(BY_HASH).split.rows_of(keys)}

    ids = [f"c-{at}" for at in range(ROWS)]
    first = held_out(ids)
    assert 150 < len(first) < 250
    assert held_out([*reversed(ids[:700]), *(f"d-{at}" for at in range(300))]) & set(ids) == first & set(ids[:700])


def test_the_hash_of_an_id_is_frozen_and_does_not_hang_on_how_it_is_written() -> None:
    composed, decomposed, spaced = "M\u00fcller", "Mu\u0308ller", " M\u00fcller\u200b"
    keys = hashes_of(pl.Series([composed, decomposed, spaced, "muller", "007", "7"]))
    assert len(set(keys[:3])) == 1
    assert len(set(keys)) == 4
    assert keys[4] == pytest.approx(0.105945, abs=1e-6)


def test_the_label_party_fills_in_how_many_rows_a_hash_holds_out(tmp_path: Path) -> None:
    write(tmp_path, [0] * ROWS)
    keys = keys_of(tmp_path, BY_HASH)
    filled = agreed(tmp_path, BY_HASH).split.test_rows
    assert filled == (keys < 0.2).sum()
    assert plan(agreed(tmp_path, BY_HASH), ROWS).test_rows == filled
    with pytest.raises(ImpossibleJob, match=f"holds out {filled} of {ROWS} rows, and split.test_rows says 3"):
        agreed(tmp_path, BY_HASH + ", test_rows = 3")


@pytest.mark.parametrize(
    "days",
    [
        [float(at * 7 % 10) for at in range(10)],
        [f"2026-01-{1 + at * 7 % 10:02}" for at in range(10)],
        [f"2026-01-31 12:00:{at * 7 % 10:02}" for at in range(10)],
        [f"2026-01-31T12:00:{at * 7 % 10:02}.5Z" for at in range(10)],
        [f"2026-01-{1 + at * 7 % 10:02}" + " 08:00" * (at % 2) for at in range(10)],
    ],
)
def test_numbers_and_dates_as_they_are_usually_written_order_the_rows(tmp_path: Path, days: list[Any]) -> None:
    frame = write(tmp_path, days)
    keys = keys_of(tmp_path, BY_TIME)
    assert np.argsort(keys).tolist() == np.argsort([at * 7 % 10 for at in range(10)]).tolist()
    frame.write_parquet(tmp_path / "table.parquet")
    assert np.array_equal(keys_of(tmp_path, BY_TIME, "table.parquet"), keys)


def test_a_column_of_dates_of_parquet_does_too(tmp_path: Path) -> None:
    frame = write(tmp_path, [f"2026-01-{1 + at * 7 % 10:02}" for at in range(10)])
    expected = keys_of(tmp_path, BY_TIME)
    frame.with_columns(pl.col("day").str.to_date()).write_parquet(tmp_path / "table.parquet")
    assert np.array_equal(keys_of(tmp_path, BY_TIME, "table.parquet"), expected)


def test_rows_of_one_day_stay_together(tmp_path: Path) -> None:
    write(tmp_path, [1] * 700 + [2] * 150 + [3] * 150)
    spec = agreed(tmp_path, BY_TIME)
    assert spec.split.test_rows == 300
    keys = keys_of(tmp_path, BY_TIME)
    assert spec.split.rows_of(keys).tolist() == list(range(700, 1000))


def test_days_of_which_none_is_newest_hold_nothing_out(tmp_path: Path) -> None:
    write(tmp_path, ["2026-01-31"] * ROWS)
    with pytest.raises(ImpossibleJob, match=r"split\.by = time holds out 0 of 1000 rows"):
        agreed(tmp_path, BY_TIME)


@pytest.mark.parametrize(
    ("cell", "error", "told"),
    [
        ("soon", NotATime, "table.csv: column 'day' is neither a number nor a date in data row 5: 'soon'"),
        ("31.01.2026", NotATime, "neither a number nor a date in data row 5: '31.01.2026'"),
        ("12", NotATime, "neither a number nor a date in data row 5: '12'"),
        ("", MissingValue, "column 'day' is empty in data row 5"),
        (None, MissingValue, "column 'day' is empty in data row 5"),
    ],
)
def test_a_cell_that_is_no_time_is_told_by_its_row(
    tmp_path: Path, cell: str | None, error: type[InvalidData], told: str
) -> None:
    days: list[str | None] = [f"2026-01-{1 + at:02}" for at in range(10)]
    days[4] = cell
    write(tmp_path, days)
    with pytest.raises(error) as refused:
        keys_of(tmp_path, BY_TIME)
    assert told in str(refused.value)
    assert "2026-01-31T12:00:00" in refused.value.fix


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ('by = "time"', "split.time names the column of split.by = time"),
        ('by = "hash", time = "day"', "split.time names the column of split.by = time"),
        ('by = "time", time = "a"', "split.time names 'a', which is among the inputs or is the label"),
        ('by = "time", time = "y"', "split.time names 'y', which is among the inputs or is the label"),
        ('by = "hash", stratify = true', "split.stratify goes with split.by = random"),
        ("test_rows = 10", "split.test_rows is for split.by = hash or time"),
        ('by = "date"', "by"),
    ],
)
def test_a_split_that_contradicts_itself_is_refused_by_name(split: str, told: str) -> None:
    with pytest.raises(SpecError) as refused:
        specification(split)
    assert told in f"{refused.value} {refused.value.fix}"
