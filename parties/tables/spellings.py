"""Two texts that a person reads as one and a program does not: which difference keeps them apart."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))
_SPACES = re.compile(r"[^\S ]|\u3000")
_WHOLE = re.compile(r"([+-]?)0*(\d+)")
_POINT_ZERO = re.compile(r"([+-]?\d+)\.0*")
SCIENTIFIC = re.compile(r"[+-]?\d(\.\d+)?[eE]\+?\d{1,2}")

MISSING = {"na", "n/a", "#n/a", "null", "none", "missing", "unknown", "?", "-", "--", ".", "nil", "<na>"}
"""What many a program writes where a value is missing, in lower case."""


@dataclass(frozen=True)
class Difference:
    """`without` takes it away."""

    text: str
    without: Callable[[str], str]


def _visible(text: str) -> str:
    return text.translate(_INVISIBLE)


def _spaced(text: str) -> str:
    return _SPACES.sub(" ", text)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _pointless(text: str) -> str:
    match = _POINT_ZERO.fullmatch(text)
    return match[1] if match else text


def _written_out(text: str) -> str:
    if not SCIENTIFIC.fullmatch(text):
        return text
    number = Decimal(text)
    return str(int(number)) if number == int(number) else text


def _unquoted(text: str) -> str:
    """Also as spreadsheets write a number that is to stay text: ="007"."""
    return re.sub(r"""^=(?=["'])""", "", text).strip("\"'")


def _unpadded(text: str) -> str:
    return _WHOLE.sub(r"\1\2", text) if _WHOLE.fullmatch(text) else text


OF_NAMES = (
    Difference("an invisible character (a byte order mark or a zero-width space)", _visible),
    Difference("a space of another kind (a non-breaking one, or a tab)", _spaced),
    Difference("a space at the start or the end", str.strip),
    Difference("quotation marks", _unquoted),
    Difference("the Unicode form of a letter (composed or decomposed)", _composed),
    Difference("capital and small letters", str.casefold),
)
"""In the order in which they are taken away together."""
OF_IDS = (
    *OF_NAMES,
    Difference("scientific notation (1.2E+17)", _written_out),
    Difference("a decimal point with zeros after it (1.0 for 1)", _pointless),
    Difference("leading zeros (007 for 7)", _unpadded),
)


def plain(text: str, differences: tuple[Difference, ...] = OF_NAMES) -> str:
    """Without any of these differences."""
    for difference in differences:
        text = difference.without(text)
    return text


def between(first: str, second: str, differences: tuple[Difference, ...] = OF_NAMES) -> str:
    """The differences that keep two texts apart, in words; empty when there are others beside these."""
    if first == second or plain(first, differences) != plain(second, differences):
        return ""
    for difference in differences:
        if difference.without(first) == difference.without(second):
            return difference.text
    each = [here for here in differences if here.without(first) != first or here.without(second) != second]
    return " and ".join(difference.text for difference in each)
