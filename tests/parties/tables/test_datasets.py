"""A table enters a job only when every cell of it fits; else the error names file, column and row."""

import contextlib
import datetime as dt
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from registered_tables import in_file

from parties.disclosure import redacted_for_peer
from parties.errors import (
    ConstantLabel,
    DuplicateColumns,
    DuplicateIds,
    Failure,
    IdAmongColumns,
    LabelInFeatureFile,
    LabelsNotBinary,
    MissingValue,
    NonNumericCell,
    NotFinite,
    TooFewRows,
    UnknownColumn,
    UnknownDataset,
    UnknownFile,
    UnreadableFile,
)
from parties.tables import datasets
from parties.tables.datasets import LoadedTable, ids_digest
from parties.tables.table_files import reading
from vfl.errors import InvalidData
from vfl.kinds import read_spec_as
from vfl.spec.rounds import RoundsSpec
from vfl.spec.training import TrainingSpec

Load = Callable[..., LoadedTable]

LABEL_FILE = "id,a,b,y\n007,1,2.5,0\n8,3,-4e-1,1\n9, 5 ,6,1\n"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(
        text: str = LABEL_FILE, *, task: str = "binary", me: str = "bank", dataset: str = "table"
    ) -> LoadedTable:
        (tmp_path / "table.csv").write_text(text)
        spec = read_spec_as(
            TrainingSpec,
            f"""
[job]
name = "test"
task = "{task}"
[roster]
label = "bank"
features = ["telco"]
[data.bank]
dataset = "{dataset}"
columns = ["b", "a"]
label = "y"
[data.telco]
dataset = "table"
columns = ["a"]
[train]
epochs = 1
batch_rows = 2
""",
        )
        return datasets.load(tmp_path, {"table": in_file()}, spec, me)["rows"]

    return loaded


SHARED = """
job = {name = "test", protocol = "rounds", task = "binary"}
roster = {aggregator = "hub", clients = ["ada", "bob", "cyd"]}
train = {batch_rows = 10}
model = {network = "mlp", hidden = [4], input_shape = [2], input_range = [0.0, 1.0], label = "y"}
data = {hub = {test = "table", shared = "table"}, ada = {dataset = "t"}, bob = {dataset = "t"}, cyd = {dataset = "t"}}
[rounds]
rounds = 5
min_clients = 2
parts = ["shared_data"]
shared_data = {rule = "share"}
"""


def test_shared_rows_larger_than_a_client_takes_are_refused_before_the_job_is_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "table.csv").write_text("\n".join(["id,a,b,y", *(f"{row},0.5,0.1,{row % 2}" for row in range(100))]))
    registered = {"table": in_file()}
    handed_out, kept = (
        read_spec_as(RoundsSpec, SHARED.replace('share"}', f'{rule}"}}')) for rule in ("share", "feddu")
    )
    for most, spec in ((1200, handed_out), (1199, kept)):
        monkeypatch.setattr(datasets, "HANDED_OUT_BYTES", most)
        assert datasets.load(tmp_path, registered, spec, "hub")["shared"].rows == 100
    with pytest.raises(InvalidData, match="would have 1200 bytes") as refused:
        datasets.load(tmp_path, registered, handed_out, "hub")
    assert "another rule" in refused.value.fix


def test_columns_come_in_the_order_of_the_specification_and_ids_as_they_are_written(load: Load) -> None:
    table = load()
    assert table.ids.to_list() == ["007", "8", "9"]
    assert table.columns.tolist() == [[2.5, 1.0], [-0.4, 3.0], [6.0, 5.0]]
    assert table.labels is not None
    assert table.labels.tolist() == [0.0, 1.0, 1.0]


def test_the_table_names_the_bytes_of_its_file(load: Load) -> None:
    digest = hashlib.sha256(LABEL_FILE.encode()).hexdigest()
    assert load().digest == digest
    assert load(LABEL_FILE + "10,1,1,0\n").digest != digest


