"""Ids are read by the words of a specification: alike at every party, and with a clear error where they cannot be."""

import unicodedata
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from alignment_parties import FIRST, specification

from parties.errors import DuplicateIds, IdType, MissingValue, UnknownColumn
from parties.tables.datasets import LoadedTable, load
from parties.tables.registered import Registered
from vfl.ids import id_hash

NFD = unicodedata.normalize("NFD", "Zoë")


def read(folder: Path, ids: Any, **rules: Any) -> LoadedTable:
    """`ids` by column, as a Parquet file holds them, or the text of a CSV file."""
    if isinstance(ids, str):
        path = folder / "table.csv"
        path.write_text(ids, "utf-8")
    else:
        path = folder / "table.parquet"
        frame = pl.DataFrame(ids)
        frame.rename({name: f"id{at}" for at, name in enumerate(frame.columns)}).write_parquet(path)
    spec = specification(**rules)
    return load(folder, {"table": Registered(source=path.name, id=("id0",))}, spec, FIRST)["rows"]


def hashes(table: LoadedTable) -> list[bytes]:
    assert table.hashed_ids is not None
    return [bytes(row) for row in table.hashed_ids.hashes]


def expected(*ids: Any) -> list[bytes]:
    return [id_hash(one if isinstance(one, tuple) else (one,)) for one in ids]


def test_a_csv_and_a_parquet_file_make_the_same_ids(tmp_path: Path) -> None:
    assert (
        hashes(read(tmp_path, "id0\na\n007\n")) == hashes(read(tmp_path, {"id": ["a", "007"]})) == expected("a", "007")
    )


@pytest.mark.parametrize(
    ("rules", "ids", "same"),
    [
        ({}, [" a ", "b\u200b", "\ufeffc"], ["a", "b", "c"]),
        ({"white_space": "keep"}, [" a ", "b"], [" a ", "b"]),
        ({"unicode": "nfc"}, [NFD, "x"], ["Zoë", "x"]),
        ({"unicode": "none"}, [NFD, "x"], [NFD, "x"]),
        ({"unicode": "nfkc"}, ["\uff21\uff11", "\ufb01"], ["A1", "fi"]),
        ({"case": "lower"}, ["ÄB", "İx"], ["äb", "i̇x"]),
        ({}, ["007", "7", "a b", "a  b"], ["007", "7", "a b", "a  b"]),
        ({"white_space": "strip", "unicode": "nfkc"}, ["a\u00a0", "b"], ["a", "b"]),
    ],
)
def test_texts_are_made_alike_as_the_specification_says_and_no_further(
    tmp_path: Path, rules: dict[str, Any], ids: list[str], same: list[str]
) -> None:
    assert hashes(read(tmp_path, {"id": ids}, **rules)) == expected(*same)


@pytest.mark.parametrize(("here", "there"), [("1", "1.0"), ("007", "7"), ("A", "a"), ("1.2E+17", "120000000000000000")])
def test_ids_that_the_rules_do_not_make_alike_stay_two(tmp_path: Path, here: str, there: str) -> None:
    assert hashes(read(tmp_path, {"id": [here]})) != hashes(read(tmp_path, {"id": [there]}))


def test_whole_numbers_are_the_same_from_numbers_and_from_digits(tmp_path: Path) -> None:
    digits = read(tmp_path, "id0\n7\n-12\n0\n", types=("integer",))
    numbers = read(tmp_path, {"id": [7, -12, 0]}, types=("integer",))
    assert hashes(digits) == hashes(numbers) == expected(7, -12, 0)


@pytest.mark.parametrize("cell", ["007", "+7", "7.0", "1.2E+17", "x", "-0", "7 8"])
def test_a_cell_that_is_no_plain_whole_number_is_refused_with_its_row(tmp_path: Path, cell: str) -> None:
    with pytest.raises(IdType, match=r"not a plain whole number in data row 2 .*"):
        read(tmp_path, f"id0\n7\n{cell}\n", types=("integer",))


def test_a_column_of_numbers_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(IdType, match="holds whole numbers, and the specification says that it is text") as refused:
        read(tmp_path, {"id": [7, 8]})
    assert 'align.types to "integer"' in refused.value.fix


@pytest.mark.parametrize("ids", [[1.0, 2.0], [True, False]])
def test_columns_of_other_types_are_refused(tmp_path: Path, ids: list[Any]) -> None:
    with pytest.raises(IdType, match="neither text nor whole numbers"):
        read(tmp_path, {"id": ids})


def test_an_id_of_several_columns_keeps_their_types_and_order(tmp_path: Path) -> None:
    table = read(tmp_path, {"a": ["de", "DE"], "b": [7, 8]}, types=("text", "integer"), case="lower")
    assert hashes(table) == expected(("de", 7), ("de", 8))
    assert table.names == ("id0", "id1")


@pytest.mark.parametrize("cell", ["", "  ", "\u200b"])
def test_an_id_without_a_letter_is_refused(tmp_path: Path, cell: str) -> None:
    with pytest.raises(MissingValue, match="is empty in data row 2"):
        read(tmp_path, f"id0,v\na,1\n{cell},2\nb,3\n")


def test_ids_that_the_rules_make_alike_are_refused_with_both_rows(tmp_path: Path) -> None:
    with pytest.raises(DuplicateIds, match=r"2 ids in 3 rows; data rows 1 and 3 share one"):
        read(tmp_path, {"id": ["a", "b", "A "]}, case="lower")


def test_of_repeated_ids_the_first_is_taken_where_the_specification_says_so(tmp_path: Path) -> None:
    table = read(tmp_path, "id0,v\na,1\n,\nb,2\na,3\n", duplicates="first")
    assert hashes(table) == expected("a", "b")
    assert table.hashed_ids is not None
    assert table.hashed_ids.rows.tolist() == [1, 3]
    assert {notice.code for notice in table.notices} >= {"repeated_ids", "blank_rows"}


@pytest.mark.parametrize(
    ("ids", "code", "told"),
    [
        (["1.2E+17", "2.0"], "odd_ids", "1 of 2 ids in scientific notation (1.2E+17)"),
        (["1.0", "2.0"], "odd_ids", "2 of 2 ids that look like floating-point numbers"),
        (["007", "8"], "ids_as_written", "1 of 2 ids with leading zeros (007 for 7)"),
        (["AB", "8"], "ids_as_written", "1 of 2 ids with capital letters"),
    ],
)
def test_what_another_party_may_write_in_another_way_is_told_to_the_owner(
    tmp_path: Path, ids: list[str], code: str, told: str
) -> None:
    notices = {notice.code: notice.text for notice in read(tmp_path, {"id": ids}).notices}
    assert told in notices[code]


def test_what_the_rules_make_alike_is_not_told(tmp_path: Path) -> None:
    assert read(tmp_path, {"id": [" 1\u200b", "2 "]}).notices == ()


def test_a_misspelt_column_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(UnknownColumn) as refused:
        read(tmp_path, "ID0\na\nb\n")
    assert "Did you mean 'ID0'?" in refused.value.fix
