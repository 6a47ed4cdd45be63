"""What no party.toml can raise: numbers a clock or a database holds, words a terminal shows, the work of a plan.

A specification comes from an operator's keyboard or from a peer, so it is held to these before anything is computed.
"""

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import msgspec

from parties.wire.envelopes import CONTROL_LIMIT
from vfl.errors import ImpossibleJob, SpecError
from vfl.kind import one_of_each_role
from vfl.kinds import kind_of, read_spec
from vfl.spec.job import JobSpec

SPEC_BYTES = CONTROL_LIMIT - (1 << 10)
"""A proposal is one control message; the rest of it is the commitment and what its coordinator fills in."""
TEXT_BYTES, TEXT_DEPTH = 256 << 10, 16
"""Of a TOML document before it is read: reading a key of many dots takes memory by the square of their number."""
MODEL_BYTES = 256 << 20
"""Of any party's part of a model; a party's own [acceptance] sets its own limit below."""
WORD_LETTERS, PURPOSE_LETTERS = 200, 2000
STEPS = 1_000_000
NUMBERS = {
    "epochs": 100_000,
    "rows_per_class": 1000,
    "steps": 10_000,
    "server_rows": 1000,
    "server_steps": 10_000,
    "server_epochs": 1000,
    "rounds": 100_000,
    "local_epochs": 1000,
    "first_epochs": 1000,
    "align_epochs": 1000,
    "distil_epochs": 1000,
    "classes": 1000,
    "deadline_seconds": 366 * 86_400,
    "seed": (1 << 63) - 1,
    "rate": 1_000_000,
    "weight_decay": 1_000_000,
    "scale": 1_000_000,
    "hidden": 2048,
    "student_hidden": 2048,
    "out": 2048,
    "input_shape": 4096,
}
"""By the last word of a key. Of layers the widths: a peer chooses them, and our worker holds the weights."""
LARGEST = 1 << 31
"""Of every other number."""
WIDTHS = {"hidden", "student_hidden", "input_shape"}
LAYERS = 8
INVISIBLE = {"Cc", "Cf", "Cs"}
"""Unicode categories of control and format characters and of half surrogate pairs: they can redraw a terminal."""


def read_limited(text: str) -> JobSpec:
    """An operator's TOML, read and held to the limits of a proposal. Raises SpecError."""
    check_text(text)
    try:
        spec = read_spec(text)
    except ValueError as error:
        raise SpecError(f"job specification: {TOO_LONG}") from error
    check_limits(spec)
    size = len(spec.encoded())
    if size > SPEC_BYTES:
        raise SpecError(
            f"job specification: it has {size} bytes, more than the {SPEC_BYTES} one proposal carries",
            fix="Bring fewer columns or name fewer parties, or give them shorter names.",
        )
    return spec


def check_text(text: str) -> None:
    """Size and depth of a TOML document, before it is read. Raises SpecError."""
    size = len(text.encode(errors="surrogatepass"))
    if size > TEXT_BYTES:
        raise SpecError(f"job specification: its text has {size} bytes; {TEXT_BYTES} is the most")
    depth, skeleton = 0, _without_strings(text)
    for bracket in re.finditer(r"[\[\]{}]", skeleton):
        depth = depth + 1 if bracket[0] in "[{" else max(0, depth - 1)
        if depth > TEXT_DEPTH:
            raise SpecError(f"job specification: {TOO_DEEP}; {TEXT_DEPTH} levels are the most")
    if dotted := _DEEP_KEY.search(skeleton):
        raise SpecError(
            f"job specification: {TOO_DEEP}: a key that begins with `{dotted[0][:40]}` has more than {TEXT_DEPTH} dots"
        )


TOO_DEEP, TOO_LONG = "it nests too deeply", "it holds a number too long to read"
_OPENING = re.compile(r"\"{3}|'{3}|[\"'#]")
_REST = {
    '"""': re.compile(r'(?:\\.|[^\\])*?"""', re.DOTALL),
    "'''": re.compile(r".*?'{3}", re.DOTALL),
    '"': re.compile(r'(?:\\.|[^"\\\n])*+"'),
    "'": re.compile(r"[^'\n]*+'"),
    "#": re.compile(r"[^\n]*+"),
}
"""What follows the opening of a TOML string or comment."""
_DEEP_KEY = re.compile(
    rf'(?<![\w"-])(?:[\w-]++|"")(?:[ \t]*+\.[ \t]*+(?:[\w-]++|"")){{{TEXT_DEPTH + 1},{TEXT_DEPTH + 1}}}'
)


def _without_strings(text: str) -> str:
    """Every string as an empty one and no comments: what is left of brackets and dots is structure."""
    pieces, at = [], 0
    while opening := _OPENING.search(text, at):
        pieces += [text[at : opening.start()], "" if opening[0] == "#" else '""']
        rest = _REST[opening[0]].match(text, opening.end())
        if rest is None:  # it does not end, which the reader says
            return "".join(pieces)
        at = rest.end()
    return "".join([*pieces, text[at:]])


def check_limits(spec: JobSpec) -> None:
    """Raises SpecError, naming the key and its limit."""
    for key, value in _leaves("", spec):
        match value:
            case str():
                _check_word(key, value)
            case bool():
                pass
            case int() | float():
                most = NUMBERS.get(key.rpartition(".")[2], LARGEST)
                if not -most <= value <= most:
                    raise SpecError(f"job specification: {key} is {_short(value)}; {most} is the most it can be")
            case tuple() if key.rpartition(".")[2] in WIDTHS and len(value) > LAYERS:
                raise SpecError(f"job specification: {key} has {len(value)} layers; {LAYERS} is the most")
    for party in one_of_each_role(spec).values():
        size = kind_of(spec).model_bytes(spec, party)
        if size > MODEL_BYTES:
            raise SpecError(
                f"job specification: the model of {party} has {_short(size)} bytes; {MODEL_BYTES} is the most",
                fix="Give it fewer inputs, or fewer or narrower layers.",
            )


def check_steps(spec: JobSpec, rows: int) -> None:
    """Before a plan is made, which looks at every step. Raises ImpossibleJob."""
    steps = spec.steps_on(rows)
    if steps > STEPS:
        raise ImpossibleJob(
            f"{rows} rows make {steps} steps over the whole job; {STEPS} is the most",
            fix="Take larger batches, or fewer epochs or rounds.",
        )


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Every number, word and list of a specification, under its key as it is written in TOML."""
    match value:
        case msgspec.Struct():
            for field in value.__struct_fields__:
                yield from _leaves(f"{key}.{field}" if key else field, getattr(value, field))
        case dict():
            for name, inner in value.items():
                yield key, name
                yield from _leaves(f"{key}.{name}", inner)
        case tuple():
            yield key, value
            for inner in value:
                yield from _leaves(key, inner)
        case _:
            yield key, value


def _check_word(key: str, word: str) -> None:
    purpose = key == "job.purpose"
    word, most = (word.replace("\n", " "), PURPOSE_LETTERS) if purpose else (word, WORD_LETTERS)
    if len(word) > most:
        raise SpecError(f"job specification: {key} holds a text of {len(word)} letters; {most} is the most")
    if any(unicodedata.category(letter) in INVISIBLE for letter in word):
        raise SpecError(f"job specification: {key} holds control characters: {word!a}")


def _short(number: float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number) if abs(number) < 10**20 else _LONG


_LONG = "a number of more than twenty digits"
