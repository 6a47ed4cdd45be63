"""How the text of a CSV file becomes cells: what its owner states, or else what its first lines show, which is said.

Each thing that was found and is not the usual one is told as a guess, and the way to state it otherwise with it.
"""

import codecs
import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

import msgspec

from parties.errors import UnreadableFile
from parties.tables.file_kinds import GZIP, HEAD_BYTES, READABLE, check_text, unpacked
from vfl.notices import Notice

LINES = 20
"""How many of its first lines show what separates the fields."""
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipe signs"}
"""Those that are looked for, in this order."""
UTF_8, WESTERN = "utf-8", "windows-1252"
BYTE_ORDER_MARK = "\ufeff"
_MARKS = ((b"\xff\xfe\x00\x00", "utf-32-le"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_PIECE_BYTES = 1 << 20
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)
"""Of a packed file; whoever reads the table says so."""
LINE_BYTES = 16 << 20
"""More than a row has: whoever reads a table holds whole rows."""
UNPACKED_BYTES, UNPACKED_TIMES = 1 << 26, 200
"""What a packed file may hold: so much, or so many times its own size."""


class TextFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Stored with a data set, so that every job reads it as it was read when it was added."""

    encoding: str = UTF_8
    separator: str = ","
    quote: str = '"'
    decimal: Literal[".", ","] = "."
    skipped_lines: int = 0
    """Above the header line."""


class StatedFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the owner says of a CSV file; what is left out is found. Raises UnreadableFile for what cannot be."""

    encoding: str | None = None
    separator: str | None = None
    quote: str | None = None
    decimal: Literal[".", ","] | None = None

    def __post_init__(self) -> None:
        if self.encoding is not None:
            _check_encoding(self.encoding)
        for name, sign in (("separator", self.separator), ("quote", self.quote)):
            if sign is not None and (len(sign) != 1 or not sign.isascii() or sign in "\r\n"):
                raise UnreadableFile(f"the {name} {sign!r} is not one sign", fix="Name one ASCII sign, such as ; or |.")


class FoundFormat(NamedTuple):
    format: TextFormat
    notices: tuple[Notice, ...]


def find_format(path: Path, shown: str, stated: StatedFormat) -> FoundFormat:
    """Of a CSV file, also one packed with gzip. Raises UnreadableFile, naming what the file is instead."""
    head = _head(path)
    _check_bytes(path, shown)
    encoding = stated.encoding or _encoding(path, head, shown)
    text = _decoded(head, encoding, shown)
    check_text(text, shown)
    skipped, separator_said, lines = _below_preamble(text)
    separator = stated.separator or separator_said or _separator(lines, shown)
    quote = stated.quote or _quote(lines, separator)
    cells = [cell for row in csv.reader(lines[1:], delimiter=separator, quotechar=quote) for cell in row]
    has_commas = separator != "," and any(map(decimal_comma, cells)) and not any(map(_decimal_point, cells))
    decimal = stated.decimal or ("," if has_commas else ".")
    written = TextFormat(encoding=encoding, separator=separator, quote=quote, decimal=decimal, skipped_lines=skipped)
    return FoundFormat(written, tuple(_guess(written, stated, shown)))


def _guess(written: TextFormat, stated: StatedFormat, shown: str) -> Iterator[Notice]:
    said = []
    if stated.encoding is None and written.encoding != UTF_8:
        said.append(f"its letters as {written.encoding.upper()} (--encoding)")
    if stated.separator is None and written.separator != ",":
        said.append(f"{SEPARATORS.get(written.separator, repr(written.separator))} between its fields (--separator)")
    if stated.quote is None and written.quote != '"':
        said.append(f"{written.quote} as its quotation mark (--quote)")
    if stated.decimal is None and written.decimal != ".":
        said.append("its numbers with a decimal comma (--decimal)")
    if written.skipped_lines:
        said.append(f"its header in line {written.skipped_lines + 1}, below what is no row")
    if said:
        text = f"{shown} is read with {', '.join(said)}. `vfl data add` takes these words to be sure"
        yield Notice("guess", "text_format", text)


@contextmanager
def unpacked_file(path: Path) -> Iterator[IO[bytes]]:
    """Its bytes, without gzip."""
    with path.open("rb") as file:
        if file.read(len(GZIP)) != GZIP:
            file.seek(0)
            yield file
            return
    with gzip.open(path) as packed:
        yield cast("IO[bytes]", packed)


def decimal_comma(cell: str) -> bool:
    """Whether a cell is a number but for its decimal comma."""
    return re.fullmatch(r'\s*"?[+-]?\d*,\d+"?\s*', cell) is not None


def _decimal_point(cell: str) -> bool:
    return re.fullmatch(r"\s*[+-]?\d*\.\d+([eE][+-]?\d+)?\s*", cell) is not None


def _check_encoding(name: str) -> None:
    try:
        "".encode(name)
        codecs.lookup(name)
    except (LookupError, ValueError):
        raise UnreadableFile(
            f"there is no encoding {name!r}", fix="Use one such as utf-8, utf-16, windows-1252 or latin-1."
        ) from None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return unpacked(head) if head.startswith(GZIP) else head


def _check_bytes(path: Path, shown: str) -> None:
    """A file that somebody else has made may unpack without end, or hold a row without end. Raises UnreadableFile."""
    most = max(UNPACKED_BYTES, UNPACKED_TIMES * path.stat().st_size)
    unpacked_bytes = line_bytes = 0
    with suppress(*_DAMAGED), unpacked_file(path) as file:
        while piece := file.read(_PIECE_BYTES):
            unpacked_bytes += len(piece)
            line_bytes = len(piece) - 1 - end if (end := _last_line_end(piece)) >= 0 else line_bytes + len(piece)
            if line_bytes > LINE_BYTES:
                raise UnreadableFile(
                    f"{shown} is no table: it has a line of more than {LINE_BYTES >> 20} MiB", fix=READABLE
                )
            if unpacked_bytes > most:
                raise UnreadableFile(
                    f"{shown} unpacks to more than {UNPACKED_TIMES} times its size: it may be a trap",
                    fix="If you trust who made it, unpack it and add the unpacked file.",
                )


def _last_line_end(piece: bytes) -> int:
    return max(piece.rfind(b"\n"), piece.rfind(b"\r"))


def _encoding(path: Path, head: bytes, shown: str) -> str:
    """By its byte order mark, its zero bytes, or because the whole file is UTF-8. Raises UnreadableFile."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if head.count(0):
        even, odd = head[::2].count(0), head[1::2].count(0)
        if max(even, odd) <= 0.4 * len(head):  # every second byte of plain text
            raise UnreadableFile(f"{shown} is no text: it holds zero bytes", fix=READABLE)
        return "utf-16-be" if even > odd else "utf-16-le"
    steering = sum(head.count(code) for code in (*range(1, 9), *range(14, 32)))
    if steering > len(head) // 100:
        raise UnreadableFile(f"{shown} is no text: it holds control characters", fix=READABLE)
    return UTF_8 if _is_encoded(path, UTF_8) else WESTERN


def _is_encoded(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with unpacked_file(path) as file:
            while piece := file.read(_PIECE_BYTES):
                decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    except _DAMAGED:
        pass
    return True


def _decoded(head: bytes, encoding: str, shown: str) -> str:
    """Its whole lines. Raises UnreadableFile where it is not in this encoding."""
    try:
        # The cut may go through a letter, which an incremental decoder keeps back.
        text: str = codecs.getincrementaldecoder(encoding)().decode(head, final=len(head) < HEAD_BYTES)
    except UnicodeDecodeError as error:
        line = head[: error.start].count(b"\n") + 1
        raise UnreadableFile(
            f"{shown} is not {encoding.upper()}: line {line} holds bytes that stand for no letter",
            fix="State its encoding with --encoding, or save it as CSV UTF-8.",
        ) from None
    if len(head) >= HEAD_BYTES and "\n" in text:
        text = text[: text.rindex("\n")]
    return text.removeprefix(BYTE_ORDER_MARK)


def _below_preamble(text: str) -> tuple[int, str, list[str]]:
    """(lines above the header, the separator that one of them says, the first lines from the header on)."""
    lines = text.splitlines()
    skipped, separator = 0, ""
    if setting := re.match(r"sep=(.)\s*$", lines[0], re.IGNORECASE):
        skipped, separator = 1, str(setting[1])
    while skipped < len(lines) - 1 and (not lines[skipped].strip() or _is_comment(lines, skipped)):
        skipped += 1
    return skipped, separator, [line for line in lines[skipped:] if line.strip()][:LINES]


def _is_comment(lines: list[str], at: int) -> bool:
    """A line that begins with # above lines that have another number of fields, whatever separates these."""
    if not lines[at].startswith("#"):
        return False
    below = [line for line in lines[at + 1 :] if line.strip()][: LINES - 1]
    return not any(_agree(_fields([lines[at], *below], sign)) for sign in SEPARATORS)


def _separator(lines: list[str], shown: str) -> str:
    for sign in SEPARATORS:
        if _agree(_fields(lines, sign)):
            return sign
    if _fields(lines, ",") == {1} and _agree({len(line.split()) for line in lines}):
        raise UnreadableFile(
            f"{shown} is text with spaces between its fields", fix="Save it with commas between the fields."
        )
    return ","


def _quote(lines: list[str], separator: str) -> str:
    """The single one where every name of the header stands in it."""
    names = lines[0].split(separator)
    return "'" if all(re.fullmatch(r"\s*'[^']+'\s*", name) for name in names) else '"'


def _fields(lines: list[str], sign: str, quote: str = '"') -> set[int]:
    """How many fields the lines have if this sign stands between them."""
    return {len(row) for row in csv.reader(lines, delimiter=sign, quotechar=quote)}


def _agree(counts: set[int]) -> bool:
    """All lines have the same number of fields, and more than one."""
    return len(counts) == 1 and counts != {1}
