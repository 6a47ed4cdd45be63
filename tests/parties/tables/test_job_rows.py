"""The rows of a job are read some at a time into a file without a name, and are those that the whole file holds."""

import gc
import hashlib
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from registered_tables import in_file

from parties.errors import MissingValue, NonNumericCell, TooFewRows
from parties.tables import table_files
from parties.tables.aligned_rows import AlignedRows
from parties.tables.datasets import LoadedTable, load
from parties.worker.mapped_rows import mapped, release
from vfl.kinds import read_spec_as
from vfl.spec.training import TrainingSpec

ROWS = 500
SPEC = """
job = {name = "test", task = "binary"}
roster = {label = "bank", features = ["telco"]}
train = {epochs = 1, batch_rows = 100}
ALIGNED
[data.bank]
dataset = "table"
columns = ["a", "plan", "b"]
label = "y"
prepare = [{columns = ["plan"], kind = "one_hot", categories = 2}, {columns = ["b"], kind = "bins", edges = 1}]
[data.telco]
dataset = "table"
columns = ["a"]
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    """In a file of many batches, with a blank row near its end."""
    monkeypatch.setattr(table_files, "BATCH_ROWS", 64)
    random = np.random.default_rng(6)
    frame = pl.DataFrame(
        {
            "id": [f"c-{at}" for at in range(ROWS)],
            "a": random.normal(size=ROWS),
            "plan": random.choice(["pro", "basic", "plus"], ROWS),
            "b": random.integers(0, 9, ROWS),
            "y": [at % 2 for at in range(ROWS)],
        }
    )
    lines = frame.write_csv().splitlines()
    (tmp_path / "table.csv").write_text("\n".join([*lines[:450], ",,,,", *lines[450:]]) + "\n")
    return frame


def loaded(folder: Path, *, room: bool = True, aligned: AlignedRows | None = None) -> LoadedTable:
    text = SPEC.replace("ALIGNED", 'rows = {alignment = "x"}' if aligned else "")
    spec, find = read_spec_as(TrainingSpec, text), None if aligned is None else lambda _: aligned
    return load(folder, {"table": in_file()}, spec, "bank", find, folder if room else None)["rows"]


def test_rows_in_a_file_are_those_in_memory_and_the_file_has_no_name(table: pl.DataFrame, tmp_path: Path) -> None:
    names = set(tmp_path.iterdir())
    in_memory, in_a_file = loaded(tmp_path, room=False), loaded(tmp_path)
    assert set(tmp_path.iterdir()) == names
    assert in_memory.file is None
    assert in_a_file.file is not None
    assert np.array_equal(in_memory.columns, in_a_file.columns)
    assert np.array_equal(in_a_file.columns[:, 0], table["a"].to_numpy())
    words = in_a_file.words[1]
    assert [words[int(code)] for code in in_a_file.columns[:, 1]] == table["plan"].to_list()
    assert in_a_file.ids.equals(table["id"].alias(in_a_file.ids.name))
    assert [notice.code for notice in in_a_file.notices][:1] == ["blank_rows"]


def test_another_process_that_is_given_the_descriptor_reads_the_same_numbers(
    table: pl.DataFrame, tmp_path: Path
) -> None:
    rows = loaded(tmp_path)
    assert rows.file is not None
    other = os.dup(rows.file.descriptor)
    expected, descriptor = rows.columns.copy(), rows.file.descriptor
    release(rows.columns)
    assert np.array_equal(rows.columns, expected), "pages that left memory are read again"
    del rows
    gc.collect()
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)
    assert np.array_equal(mapped(other).reshape(ROWS, 3), expected)
    os.close(other)


def test_an_alignment_takes_its_rows_in_its_order_and_no_other_row_matters(table: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(path.read_text().replace("c-3,", "c-3,nonsense"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    numbers = np.array([452, 10, 200])  # the blank row is number 450
    aligned = AlignedRows("d" * 64, frozenset({"bank", "telco"}), "table", digest, numbers)
    rows = loaded(tmp_path, aligned=aligned)
    assert rows.columns[:, 0].tolist() == [table["a"][at] for at in (450, 9, 199)]
    assert rows.order_digest == "d" * 64
    assert len(rows.ids) == 0
    wanting = AlignedRows("d" * 64, frozenset({"bank", "telco"}), "table", digest, np.array([1, 4]))
    with pytest.raises(NonNumericCell, match="column 'a' is not a number in data row 4"):
        loaded(tmp_path, aligned=wanting)


def test_what_is_wrong_is_told_of_the_whole_column_and_not_of_some_rows(table: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    text = path.read_text()
    for at in (70, 300, 499):
        text = text.replace(f"c-{at},", f"c-{at},,", 1).replace(f",,{table['a'][at]}", ",", 1)
    path.write_text(text)
    with pytest.raises(MissingValue) as refused:
        loaded(tmp_path)
    assert "column 'a' is empty in data row 71 (and in 2 more)" in str(refused.value)


def test_an_alignment_without_a_row_is_too_few_rows_for_any_job(table: pl.DataFrame, tmp_path: Path) -> None:
    digest = hashlib.sha256((tmp_path / "table.csv").read_bytes()).hexdigest()
    nothing = AlignedRows("d" * 64, frozenset({"bank", "telco"}), "table", digest, np.zeros(0, np.int64))
    with pytest.raises(TooFewRows, match="has 0 rows"):
        loaded(tmp_path, aligned=nothing)
