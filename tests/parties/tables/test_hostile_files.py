"""A table that somebody else has made to hurt is refused by name before it fills the memory or holds a server up."""

import gzip
import resource
import zlib
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pytest

from parties.errors import UnreadableFile
from parties.tables.addition import Addition, Examined, examine
from parties.tables.table_files import MOST_COLUMNS
from parties.tables.text_format import LINE_BYTES, UNPACKED_BYTES

PIECE = 1 << 20
MOST_MEMORY_BYTES = 300 << 20
"""That looking at a file may take, beyond what this process had before."""


def packed(path: Path, pieces: Iterable[bytes]) -> None:
    squeeze = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
    with path.open("wb") as file:
        for piece in pieces:
            file.write(squeeze.compress(piece))
        file.write(squeeze.flush())


def added(path: Path) -> Examined:
    return examine(path.parent, Addition(source=path.name, id=("id",)))


def refused(path: Path) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    with pytest.raises(UnreadableFile) as error:
        added(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before < MOST_MEMORY_BYTES
    assert error.value.fix
    return str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_a_packed_table_that_unpacks_beyond_any_measure_is_refused(tmp_path: Path, encoding: str) -> None:
    """A few kilobytes that hold all these rows."""
    rows = ("1," + "0" * 1000 + "\n").encode(encoding) * 500
    header = ("\ufeff" if encoding != "utf-8" else "") + "id,a\n"
    packed(tmp_path / "bomb.csv.gz", [header.encode(encoding), *([rows] * (UNPACKED_BYTES * 5 // 4 // len(rows)))])
    assert "unpacks to more than 200 times its size" in refused(tmp_path / "bomb.csv.gz")


def test_an_ordinary_packed_table_of_mostly_zeros_is_taken(tmp_path: Path) -> None:
    rows = b"".join(b"%d%s\n" % (row, b",0" * 200) for row in range(500))
    (tmp_path / "zeros.csv.gz").write_bytes(
        gzip.compress(b"id," + b",".join(b"c%d" % at for at in range(200)) + b"\n" + rows)
    )
    assert added(tmp_path / "zeros.csv.gz").profile.rows == 500


@pytest.mark.parametrize("way", ["as it is", "packed"])
def test_a_cell_that_does_not_end_is_refused(tmp_path: Path, way: str) -> None:
    path, pieces = tmp_path / "cell.csv", [b"id,a\n1,", *([b"0" * PIECE] * (LINE_BYTES // PIECE + 1)), b"\n2,3\n"]
    if way == "packed":
        packed(path, pieces)
    else:
        path.write_bytes(b"".join(pieces))
    assert "a line of more than 16 MiB" in refused(path)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_hundred_thousand_columns_are_refused(tmp_path: Path, kind: str) -> None:
    path, names = tmp_path / f"wide.{kind}", ["id", *(f"c{at}" for at in range(10 * MOST_COLUMNS))]
    if kind == "csv":
        path.write_text(",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    else:
        pl.DataFrame({name: [1] for name in names}).write_parquet(path)
    assert "has 100,001 columns; 10,000 are the most" in refused(path)


@pytest.mark.parametrize("cut", ["shortened", "other checksum"])
def test_a_packed_table_that_is_damaged_is_unreadable_and_no_bug(tmp_path: Path, cut: str) -> None:
    whole = gzip.compress(b"id,a\n" + b"".join(b"%d,%d\n" % (row, row * row) for row in range(20_000)))
    damaged = whole[:-2000] if cut == "shortened" else whole[:-8] + bytes(8)
    (tmp_path / "damaged.csv.gz").write_bytes(damaged)
    assert "damaged.csv.gz" in refused(tmp_path / "damaged.csv.gz")


def test_zero_bytes_and_formulas_are_cells_like_others_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_bytes(
        b"id,a\n" + b"".join(b"%d,1\n" % row for row in range(20_000)) + b"x\0y,=1+1\n"
    )
    examined = added(tmp_path / "cells.csv")
    assert (examined.profile.rows, examined.profile.columns[1].type) == (20_001, "text")