def test_parquet_gives_the_same_table(load: Load, tmp_path: Path) -> None:
    expected = load()
    frame = pl.DataFrame({"id": ["007", "8", "9"], "a": [1, 3, 5], "b": [2.5, -0.4, 6.0], "y": [0, 1, 1]})
    frame.write_parquet(tmp_path / "table.parquet")
    spec = read_spec_as(TrainingSpec, SPEC)
    table = datasets.load(tmp_path, {"table": in_file("table.parquet")}, spec, "bank")["rows"]
    assert table.ids.equals(expected.ids)
    assert np.array_equal(table.columns, expected.columns)


SPEC = """
job = {name = "test", task = "binary"}
roster = {label = "bank", features = ["telco"]}
train = {epochs = 1, batch_rows = 2}
[data]
bank = {dataset = "table", columns = ["b", "a"], label = "y"}
telco = {dataset = "table", columns = ["a"]}
"""


@pytest.mark.parametrize(
    ("text", "error", "told"),
    [
        ("id,a,b,y\n1,x,2,0\n2,3,4,1\n", NonNumericCell, "column 'a' is not a number in data row 1: 'x'"),
        ("id,a,b,y\n1,1,,0\n2,3,4,1\n", MissingValue, "column 'b' is empty in data row 1"),
        ("id,a,b,y\n1,1,2,0\n2,3,,1\n3,1,,1\n", MissingValue, "data row 2 (and in 1 more)"),
        ("id,a,b,y\n1,1,2,0\n2,nan,4,1\n", NotFinite, "column 'a' is not finite in data row 2"),
        ("id,a,b,y\n1,1,2,0\n2,3,-inf,1\n", NotFinite, "column 'b' is not finite in data row 2"),
        ("id,a,b,y\n1,1,2,0\n1,3,4,1\n", DuplicateIds, "data rows 1 and 2 share one"),
        ("id,a,b,y\n1,1,2,0\n,3,4,1\n", MissingValue, "the id column 'id' is empty in data row 2"),
        ("id,a,B,y\n1,1,2,0\n2,3,4,1\n", UnknownColumn, "table.csv of bank has no column 'b'"),
        ("id,a,b,y\n1,1,2,0\n", TooFewRows, "has 1 rows"),
        ("id,a,b,y\n1,1,2,1\n2,3,4,1\n", ConstantLabel, "the label 'y' is 1 in every row"),
        ("id,a,b,y\n1,1,2,1\n2,3,4,2\n3,1,1,5\n", LabelsNotBinary, "must have two values; it holds 3: 1, 2, 5"),
        ("", UnreadableFile, "table.csv of bank is empty"),
        ("id,a,b,y\n1,1,2,0\n2,3,1e200,1\n", NotFinite, "column 'b' is beyond 1e+100 in data row 2"),
        ("id,a,b,y\n1,1,2,0\n2,3,4,1,9\n", UnreadableFile, "table.csv of bank: line 3 has 5 fields, the header 4"),
        ("id,a,b,b,y\n1,1,2,3,0\n2,3,4,5,1\n", DuplicateColumns, "table.csv of bank has two columns 'b'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_by_name(
    load: Load, text: str, error: type[InvalidData], told: str
) -> None:
    with pytest.raises(error) as refused:
        load(text)
    assert told in str(refused.value)


def test_all_that_is_wrong_in_a_column_is_named_at_once(load: Load) -> None:
    with pytest.raises(MissingValue) as refused:
        load("id,a,b,y\n1,NA,2,0\n2,,4,1\n3,inf,5,1\n4,,6,0\n5,1e200,7,0\n")
    assert str(refused.value).endswith(
        "column 'a' is empty in data row 2 (and in 1 more); it is not a number in data row 1: 'NA'; "
        "it is not finite in data row 3: 'inf'; it is beyond 1e+100 in data row 5: '1e200'"
    )
    assert "'NA' seems to stand for a missing value" in refused.value.fix
    assert "Bring the column to a smaller unit" in refused.value.fix


@pytest.mark.parametrize(
    "text", ["\ufeff" + LABEL_FILE, LABEL_FILE.replace("\n", "\r\n"), LABEL_FILE.replace("007", '"007"')]
)
def test_a_byte_order_mark_line_ends_and_quotes_change_nothing(load: Load, text: str) -> None:
    assert (load(text).ids.to_list(), load(text).columns.tolist()) == (load().ids.to_list(), load().columns.tolist())


@pytest.mark.parametrize(
    "values",
    [
        [[1.0], [2.0]],
        [{"x": 1}, {"x": 2}],
        [b"1", b"\xff"],
        [dt.date(2020, 1, 1)] * 2,
        pl.Series(["1", "x"], dtype=pl.Categorical),
    ],
)
def test_a_parquet_column_of_another_type_is_no_column_of_numbers(tmp_path: Path, values: Any) -> None:
    pl.DataFrame({"id": ["1", "2"], "a": values, "b": [1, 2], "y": [0, 1]}).write_parquet(tmp_path / "table.parquet")
    with pytest.raises(NonNumericCell, match="column 'a'"):
        datasets.load(
            tmp_path,
            {"table": in_file("table.parquet")},
            read_spec_as(TrainingSpec, SPEC),
            "bank",
        )


def test_a_damaged_parquet_file_ends_in_a_named_error_wherever_the_damage_is(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pl.DataFrame({"id": ["1", "2"], "a": [1, 3], "b": [2.0, 4.0], "y": [0, 1]}).write_parquet(path)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for position in random.integers(0, len(whole), 8):
            damaged[position] = int(random.integers(0, 256))
        path.write_bytes(damaged)
        with contextlib.suppress(InvalidData):
            datasets.load(
                tmp_path,
                {"table": in_file("table.parquet")},
                read_spec_as(TrainingSpec, SPEC),
                "bank",
            )


def test_a_panic_of_the_reader_is_an_unreadable_file() -> None:
    with (
        pytest.raises(UnreadableFile, match="cannot be read: called"),
        reading("table.parquet"),
    ):
        raise pl.exceptions.PanicException("called `Option::unwrap()` on a `None` value")


def test_an_id_is_nothing_to_train_on(load: Load, tmp_path: Path) -> None:
    load()
    with pytest.raises(IdAmongColumns, match="'id', the id column"):
        datasets.load(
            tmp_path,
            {"table": in_file()},
            read_spec_as(
                TrainingSpec,
                SPEC.replace('columns = ["a"]', 'columns = ["a", "id"]').replace('label = "y"', 'label = "id"'),
            ),
            "bank",
        )


def test_the_number_of_classes_and_what_stands_for_each_come_with_the_table(load: Load) -> None:
    table = load("id,a,b,y\n1,1,2,5\n2,3,4,1\n3,1,1,2\n", task="multiclass")
    assert (datasets.classes_of(table), table.classes) == (3, ("1", "2", "5"))
    assert table.labels is not None
    assert table.labels.tolist() == [2.0, 0.0, 1.0]
    assert [notice.code for notice in table.notices] == ["class_values", "rare_class"]


def test_a_feature_file_with_the_label_in_it_is_refused(load: Load) -> None:
    with pytest.raises(LabelInFeatureFile, match="label in the feature file"):
        load(me="telco")


def test_unknown_data_sets_and_files_are_named(load: Load, tmp_path: Path) -> None:
    with pytest.raises(UnknownDataset) as refused:
        load(dataset="tabel")
    assert "'table'" in refused.value.fix
    with pytest.raises(UnknownFile):
        datasets.load(tmp_path, {"table": in_file("none.csv")}, read_spec_as(TrainingSpec, SPEC), "bank")


def test_the_peer_never_reads_a_value_of_a_table(load: Load) -> None:
    with pytest.raises(NonNumericCell) as refused:
        load("id,a,b,y\n1,secret,2,0\n2,3,4,1\n")
    reason = redacted_for_peer(Failure.of(refused.value, "bank"))
    assert reason.code == "invalid_data"
    assert "secret" not in reason.message + reason.fix
    assert "row" not in reason.message


def test_the_digest_of_ids_depends_on_seed_order_and_borders() -> None:
    digests = {
        ids_digest(b"seed", ("ab", "c")),
        ids_digest(b"seed", ("a", "bc")),
        ids_digest(b"seed", ("c", "ab")),
        ids_digest(b"other", ("ab", "c")),
        ids_digest(b"seed", ("ab", "c", "")),
    }
    assert len(digests) == 5
