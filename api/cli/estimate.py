"""`vfl estimate`: what a job would take, before it is proposed; and the question that `vfl job submit` asks by it."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.connection import CaOption, PartyOption, ServerOption, TokenFileOption, connected
from api.cli.output import Format, FormatOption, note, notes_console, result
from api.cli.question import said_yes
from api.cli.run import specification
from api.cli.text import Facts
from api.sizes import readable_bytes, readable_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

    from api.client import Client

REQUEST = "one request"


def estimate(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Job specification, a TOML file.")],
    rows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Rows of every table, its own too (default: its own are read, others taken as many).",
        ),
    ] = None,
    together: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--together", help="All parties run on this machine, as in a demonstration.")
    ] = False,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Tell what a job would take: time, bytes, memory, opened values. No peer hears of it.

    The first time the server measures for some seconds what operations cost on its machine.
    """
    with specification(spec) as text, connected(server, token_file, ca, party) as client:
        foreseen = client.estimate(text, rows=rows, together=together)
    result(output, foreseen, lambda: shown(foreseen))


def agreed_to(client: "Client", text: str) -> bool:
    """Whether the person at the terminal wants the job, once its estimate is read. Nobody is asked in a pipe."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    note("estimating; where costs were not measured yet, this takes some seconds")
    notes_console().print(shown(client.estimate(text)))
    return said_yes("Propose this job? Type yes")


def shown(foreseen: dict[str, Any]) -> "RenderableType":
    return Facts(_facts(foreseen))


def _facts(foreseen: dict[str, Any]) -> Iterator[tuple[str, str]]:
    phases = {name: seconds for name, seconds in foreseen["phases"].items() if name != REQUEST}
    listed = ", ".join(f"{name} {readable_seconds(seconds)}" for name, seconds in phases.items())
    yield "time", f"{readable_seconds(foreseen['seconds'])} ({listed})"
    if REQUEST in foreseen["phases"]:
        yield "a request", f"{readable_seconds(foreseen['phases'][REQUEST])} for one row, while the session is open"
    yield "rows", f"{foreseen['rows_per_second']:,.0f} per second"
    for name, unit in (("bytes_sent", "sent by"), ("memory_bytes", "memory of")):
        for party, size in foreseen[name].items():
            yield f"{unit} {party}", readable_bytes(size)
    for party, values in foreseen["opened_values"].items():
        yield f"read by {party}", f"{values:,} {foreseen['counted']} at most"
    bits = foreseen["security_bits"]
    yield "encryption", f"{bits} bits of security" if bits else "none: what is sent is read in clear"
    for text in foreseen["assumed"]:
        yield "assumed", text
