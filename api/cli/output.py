"""How every command answers: results to stdout, all else to stderr, one JSON envelope, a closed set of exit codes.

The contract is cli.md.
"""

import enum
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

SCHEMA_VERSION = "1"
WIDTH = 80
"""Columns of a result that does not go to a terminal."""


class Format(enum.StrEnum):
    """How a command prints its result."""

    TEXT = "text"
    JSON = "json"


class StreamFormat(enum.StrEnum):
    """The same for a command that also prints events while it runs."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


class Exit(enum.IntEnum):
    """Exit codes; the shell sees no others."""

    OK = 0
    JOB = 1
    """The job failed, was cancelled or refused by a party's rules."""
    CONNECTION = 2
    """No server, or it does not know us."""
    TIMEOUT = 3
    ARGUMENTS = 4
    """Arguments, files or a job specification."""
    INTERNAL = 5
    INTERRUPTED = 130


FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]
StreamFormatOption = Annotated[StreamFormat, typer.Option("--format", help="How to print events and the result.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print the result only, no progress.")]


class CommandFailed(Exception):
    """A command ends with an error a person can act on."""

    def __init__(
        self, exit_code: Exit, code: str, message: str, *, fix: str = "", safe: str = "", data: Any = None
    ) -> None:
        super().__init__(message)
        self.exit_code, self.code, self.fix, self.safe, self.data = exit_code, code, fix, safe, data


def envelope(data: Any, failure: CommandFailed | None = None) -> dict[str, Any]:
    """The one shape of JSON every command prints."""
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "error" if failure else "ok",
        "data": data,
        "error_code": failure.code if failure else None,
        "message": sentences(str(failure), failure.safe) if failure else None,
        "hint": (failure.fix or None) if failure else None,
        "docs": f"docs/errors.md#{failure.code}" if failure else None,
    }


def result(output: Format | StreamFormat, data: Any, shown: "Callable[[], RenderableType]") -> None:
    """Print a command's result: the envelope, or what `shown` makes of it."""
    match output.value:
        case "text":
            renderable = shown()
            if isinstance(renderable, str):
                print(renderable)  # noqa: T201 - as it is: a command to copy must not be wrapped
            else:
                results_console().print(renderable, crop=False)
        case "json":
            print_json(envelope(data), indent=2)
        case _:
            print_json(envelope(data))


def print_json(value: Any, indent: int | None = None) -> None:
    """On stdout; letters its encoding cannot write become the escapes of JSON, so that the value stays the same."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent)
    print(text, flush=True)  # noqa: T201


def fail(failure: CommandFailed, output: str) -> NoReturn:
    """Print a failure the way `output` asks for and exit."""
    if output == "text":
        note(f"error: {sentences(str(failure))}", *filter(None, (failure.safe, failure.fix, f"[{failure.code}]")))
    else:
        print_json(envelope(failure.data, failure), indent=2 if output == "json" else None)
    flush()
    sys.exit(failure.exit_code)


def note(*lines: str) -> None:
    """A line for the person at the terminal; never part of the result."""
    for line in lines:
        print(line, file=sys.stderr, flush=True)  # noqa: T201


def sentences(*parts: str) -> str:
    """Texts as sentences behind each other."""
    return " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in parts if part)


def results_console() -> "Console":
    """Stdout for text: 80 columns and no colour when it is not a terminal or NO_COLOR is set."""
    return _console(stderr=False)


def notes_console() -> "Console":
    """Stderr, for progress."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console  # noqa: PLC0415 - not needed for JSON

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        width=None if stream.isatty() or "COLUMNS" in os.environ else WIDTH,
        highlight=False,
        soft_wrap=False,
    )


def wanted_format(arguments: Sequence[str]) -> str:
    """The format these arguments ask for, read before they are known to be right, so that errors keep it."""
    for position, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--format":
            value = value if equals else "".join(arguments[position + 1 : position + 2])
            return value if value in set(StreamFormat) else "text"
    return "text"


def flush() -> None:
    """Write out what is buffered; a reader that went away is no error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
