"""`vfl job check`: what a specification would do, refuse or warn about, without a peer and without a server."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from api.cli.output import Format, FormatOption, result
from api.cli.run import SpecArgument, specification
from api.cli.text import Facts
from api.sizes import readable_bytes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from parties.job_check import JobCheck, Side
    from vfl.planning.plan import Forecast

SHOWN_PARTIES = 4


def check(
    spec: SpecArgument,
    rows: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Rows of the parties' tables, on which values and bytes depend."),
    ] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Print what a job would do, refuse or warn about. Nothing is sent, no table is read."""
    with specification(spec) as text:
        from parties.job_check import check as look  # noqa: PLC0415
        from parties.limits import read_limited  # noqa: PLC0415
        from parties.simulation.specification import is_simulation, read_federation  # noqa: PLC0415 - after the arguments are right

        checked = look(read_federation(text).spec if is_simulation(text) else read_limited(text), rows)
    result(output, msgspec.to_builtins(checked), lambda: _shown(checked))


def _shown(checked: "JobCheck") -> "RenderableType":
    from rich.console import Group  # noqa: PLC0415 - only for text
    from rich.table import Table  # noqa: PLC0415

    learned = Table("who", "learns from", "in", box=None, pad_edge=False)
    learned.add_column("messages" if checked.cohort else "values", justify="right")
    learned.add_column("what")
    for line in checked.learned:
        values = "needs --rows" if line.values is None else f"{line.values:,}"
        learned.add_row(line.receiver, line.sender, line.message, values, line.learns)
    end = "Nothing in the specification is refused. Tables, and rules of the parties' own, were not looked at."
    return Group(
        f"{checked.name}: {checked.task}, protocol {checked.protocol}", "", Facts(_facts(checked)), "", learned, "", end
    )


def _facts(checked: "JobCheck") -> Iterator[tuple[str, str]]:
    for side in checked.sides:
        yield from _side(side)
    if checked.cohort is not None:
        yield "rounds", f"{checked.steps:,} at most, {checked.cohort:,} clients in each"
        yield "parts", ", ".join(checked.parts) or "none: federated averaging"
    elif checked.steps is not None:
        yield "steps", f"{checked.steps:,} on {checked.rows:,} rows"
    if checked.forecast is not None:
        yield from _forecast(checked.forecast)
    yield from _payload(checked)
    for text in checked.waived:
        yield "waived", f"refusal {text}, by rounds.allow"
    for text in checked.must_accept:
        yield "must accept", text
    for warning in checked.warnings:
        yield warning.kind, warning.text


def _side(side: "Side") -> Iterator[tuple[str, str]]:
    names = ", ".join(side.parties[:SHOWN_PARTIES])
    more = f" and {len(side.parties) - SHOWN_PARTIES:,} more" if len(side.parties) > SHOWN_PARTIES else ""
    yield f"{side.role} party" if side.role in {"label", "feature"} else side.role, f"{names}{more}"
    yield "  brings", ", ".join(side.brings)
    yield "  sends", ", ".join(side.sends)


def _forecast(forecast: "Forecast") -> Iterator[tuple[str, str]]:
    plain = forecast.without_parts
    yield "network", f"{forecast.parameters:,} trained values"
    yield "each round", f"{_compared(forecast.down, plain['down'])} to a client of its cohort"
    yield "each round", f"{_compared(forecast.up, plain['up'])} from it"
    yield "once", f"{readable_bytes(forecast.once_down)} to a client, {readable_bytes(forecast.once_up)} from it"
    yield "at the end", f"{readable_bytes(forecast.published)} to every client"
    yield "kept", f"{readable_bytes(forecast.stored)} at a client between rounds"
    down, up = readable_bytes(forecast.total_down), readable_bytes(forecast.total_up)
    yield "whole job", f"at most: aggregator sends {down}, clients send {up}"


def _compared(size: int, plain: int) -> str:
    """With how much plain federated averaging would send."""
    return readable_bytes(size) if size == plain else f"{readable_bytes(size)} (averaging {readable_bytes(plain)})"


def _payload(checked: "JobCheck") -> Iterator[tuple[str, str]]:
    for kind, size in (checked.payload_bytes or {}).items():
        if size:
            yield "whole job", f"{kind}: {readable_bytes(size)}"
