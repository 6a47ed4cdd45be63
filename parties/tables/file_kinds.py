"""What a file is by its first bytes, whatever its name says: Parquet, text of comma-separated values, or a named other.

A file of another kind is named and never quoted: its bytes are no words for an error.
"""

import csv
import enum
import json
import re
import zlib
from dataclasses import dataclass

from parties.errors import UnreadableFile

HEAD_BYTES = 1 << 16
"""How much of a file is looked at."""
LINES = 20
"""How many of its first lines show what separates the fields."""
GZIP = b"\x1f\x8b"
BYTE_ORDER_MARK = "\ufeff"
OUTSIDE_COMMAS = {";": "semicolons", "\t": "tabs", "|": "pipe signs"}
READABLE = "Tables are read from CSV (UTF-8, commas, a header line) and Parquet."


class Kind(enum.Enum):
    """What can be read."""

    CSV = "CSV"
    PARQUET = "Parquet"


@dataclass(frozen=True)
class _Foreign:
    """A kind of file that cannot, and what to do with it."""

    what: str
    fix: str


_SAVE_AS_CSV = "Open it in the program that made it and save the table as CSV (UTF-8)."
_WRITE_PARQUET = "Read it with the program that made it and write the table as Parquet or CSV."
_UNPACK = "Unpack it and name the table in it."
_NO_TABLE = "Name the file that holds the table."

_FOREIGN: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls)", _SAVE_AS_CSV),
    (0, b"ARROW1", "an Arrow or Feather file", _WRITE_PARQUET),
    (0, b"FEA1", "a Feather file of version 1", _WRITE_PARQUET),
    (0, b"\xff\xff\xff\xff", "an Arrow stream", _WRITE_PARQUET),
    (0, b"PARE", "an encrypted Parquet file", "Write it as Parquet without encryption of its own, or as CSV."),
    (0, b"ORC", "an ORC file", _WRITE_PARQUET),
    (0, b"Obj\x01", "an Avro file", _WRITE_PARQUET),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", _WRITE_PARQUET),
    (0, b"\x93NUMPY", "a NumPy array", _WRITE_PARQUET),
    (0, b"SQLite format 3\x00", "an SQLite database", "Export the table as CSV."),
    (8, b"DUCK", "a DuckDB database", "Export the table as Parquet or CSV."),
    (0, b"<stata_dta>", "a Stata file", _WRITE_PARQUET),
    (0, b"$FL2", "an SPSS file", _WRITE_PARQUET),
    (0, b"$FL3", "an SPSS file", _WRITE_PARQUET),
    (0, b"HEADER RECORD*******", "a SAS transport file", _WRITE_PARQUET),
    (12, b"\xc2\xea\x81\x60\xb3\x14\x11\xcf", "a SAS file", _WRITE_PARQUET),
    (0, b"RDX", "an R data file", _WRITE_PARQUET),
    (0, b"BZh", "packed with bzip2", _UNPACK),
    (0, b"\xfd7zXZ\x00", "packed with xz", _UNPACK),
    (0, b"(\xb5/\xfd", "packed with zstd", _UNPACK),
    (0, b"\x04\x22\x4d\x18", "packed with lz4", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"%PDF", "a PDF document", _SAVE_AS_CSV),
    (0, b"{\\rtf", "a text document (RTF)", _SAVE_AS_CSV),
    (0, b"\x89PNG", "an image", _NO_TABLE),
    (0, b"\xff\xd8\xff", "an image", _NO_TABLE),
    (0, b"GIF8", "an image", _NO_TABLE),
    (0, b"\x7fELF", "a program", _NO_TABLE),
    (0, b"-----BEGIN ", "a key or certificate", _NO_TABLE),
    (
        0,
        b"version https://git-lfs.github.com/spec",
        "a Git LFS pointer, which stands for the real file",
        "Fetch the file itself: `git lfs pull`.",
    ),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_ANNEX = re.compile(rb"(\.\./)*(\.git)?/annex/objects/")


def kind_of(head: bytes, shown: str) -> Kind:
    """Of a file that begins with `head`. Raises UnreadableFile, calling the file by `shown` and naming what it is."""
    if head.startswith(b"PAR1"):
        return Kind.PARQUET
    if head.startswith(GZIP):
        head, shown = _unpacked(head), f"{shown}, unpacked with gzip,"
    foreign = _foreign(head) or _foreign_text(_text(head, shown))
    if foreign is not None:
        raise UnreadableFile(f"{shown} is {foreign.what}", fix=f"{foreign.fix} {READABLE}")
    return Kind.CSV


