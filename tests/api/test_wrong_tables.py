"""Tables as people have them, added at a server: read, told with a warning, or refused with what to do."""

import gzip
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import free_ports

ROWS = 60
DRAWN = np.random.default_rng(4).normal(size=(ROWS, 2)).round(3)
IDS = [f"c-{row:03}" for row in range(ROWS)]
FRAME = pl.DataFrame({"id": IDS, "b0": DRAWN[:, 0], "b1": DRAWN[:, 1], "y": [row % 2 for row in range(ROWS)]})
USUAL = FRAME.write_csv()
"""A good table; each case changes one thing of it."""


def cells(of: Callable[[int], object], column: str = "b0") -> str:
    """The table with other cells in one column, in quotation marks where they need them."""
    return FRAME.with_columns(pl.Series(column, [str(of(row)) for row in range(ROWS)])).write_csv()


def one_cell(cell: str, column: str = "b0") -> str:
    return cells(lambda row: cell if row == 7 else FRAME[column][row], column)


def parquet(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


@pytest.fixture(scope="module")
def party(new_party: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    server = new_party(tmp_path_factory.mktemp("wrong_tables") / "bank", "bank", {}, {}, free_ports(2))
    server.start()
    yield server
    server.close()


@pytest.fixture
def add(party: Any) -> Callable[..., Any]:
    """Add a table of these bytes as an operator does; answers status and body."""

    def add(written: str | bytes, **asked: Any) -> tuple[int, dict[str, Any]]:
        (party.folder / "table.csv").write_bytes(written.encode() if isinstance(written, str) else written)
        request = {"name": "table", "source": "table.csv", "id": ["id"], "label": "y", "replace": True} | asked
        answer = party.call("POST", "/v1/datasets", json=request)
        return answer.status_code, answer.json()

    return add


TOLD: dict[str, tuple[str | bytes, str, str]] = {
    "a header that names two columns alike": (USUAL.replace("b1", "b0", 1), "duplicate_columns", "'b0'"),
    "a comma at the end of each line": (USUAL.replace("\n", ",\n"), "empty_column", "''"),
    "a column without a value": (cells(lambda _: ""), "empty_column", "'b0'"),
    "a word among numbers": (one_cell("blue"), "nearly_numbers", "'b0' (1 cells, the first 'blue')"),
    "NaN among numbers": (one_cell("NaN"), "nearly_numbers", "the first 'NaN'"),
    "infinity among numbers": (one_cell("inf"), "nearly_numbers", "the first 'inf'"),
    "amounts with a currency": (cells(lambda row: f"€ {row}"), "marked_numbers", "'b0'"),
    "amounts with a currency behind": (cells(lambda row: f"{row}.50 EUR"), "marked_numbers", "'b0'"),
    "percent signs": (cells(lambda row: f"{row} %"), "marked_numbers", "'b0'"),
    "signs between thousands": (cells(lambda row: f"1,{row:03}.5"), "marked_numbers", "'b0'"),
    "a remark in the middle": (USUAL.replace("c-030", "# checked\nc-030"), "bare_ids", "1 rows"),
    "a last line that was cut off": (USUAL + "c-999\n", "bare_ids", "1 rows"),
    "an id that stands twice": (USUAL.replace("c-007", "c-008"), "duplicate_ids", "data rows 8 and 9 share one"),
    "ids as a spreadsheet keeps them text": (
        cells(lambda row: f'="{row:03}"', "id"),
        "odd_ids",
        "60 of 60 ids in quotation marks",
    ),
    "ids that a spreadsheet has rounded": (cells(lambda row: f"1.{row}E+17", "id"), "odd_ids", "scientific notation"),
    "a label with a gap": (one_cell("", "y"), "label_missing", "empty in 1 rows"),
    "NA where a value is missing": (one_cell("NA"), "missing_words", "'NA'"),
    "-999 where a value is missing": (cells(lambda row: -999 if row % 9 == 0 else row), "suspicious_value", "-999"),
    "one value far out": (one_cell("1e12"), "flattened_column", "'b0'"),
    "one value everywhere": (cells(lambda _: 7), "constant_column", "'b0' (7)"),
    "one column twice": (cells(lambda row: DRAWN[row, 1]), "repeated_column", "'b0'"),
    "the label among the columns": (cells(lambda row: row % 2), "label_among_columns", "'b0'"),
    "a row number": (
        "\n".join(f"{row or ''},{line}" for row, line in enumerate(USUAL.splitlines())),
        "row_number_column",
        "''",
    ),
    "addresses": (cells(lambda row: f"someone{row}@example.org"), "identifying_column", "'b0'"),
    "blank lines": (USUAL.replace("c-030", ",,,\n\nc-030"), "blank_rows", "2 rows"),
    "semicolons and decimal commas": (USUAL.replace(",", ";").replace(".", ","), "text_format", "semicolons"),
    "tabs in UTF-16": (USUAL.replace(",", "\t").encode("utf-16"), "text_format", "tabs"),
    "letters of Windows": (USUAL.replace("b1", "größe").encode("cp1252"), "text_format", "WINDOWS-1252"),
}


@pytest.mark.parametrize("case", TOLD)
def test_a_table_with_a_fault_that_a_job_would_meet_is_added_and_its_owner_warned(
    add: Callable[..., Any], case: str
) -> None:
    written, code, told = TOLD[case]
    status, body = add(written)
    assert status == 201, body
    texts = {notice["code"]: notice["text"] for notice in body["notices"]}
    assert code in texts, texts
    assert told in texts[code]
    assert code == "marked_numbers" or "marked_numbers" not in texts


def test_a_column_without_a_name_is_no_label_where_none_is_named(add: Callable[..., Any]) -> None:
    _, body = add(USUAL.replace("\n", ",\n"), label="")
    assert [notice["code"] for notice in body["notices"]] == ["empty_column"]


READ: dict[str, str | bytes] = {
    "as it should be": USUAL,
    "CR LF": USUAL.replace("\n", "\r\n"),
    "packed with gzip": gzip.compress(USUAL.encode()),
    "quotation marks": USUAL.replace("c-007", '"c-007"'),
    "Parquet": parquet(FRAME),
    "Parquet with a column of lists beside": parquet(FRAME.with_columns(pl.Series("b1", [[1, 2]] * ROWS))),
    "Parquet with a column of records beside": parquet(FRAME.with_columns(pl.struct("b0", "y").alias("b1"))),
    "categories of dates and truth values": FRAME.with_columns(
        pl.lit("2026-01-31").alias("b0") + pl.lit(""),
        pl.Series("b1", [["true", "false"][row % 2] for row in range(ROWS)]),
    ).write_csv(),
}


@pytest.mark.parametrize("case", READ)
def test_a_table_without_a_fault_is_added_without_a_warning(add: Callable[..., Any], case: str) -> None:
    status, body = add(READ[case])
    assert (status, body["rows"]) == (201, ROWS), body
    assert not [notice for notice in body["notices"] if notice["kind"] == "warning"]


REFUSED: dict[str, tuple[str | bytes, dict[str, Any], str, str, str]] = {
    "no header": (USUAL.split("\n", 1)[1], {}, "unknown_column", "no column 'id'", "Its first line looks like a row"),
    "a name in other letters": (USUAL, {"id": ["Id"]}, "unknown_column", "no column 'Id'", "Did you mean 'id'?"),
    "a header alone": ("id,b0,b1,y\n", {}, "too_few_rows", "no row", "header"),
    "an empty id": (USUAL.replace("c-007", ""), {}, "missing_value", "in data row 8", "Give each row its id"),
    "too many fields": (USUAL + "c-9,1,2,3,4,5\n", {}, "unreadable_file", "has 6 fields", "quotation marks"),
    "a folder": (USUAL, {"source": "."}, "unknown_file", "is a folder", "Name the file that holds the table"),
    "no file": (USUAL, {"source": "tabel.csv"}, "unknown_file", "there is no file", "Name the file"),
    "a gzip file that was cut off": (gzip.compress(USUAL.encode())[:200], {}, "unreadable_file", "cannot be read", ""),
    "a Parquet file that was cut off": (parquet(FRAME)[:200], {}, "unreadable_file", "cannot be read", "Parquet"),
    "the settings of a party": (
        'name = "bank"\n[server]\noperator_port = 1\n',
        {},
        "unreadable_file",
        "a file of settings",
        "the file that holds the table",
    ),
    "a web page": ("<!DOCTYPE html><html></html>", {}, "unreadable_file", "an HTML page", "Download"),
    "an encoding that it does not have": (
        USUAL.replace("b1", "größe").encode("cp1252"),
        {"encoding": "utf-8"},
        "unreadable_file",
        "is not UTF-8",
        "--encoding",
    ),
    "its id named as its label": (USUAL, {"label": "id"}, "invalid_dataset", "named twice", "once"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_table_is_refused_by_name_with_what_to_do_and_nothing_is_stored(
    party: Any, add: Callable[..., Any], case: str
) -> None:
    written, asked, code, what, fix = REFUSED[case]
    party.call("DELETE", "/v1/datasets/table")
    status, body = add(written, **asked)
    assert (status, body["code"]) == (422, code), body
    assert what in body["detail"]
    assert fix in body["hint"]
    assert body["hint"]
    assert party.call("GET", "/v1/datasets").json() == {"datasets": []}
