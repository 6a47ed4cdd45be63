"""What a file is by its first bytes, whatever its name says: Parquet, Arrow, separated values, or a named other.

A file of another kind is named and never quoted: its bytes are no words for an error.
"""

import enum
import json
import re
import zlib
from dataclasses import dataclass

from parties.errors import UnreadableFile

HEAD_BYTES = 1 << 16
"""How much of a file is looked at."""
GZIP = b"\x1f\x8b"
READABLE = "Tables are read from CSV (text with a header line), Parquet and Arrow (Feather)."


class Kind(enum.Enum):
    """What can be read."""

    CSV = "CSV"
    PARQUET = "Parquet"
    ARROW = "Arrow"
    ARROW_STREAM = "Arrow stream"


@dataclass(frozen=True)
class _Foreign:
    """A kind of file that cannot, and what to do with it."""

    what: str
    fix: str


_SAVE_AS_CSV = "Open it in the program that made it and save the table as CSV (UTF-8)."
_WRITE_PARQUET = "Read it with the program that made it and write the table as Parquet or CSV."
_UNPACK = "Unpack it and name the table in it."
_NO_TABLE = "Name the file that holds the table."

_READ = ((b"PAR1", Kind.PARQUET), (b"ARROW1", Kind.ARROW), (b"\xff\xff\xff\xff", Kind.ARROW_STREAM))
_FOREIGN: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls)", _SAVE_AS_CSV),
    (0, b"FEA1", "a Feather file of version 1", _WRITE_PARQUET),
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
_SETTING = re.compile(r"""\[{1,2}[\w." -]+\]{1,2}|["']?[\w.-]+["']?\s*=\s*\S.*""")
_ANNEX = re.compile(rb"(\.\./)*(\.git)?/annex/objects/")


def kind_of(head: bytes, shown: str) -> Kind:
    """Of a file that begins with `head`. Raises UnreadableFile, calling the file by `shown` and naming what it is."""
    for signature, kind in _READ:
        if head.startswith(signature):
            return kind
    packed = head.startswith(GZIP)
    if packed:
        head, shown = unpacked(head), f"{shown}, unpacked with gzip,"
    foreign = _foreign(head)
    if packed and foreign is None:
        foreign = next((_Foreign(kind.value, _UNPACK) for signature, kind in _READ if head.startswith(signature)), None)
    if foreign is not None:
        raise _refusal(shown, foreign)
    return Kind.CSV


def unpacked(head: bytes) -> bytes:
    """The beginning of what is packed with gzip in a file that begins so."""
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
    return None


def _zipped(head: bytes) -> _Foreign:
    if b"xl/" in head or (b"[Content_Types].xml" in head and b"word/" not in head):
        return _Foreign("an Excel workbook (.xlsx)", _SAVE_AS_CSV)
    if b"opendocument.spreadsheet" in head:
        return _Foreign("an OpenDocument spreadsheet (.ods)", _SAVE_AS_CSV)
    if b".npy" in head:
        return _Foreign("a NumPy archive (.npz)", _WRITE_PARQUET)
    return _Foreign("a zip archive", _UNPACK)


def check_text(text: str, shown: str) -> None:
    """Raises UnreadableFile for text that is something else than separated values."""
    foreign = _foreign_text(text)
    if foreign is not None:
        raise _refusal(shown, foreign)


def _refusal(shown: str, foreign: _Foreign) -> UnreadableFile:
    return UnreadableFile(f"{shown} is {foreign.what}", fix=f"{foreign.fix} {READABLE}")


def _foreign_text(text: str) -> _Foreign | None:
    if not text.strip():
        return _Foreign("empty", "It needs a header line and rows.")
    start = text.lstrip()
    if "\r" in text and "\n" not in text:
        return _Foreign("text whose lines end as on an old Macintosh (CR alone)", "Save it with LF or CR LF.")
    return _document(start, [line for line in start.splitlines() if line.strip()])


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
    if _is_settings([line for line in lines if not line.startswith("#")][:2]):
        return _Foreign("a file of settings (TOML or INI)", _NO_TABLE)
    if lines[0].lower().startswith("@relation"):
        return _Foreign("an ARFF file", _SAVE_AS_CSV)
    return None


def _is_settings(lines: list[str]) -> bool:
    """Whether it begins with a section or a key, and another one after it."""
    return bool(lines) and all(_SETTING.fullmatch(line.strip()) for line in lines)


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