def _unpacked(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(head, HEAD_BYTES)
    except zlib.error:
        return b""


def _foreign(head: bytes) -> _Foreign | None:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zipped(head)
    for offset, signature, what, fix in _FOREIGN:
        if head.startswith(signature, offset):
            return _Foreign(what, fix)
    if _PICKLE.match(head):
        return _Foreign(
            "a Python pickle, which can run any program when it is read",
            "Ask whoever wrote it for Parquet or CSV.",
        )
    if _ANNEX.match(head):
        return _Foreign("a git-annex pointer, which stands for the real file", "Fetch the file: `git annex get`.")
    if head.startswith(b"PAR1"):
        return _Foreign("Parquet", _UNPACK)
    return None


def _zipped(head: bytes) -> _Foreign:
    if b"xl/" in head or (b"[Content_Types].xml" in head and b"word/" not in head):
        return _Foreign("an Excel workbook (.xlsx)", _SAVE_AS_CSV)
    if b"opendocument.spreadsheet" in head:
        return _Foreign("an OpenDocument spreadsheet (.ods)", _SAVE_AS_CSV)
    if b".npy" in head:
        return _Foreign("a NumPy archive (.npz)", _WRITE_PARQUET)
    return _Foreign("a zip archive", _UNPACK)


def _text(head: bytes, shown: str) -> str:
    """Without its byte order mark. Raises UnreadableFile for other encodings and for bytes that are no text."""
    for mark, name in ((b"\xff\xfe\x00\x00", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")):
        if head.startswith(mark):
            raise _encoded(shown, name)
    zeros = head.count(0)
    if zeros:
        if max(head[::2].count(0), head[1::2].count(0)) > 0.4 * len(head):  # every second byte of plain text
            raise _encoded(shown, "UTF-16")
        raise UnreadableFile(f"{shown} is no text: it holds zero bytes", fix=READABLE)
    steering = sum(head.count(code) for code in (*range(1, 9), *range(14, 32)))
    if steering > len(head) // 100:
        raise UnreadableFile(f"{shown} is no text: it holds control characters", fix=READABLE)
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if len(head) < HEAD_BYTES or error.start < len(head) - 4:  # the cut may go through a letter
            raise not_utf8(shown, head[: error.start].count(b"\n") + 1) from None
        text = head[: error.start].decode()
    if len(head) >= HEAD_BYTES and "\n" in text:
        text = text[: text.rindex("\n")]
    return text.removeprefix(BYTE_ORDER_MARK)


def not_utf8(shown: str, line: int) -> UnreadableFile:
    return UnreadableFile(
        f"{shown} is not UTF-8: line {line} holds a letter in another encoding, perhaps Windows-1252 or Latin-1",
        fix="Save it as CSV UTF-8, or convert it: `iconv -f WINDOWS-1252 -t UTF-8 FILE`.",
    )


def _encoded(shown: str, name: str) -> UnreadableFile:
    return UnreadableFile(
        f"{shown} is {name} text, not UTF-8",
        fix=f"Save it as CSV UTF-8 with commas, or convert it: `iconv -f {name} -t UTF-8 FILE`.",
    )


def _foreign_text(text: str) -> _Foreign | None:
    """Text that is something else than comma-separated values."""
    if not text.strip():
        return _Foreign("empty", "It needs a header line and rows.")
    start = text.lstrip()
    lines = [line for line in start.splitlines() if line.strip()][:LINES]
    if "\r" in text and "\n" not in text:
        return _Foreign("text whose lines end as on an old Macintosh (CR alone)", "Save it with LF or CR LF.")
    return _document(start, lines) or _preamble(lines) or _separated(lines)


def _document(start: str, lines: list[str]) -> _Foreign | None:
    if re.match(r"<(!doctype\s+html|html|head|body|table)\b", start, re.IGNORECASE):
        return _Foreign(
            "an HTML page, perhaps an error or a log-in page in place of the table", "Download the table again."
        )
    if start.startswith(("<?xml", "<!--")):
        return _Foreign("an XML document", _SAVE_AS_CSV)
    if _is_json(lines):
        whole = lines[0].startswith("[") or lines[0].strip() == "{"
        return _Foreign("JSON" if whole else "JSON lines", _WRITE_PARQUET)
    if lines[0].lower().startswith("@relation"):
        return _Foreign("an ARFF file", _SAVE_AS_CSV)
    return None


def _preamble(lines: list[str]) -> _Foreign | None:
    """Lines above the header."""
    if setting := re.match(r"sep=(.)\s*$", lines[0], re.IGNORECASE):
        return _Foreign(
            f"a CSV file for Excel: its first line says `sep={setting[1]}`",
            "Remove that line; the line after it is the header, its fields separated by commas.",
        )
    if lines[0].startswith("#") and not _agree(_fields(lines, ",")):
        return _Foreign(
            "text that begins with a comment line (`#`)",
            "Remove what stands above the header line, and the sign # before the header if there is one.",
        )
    return None


def _is_json(lines: list[str]) -> bool:
    if lines[0].strip() in {"[", "{", "[{"}:
        return True
    if not lines[0].startswith(("[", "{")):
        return False
    try:
        json.loads(lines[0])
    except ValueError:
        return re.match(r'[\[{]+\s*"[^"]*"\s*:', lines[0]) is not None
    return True


def _separated(lines: list[str]) -> _Foreign | None:
    """Fields that something else than commas separates."""
    commas = _fields(lines, ",")
    if _agree(commas):
        return None
    for sign, name in OUTSIDE_COMMAS.items():
        if _agree(_fields(lines, sign)):
            cells = [cell for line in lines[1:] for cell in line.split(sign)]
            decimal = " and numbers with a decimal comma" if any(map(decimal_comma, cells)) else ""
            point = ", numbers with a decimal point" if decimal else ""
            return _Foreign(
                f"text with {name} between its fields{decimal}",
                f"Save it with commas between the fields{point}, or write it as Parquet.",
            )
    if commas == {1} and _agree({len(line.split()) for line in lines}):
        return _Foreign("text with spaces between its fields", "Save it with commas between the fields.")
    return None


def _fields(lines: list[str], sign: str) -> set[int]:
    """How many fields the lines have if this sign stands between them."""
    return {len(row) for row in csv.reader(lines, delimiter=sign)}


def _agree(counts: set[int]) -> bool:
    """All lines have the same number of fields, and more than one."""
    return len(counts) == 1 and counts != {1}


def decimal_comma(cell: str) -> bool:
    """Whether a cell is a number but for its decimal comma."""
    return re.fullmatch(r'\s*"?[+-]?\d*,\d+"?\s*', cell) is not None
