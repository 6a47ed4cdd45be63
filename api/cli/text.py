"""Text for people: facts under each other, and plain letters where the terminal knows no others."""

import codecs
import textwrap
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

PLAIN = "vfl.plain"
"""The name of the codec error handler below."""

PUNCTUATION = str.maketrans(
    {"\u2013": "-", "\u2014": "-", "\u2212": "-", "\u2192": "->", "\u00d7": "x", "\u00b7": "-", "\u2026": "..."}
)
"""Dashes, an arrow, the sign of multiplication, a dot in the middle, an ellipsis."""
SURROGATES = range(0xDC80, 0xDD00)
"""How Python holds bytes of a file name that are no letters: they go out as they came in."""


class Facts:
    """Names and values in two columns. A value is broken between words only: a path or a digest stays whole."""

    def __init__(self, facts: Iterable[tuple[str, str]]) -> None:
        self._facts = list(facts)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.text import Text  # noqa: PLC0415 - only for text

        from parties.errors import printable  # noqa: PLC0415 - peers choose some of the words

        left = max((len(name) for name, _ in self._facts), default=0) + 2
        shown = ""
        for name, value in self._facts:
            lines = textwrap.wrap(
                printable(value), max(options.max_width - left, 20), break_long_words=False, break_on_hyphens=False
            ) or [""]
            for number, line in enumerate(lines):
                label = name if number == 0 and name != shown else ""
                yield Text(f"{label:{left}}{line}".rstrip(), no_wrap=True, overflow="ignore")
            shown = name


def write_plainly(stream: TextIO) -> None:
    """What the encoding of a stream cannot write goes out in its nearest letters, or as an escape; never an error."""
    codecs.register_error(PLAIN, _plain)
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors=PLAIN)


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if ord(letter) in SURROGATES:
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    nearest = unicodedata.normalize("NFKD", letter.translate(PUNCTUATION))
    plain = "".join(part for part in nearest if not unicodedata.combining(part))
    return plain if plain.isascii() else letter.encode("ascii", "backslashreplace").decode(), error.start + 1
