"""Two files as people have them, given to `vfl demo`: what cannot be read is named, and the way out is said."""

import gzip
import io
import json
import sqlite3
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from api.cli.main import main
from api.demo.training.own_tables import own_tables

ROWS = 120

Refused = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def base() -> tuple[str, str]:
    """(label file, feature file) as CSV text; they fit each other."""
    random = np.random.default_rng(10)
    values = random.normal(size=(ROWS, 6)).round(4)
    labels = (values.sum(axis=1) > 0).astype(int)
    label = [
        "id,a0,a1,y",
        *(f"c-{row:05},{v[0]},{v[1]},{y}" for row, (v, y) in enumerate(zip(values, labels, strict=True))),
    ]
    feature = ["id,b0,b1,b2,b3", *(f"c-{row:05},{v[2]},{v[3]},{v[4]},{v[5]}" for row, v in enumerate(values))]
    return "\n".join(label) + "\n", "\n".join(feature) + "\n"


@pytest.fixture
def refused(
    base: tuple[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Refused:
    """Give these two files to the demonstration; answers the envelope of its refusal, before anything is written."""

    def refused(
        label: str | bytes = base[0], feature: str | bytes = base[1], *more: str, ending: str = "csv"
    ) -> dict[str, Any]:
        folder = tmp_path / "files"
        folder.mkdir(exist_ok=True)
        paths = (folder / f"bank.{ending}", folder / f"telco.{ending}")
        for path, content in zip(paths, (label, feature), strict=True):
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        monkeypatch.chdir(tmp_path)
        command = ["demo", "--label-file", str(paths[0]), "--feature-file", str(paths[1]), "--format", "json"]
        with pytest.raises(SystemExit) as end:
            main([*command, "--id", "id", "--label", "y", *more])
        assert end.value.code == 4
        answer: dict[str, Any] = json.loads(capfd.readouterr().out)
        assert not (tmp_path / "vfl-demo").exists()
        shown = answer["message"] + answer["hint"]
        assert shown.isprintable(), "no letters of a file steer a terminal"
        assert "\ufffd" not in shown
        return answer

    return refused


def converted(text: str, write: Callable[[pl.DataFrame, io.BytesIO], Any]) -> bytes:
    """The table in another program's form."""
    file = io.BytesIO()
    write(pl.read_csv(text.encode()), file)
    return file.getvalue()


def zipped(name: str, content: bytes = b"<worksheet/>") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def tarred(text: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("telco.csv")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text.encode()))
    return file.getvalue()


def database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.execute("create table telco (id text)")
    return connection.serialize()


FOREIGN: list[tuple[Callable[[str], str | bytes], str, str]] = [
    (lambda text: text.replace(",", " "), "spaces between its fields", "commas between the fields"),
    (lambda text: text.replace("\n", "\r"), "old Macintosh", "LF"),
    # Other programs' files, and packed ones.
    (lambda _: zipped("xl/workbook.xml"), "an Excel workbook (.xlsx)", "save the table as CSV"),
    (
        lambda _: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512),
        "an old Excel workbook (.xls)",
        "save the table as CSV",
    ),
    (
        lambda _: zipped("mimetype", b"application/vnd.oasis.opendocument.spreadsheet"),
        "an OpenDocument spreadsheet",
        "save the table as CSV",
    ),
    (lambda text: zipped("telco.csv", text.encode()), "a zip archive", "Unpack it"),
    (
        lambda text: gzip.compress(zipped("telco.csv", text.encode())),
        "unpacked with gzip, is a zip archive",
        "Unpack it",
    ),
    (tarred, "a tar archive", "Unpack it"),
    (lambda text: converted(text, pl.DataFrame.write_ndjson), "JSON lines", "Parquet or CSV"),
    (lambda text: converted(text, pl.DataFrame.write_json), "is JSON", "Parquet or CSV"),
    (lambda _: b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file", "Parquet or CSV"),
    (lambda _: database(), "an SQLite database", "Export the table as CSV"),
    (lambda _: b"\x80\x04\x95\x0b\x00\x00\x00", "a Python pickle", "Parquet or CSV"),
    (lambda _: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF document", "save the table as CSV"),
    # What stands in a table's place.
    (
        lambda _: "<!DOCTYPE html>\n<html><body>Please log in</body></html>\n",
        "an HTML page",
        "Download the table again",
    ),
    (lambda _: '<?xml version="1.0"?>\n<Workbook/>\n', "an XML document", "save the table as CSV"),
    (
        lambda _: f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n",
        "a Git LFS pointer",
        "git lfs pull",
    ),
    (lambda _: "/annex/objects/SHA256E-s1--00.csv\n", "a git-annex pointer", "git annex get"),
    (lambda _: '# who we are\nname = "bank"\n\n[server]\n', "a file of settings (TOML or INI)", "holds the table"),
    (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(64), "an image", "the file that holds the table"),
    (lambda _: bytes(range(256)) * 8, "is no text", "CSV"),
    (lambda _: "", "is empty", "header line"),
    (lambda _: " \n\n", "is empty", "header line"),
    # Damaged rows.
    (lambda text: text + "c-9,1,2,3,4,5\n", f"line {ROWS + 2} has 6 fields, the header 5", "quotation marks"),
    (lambda text: text + 'c-9,1,"2,3,4\n', f"a quotation mark in or after line {ROWS + 2} is not closed", "Close it"),
]


def decimal_commas(text: str) -> str:
    return text.replace(",", ";").replace(".", ",")


READ: dict[str, Callable[[str], str | bytes]] = {
    "semicolons": lambda text: text.replace(",", ";"),
    "tabs": lambda text: text.replace(",", "\t"),
    "pipe signs": lambda text: text.replace(",", "|"),
    "decimal commas": decimal_commas,
    "sep=;": lambda text: "sep=;\n" + text.replace(",", ";"),
    "a comment": lambda text: "# exported on Monday\n" + text,
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-32": lambda text: text.encode("utf-32"),
    "Arrow": lambda text: converted(text, pl.DataFrame.write_ipc),
    "an Arrow stream": lambda text: converted(text, pl.DataFrame.write_ipc_stream),
    "Parquet": lambda text: converted(text, pl.DataFrame.write_parquet),
}


@pytest.mark.parametrize("way", READ)
def test_a_file_written_in_another_way_is_read_as_the_same_table(
    base: tuple[str, str], tmp_path: Path, way: str
) -> None:
    label, feature = tmp_path / "bank.csv", tmp_path / "telco.csv"
    label.write_text(base[0])
    written = READ[way](base[1])
    feature.write_bytes(written.encode() if isinstance(written, str) else written)
    table = own_tables(label, feature, "id", "y", None)
    numbers = table.feature_file.select(pl.exclude("id").cast(pl.Float64))
    assert numbers.equals(pl.read_csv(base[1].encode()).select(pl.exclude("id").cast(pl.Float64)))
    guesses = {notice.code for notice in table.guesses}
    assert ("text_format" in guesses) == (way not in {"Arrow", "an Arrow stream", "Parquet"})


@pytest.mark.parametrize(("change", "named", "way_out"), FOREIGN, ids=[named for _, named, _ in FOREIGN])
def test_a_file_of_another_kind_is_named_by_its_bytes(
    refused: Refused, base: tuple[str, str], change: Callable[[str], str | bytes], named: str, way_out: str
) -> None:
    answer = refused(base[0], change(base[1]))
    assert (answer["error_code"], "telco.csv" in answer["message"]) == ("unreadable_file", True), answer
    assert named in answer["message"]
    assert way_out in answer["hint"]


def test_its_ending_changes_nothing(refused: Refused, base: tuple[str, str]) -> None:
    answer = refused(base[0], base[1].replace(",", " "), ending="parquet")
    assert "telco.parquet is text with spaces" in answer["message"]


def test_a_damaged_parquet_file_is_not_quoted(refused: Refused, base: tuple[str, str]) -> None:
    whole = converted(base[1], pl.DataFrame.write_parquet)
    assert "cannot be read" in refused(base[0], whole[: len(whole) // 2])["message"]


HEADERS = [
    ("id,a0,a1, y", "' y'", "a space at the start or the end"),
    ("id,a0,a1,y\u00a0", r"'y\xa0'", "a space at the start or the end"),
    ("id,a0,a1,\u200by", r"'\u200by'", "an invisible character"),
    ("ID,a0,a1,y", "'ID'", "capital and small letters"),
    ("Id ,a0,a1,y", "'Id '", "a space at the start or the end and capital and small letters"),
    ('"\ufeffid",a0,a1,y', r"'\ufeffid'", "an invisible character"),
    ("\ufeff\ufeffid,a0,a1,y", r"'\ufeffid'", "an invisible character"),
    ("'id',a0,a1,y", "\"'id'\"", "quotation marks"),
]


@pytest.mark.parametrize(("header", "meant", "difference"), HEADERS, ids=[repr(header) for header, _, _ in HEADERS])
def test_a_column_that_only_looks_alike_is_offered_and_the_difference_named(
    refused: Refused, base: tuple[str, str], header: str, meant: str, difference: str
) -> None:
    answer = refused(base[0].replace("id,a0,a1,y", header))
    assert (answer["error_code"], "bank.csv has no column" in answer["message"]) == ("unknown_column", True)
    assert answer["hint"].startswith(f"Did you mean {meant}? It differs by {difference}")
    assert "It has: " in answer["hint"]


def test_a_label_in_another_unicode_form_is_offered(refused: Refused, base: tuple[str, str]) -> None:
    answer = refused(
        base[0].replace("a1,y", "a1,zahlt_spät"), base[1], "--label", unicodedata.normalize("NFD", "zahlt_spät")
    )
    assert "It differs by the Unicode form of a letter" in answer["hint"]


def ids_as(write: Callable[[int], str], text: str) -> str:
    """The same rows with other ids."""
    header, *rows = text.splitlines()
    return "\n".join([header, *(f"{write(row)},{line.split(',', 1)[1]}" for row, line in enumerate(rows))]) + "\n"


DECOMPOSED = unicodedata.normalize("NFD", "é")
IDS: list[tuple[Callable[[int], str], Callable[[int], str], str]] = [
    (lambda row: f"{row}", lambda row: f"{row}.0", "a decimal point with zeros after it"),
    (lambda row: f"{row:04}", lambda row: f"{row}", "leading zeros"),
    (lambda row: f"c-{row:04}", lambda row: f"C-{row:04}", "capital and small letters"),
    (lambda row: f"é-{row}", lambda row: f"{DECOMPOSED}-{row}", "the Unicode form of a letter"),
    (lambda row: f"c-{row}", lambda row: f"c-{row} ", "a space at the start or the end"),
    (lambda row: f"c {row}", lambda row: f"c\u00a0{row}", "a space of another kind"),
    (lambda row: f"c-{row}", lambda row: f"c\u200b-{row}", "an invisible character"),
    (lambda row: f"{row + 100}{'0' * 15}", lambda row: f"{(row + 100) / 100:.2f}E+17", "scientific notation"),
    (lambda row: f"c-{row}", lambda row: f"'c-{row}'", "quotation marks"),
]


@pytest.mark.parametrize(("bank", "telco", "difference"), IDS, ids=[difference for _, _, difference in IDS])
def test_ids_written_in_two_ways_are_told_apart_by_what_would_make_them_equal(
    refused: Refused,
    base: tuple[str, str],
    bank: Callable[[int], str],
    telco: Callable[[int], str],
    difference: str,
) -> None:
    answer = refused(ids_as(bank, base[0]), ids_as(telco, base[1]))
    assert answer["error_code"] == "rows_differ"
    assert "share 0 ids" in answer["message"]
    assert f"ids would be equal but for {difference}" in answer["message"]
    assert "in one way" in answer["hint"]


def test_two_differences_at_once_are_both_named(refused: Refused, base: tuple[str, str]) -> None:
    answer = refused(base[0], ids_as(lambda row: f"C-{row:05} ", base[1]))
    assert f"{ROWS} more of {ROWS} ids would be equal but for a space" in answer["message"]
    assert "and capital and small letters, as in 'c-00000' and 'C-00000 '" in answer["message"]


def test_a_difference_in_some_rows_is_counted(refused: Refused, base: tuple[str, str]) -> None:
    answer = refused(base[0], ids_as(lambda row: f"c-{row:05}" + " " * (row % 3 == 0), base[1]))
    assert f"share {ROWS - ROWS // 3} ids" in answer["message"]
    assert f"{ROWS // 3} more of {ROWS} ids would be equal" in answer["message"]


def test_digits_that_scientific_notation_lost_are_told(refused: Refused, base: tuple[str, str]) -> None:
    lost = "in scientific notation (1.2E+17), whose last digits may be lost"
    bank = ids_as(lambda row: f"{123456789012345678 + row * 10**13}", base[0])
    distinct = refused(bank, ids_as(lambda row: f"{1.23457 + row / 10**4:.5f}E+17", base[1]))
    assert distinct["error_code"] == "rows_differ"
    assert f"telco.csv holds {ROWS} of {ROWS} ids {lost}" in distinct["hint"]
    repeated = refused(bank, ids_as(lambda _: "1.2E+17", base[1]))
    assert repeated["error_code"] == "duplicate_ids"
    assert lost in repeated["hint"]


@pytest.mark.parametrize(
    ("cell", "way_out"),
    [
        ('"2,5"', "decimal point"),
        ("NA", "missing value"),
        ("?", "missing value"),
        ("12 %", "the number alone"),
        ('"1,234.5"', "the number alone"),
        ("blue", "Encode the column as numbers"),
    ],
)
def test_a_cell_that_is_nearly_a_number_is_told_how_to_become_one(
    refused: Refused, base: tuple[str, str], cell: str, way_out: str
) -> None:
    header, first, *rest = base[1].splitlines()
    identifier, _, *others = first.split(",")
    answer = refused(base[0], "\n".join([header, "", ",".join([identifier, cell, *others]), *rest]))
    # The row is counted as the file counts it, blank ones included.
    assert "column 'b0' is not a number in data row 2" in answer["message"]
    assert way_out in answer["hint"]


def test_a_column_that_is_empty_in_every_row_is_to_be_left_out(refused: Refused, base: tuple[str, str]) -> None:
    answer = refused(base[0], base[1].replace("\n", ",\n"))
    assert (answer["error_code"], answer["hint"]) == (
        "missing_value",
        "The column is empty in every row: leave it out.",
    )


def test_files_that_can_be_read_are_trained_on_and_what_is_worth_a_look_is_told(
    base: tuple[str, str], tmp_path: Path, demo: Callable[..., Any]
) -> None:
    """A packed CSV as pandas writes it, with blank rows, and Parquet without its ending, faulty in every way."""
    header, *rows = (f"{number},{line}" for number, line in enumerate(base[0].splitlines()))
    header = header.removeprefix("0")
    label = tmp_path / "bank.csv"
    label.write_bytes(gzip.compress("\n".join([header, *rows[:60], "", " ", *rows[60:], ",,,", ""]).encode()))
    frame = pl.read_csv(base[1].encode())
    number = pl.int_range(pl.len())
    feature = tmp_path / "telco"
    frame.select(
        number.alias("Unnamed: 0"),
        "id",
        "b0",
        pl.when(number % 9 == 0).then(-999).otherwise("b1").alias("b1"),
        pl.when(number == 7).then(1e12).otherwise("b2").alias("b2"),
        (pl.col("b3") * 1e-300).alias("b3"),
        pl.lit(0).alias("nothing"),
        pl.lit(5.5).alias("constant"),
        pl.col("b0").alias("twice"),
        (number * 7919 + 3).alias("device_id"),
    ).write_parquet(feature)
    files = ("--label-file", str(label), "--feature-file", str(feature), "--id", "id", "--label", "y")
    ended = demo(tmp_path / "out", *files, "--scheme", "none", "--epochs", "1")
    assert ended.data["rows"] == ROWS
    told = {party: {each["code"]: each["text"] for each in notices} for party, notices in ended.data["notices"].items()}
    assert "3 rows of rows.csv are wholly empty and were left out" in told["label_party"]["blank_rows"]
    for code, columns in {
        "row_number_column": ("Unnamed: 0",),
        "suspicious_value": ("b1", "-999 in 14 of 120 rows, 11.7%"),
        "flattened_column": ("b2", "1 of 120 values, 0.83%, beyond 3 standard deviations"),
        "column_of_tiny_values": ("b3",),
        "constant_column": ("'nothing' (0)", "'constant' (5.5)"),
        "repeated_column": ("'twice' is the same as 'b0'",),
        "id_like_column": ("device_id",),
    }.items():
        assert all(part in told["feature_party"][code] for part in columns), told["feature_party"]
        assert code == "row_number_column" or code not in told["label_party"]
    assert "''" in told["label_party"]["row_number_column"]
    report = (ended.folder / "report.html").read_text()
    assert "-999 in 14 of 120 rows" in report
