"""How a CSV file is written is found as a person would find it, or stated; either way it is read as the same table."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from parties.errors import UnreadableFile
from parties.tables.addition import Addition, Examined, examine
from parties.tables.registered import open_registered
from parties.tables.text_format import StatedFormat

TEXT = "id,grösse,b\nc-1,1.5,x\nc-2,-20.25,y\nc-3,3,x\n"
WRITTEN: dict[str, bytes] = {
    "commas": TEXT.encode(),
    "semicolons": TEXT.replace(",", ";").encode(),
    "tabs": TEXT.replace(",", "\t").encode(),
    "pipe signs": TEXT.replace(",", "|").encode(),
    "decimal commas": TEXT.replace(",", ";").replace(".", ",").encode(),
    "sep=": ("sep=;\n" + TEXT.replace(",", ";")).encode(),
    "comments": ("# made on Monday\n# by hand, twice\n\n" + TEXT).encode(),
    "a byte order mark": ("\ufeff" + TEXT).encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "UTF-16, big end first": TEXT.encode("utf-16-be"),
    "UTF-32": TEXT.encode("utf-32"),
    "Windows": TEXT.encode("cp1252"),
    "CR LF": TEXT.replace("\n", "\r\n").encode(),
    "gzip": gzip.compress(TEXT.encode()),
    "gzip of UTF-16 with tabs": gzip.compress(TEXT.replace(",", "\t").encode("utf-16")),
    "quotes": TEXT.replace("c-1", '"c-1"').encode(),
    "single quotes": "".join(
        ",".join(f"'{cell}'" for cell in line.split(",")) + "\n" for line in TEXT.splitlines()
    ).encode(),
    "blank rows": TEXT.replace("c-2", ",,\nc-2").encode() + b"\n,,\n",
}


def added(folder: Path, written: bytes, **said: object) -> Examined:
    (folder / "table.csv").write_bytes(written)
    return examine(folder, Addition(source="table.csv", id=("id",), **said))  # type: ignore[arg-type]


def cells(folder: Path, examined: Examined) -> list[list[object]]:
    """As a job reads them: from what is stored alone."""
    file, guesses = open_registered(examined.registered, folder, "table.csv", absent="")
    assert not guesses
    frame = file.rows(file.names, ("id",)).frame
    numbers = frame["grösse"].str.replace(",", ".", literal=True).cast(pl.Float64)
    return [frame["id"].to_list(), numbers.to_list(), frame["b"].to_list()]


@pytest.mark.parametrize("way", WRITTEN)
def test_a_table_is_the_same_however_it_is_written(tmp_path: Path, way: str) -> None:
    examined = added(tmp_path, WRITTEN[way])
    assert cells(tmp_path, examined) == [["c-1", "c-2", "c-3"], [1.5, -20.25, 3.0], ["x", "y", "x"]]
    assert examined.profile.rows == 3
    assert [column.type for column in examined.profile.columns] == ["text", "number", "text"]


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("semicolons", "semicolons between its fields (--separator)"),
        ("decimal commas", "a decimal comma (--decimal)"),
        ("UTF-16", "UTF-16-LE (--encoding)"),
        ("Windows", "WINDOWS-1252 (--encoding)"),
        ("single quotes", "' as its quotation mark (--quote)"),
        ("comments", "its header in line 4"),
    ],
)
def test_what_was_guessed_is_said_and_what_is_stated_is_no_guess(tmp_path: Path, way: str, said: str) -> None:
    examined = added(tmp_path, WRITTEN[way])
    (guess,) = (notice for notice in examined.notices if notice.code == "text_format")
    assert said in guess.text
    text = examined.registered.text
    assert text is not None
    stated = StatedFormat(encoding=text.encoding, separator=text.separator, quote=text.quote, decimal=text.decimal)
    codes = {notice.code for notice in added(tmp_path, WRITTEN[way], stated=stated).notices}
    assert ("text_format" in codes) == (way == "comments")


def test_the_usual_way_is_no_guess(tmp_path: Path) -> None:
    assert not added(tmp_path, WRITTEN["commas"]).notices


def test_what_is_stated_wins(tmp_path: Path) -> None:
    by_pipes = added(tmp_path, b"id|a;b\n1|2;3\n4|5;6\n", stated=StatedFormat(separator="|"))
    assert [column.name for column in by_pipes.profile.columns] == ["id", "a;b"]
    latin = "id,b\n1,é\n".encode("latin-1")
    examined = added(tmp_path, latin, stated=StatedFormat(encoding="latin-1"))
    assert examined.profile.columns[1].common[0].value == "é"


@pytest.mark.parametrize(
    ("stated", "told"),
    [({"encoding": "klingon"}, "no encoding 'klingon'"), ({"separator": "::"}, "is not one sign")],
)
def test_what_cannot_be_stated_is_refused(stated: dict[str, str], told: str) -> None:
    with pytest.raises(UnreadableFile, match=told):
        StatedFormat(**stated)  # type: ignore[arg-type]


def test_a_file_that_is_not_in_the_stated_encoding_is_refused_by_line(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"is not UTF-8: line 1 "):
        added(tmp_path, WRITTEN["Windows"], stated=StatedFormat(encoding="utf-8"))
    late = ("id,b\n" + "1,x\n" * 40_000).encode() + "2,é\n".encode("cp1252")
    with pytest.raises(UnreadableFile, match="is not UTF-8: it holds bytes that stand for no letter after line"):
        added(tmp_path, late, stated=StatedFormat(encoding="utf-8"))


def test_a_letter_far_down_in_the_file_still_tells_its_encoding(tmp_path: Path) -> None:
    late = ("id,b\n" + "".join(f"{row},x\n" for row in range(40_000))).encode() + "c,é\n".encode("cp1252")
    examined = added(tmp_path, late)
    assert examined.registered.text is not None
    assert examined.registered.text.encoding == "windows-1252"
