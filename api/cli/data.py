"""`vfl data`: the tables of this party that jobs may name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.connection import CaOption, PartyOption, ServerOption, TokenFileOption, connected
from api.cli.output import Format, FormatOption, note, result
from api.cli.written_file import ForceOption, check_place, write_file

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

app = typer.Typer(help="Add tables as data sets for jobs, and look at them.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What specifications call the data set.")]


@app.command("add")
def add(
    name: NameArgument,
    source: Annotated[
        str, typer.Argument(metavar="PATH", help="A CSV, Parquet or Arrow file; with --query the URL of a database.")
    ],
    id_column: Annotated[
        list[str], typer.Option("--id", metavar="COLUMN", help="The ids; repeat where several columns make an id.")
    ],
    query: Annotated[str, typer.Option(metavar="SQL", help="Keep the answer to this query as the table.")] = "",
    label: Annotated[str, typer.Option(metavar="COLUMN", help="A label, which no job may take as an input.")] = "",
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a CSV file, such as utf-8, utf-16 or windows-1252.")
    ] = None,
    separator: Annotated[str | None, typer.Option(metavar="SIGN", help="Between the fields of a CSV file.")] = None,
    quote: Annotated[str | None, typer.Option(metavar="SIGN", help="The quotation mark of a CSV file.")] = None,
    decimal: Annotated[
        str | None, typer.Option(metavar="SIGN", help="Of numbers in a CSV file: a point or a comma.")
    ] = None,
    missing: Annotated[
        list[str] | None, typer.Option(metavar="WORD", help="Stands for an empty cell; repeat for each word.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="In place of a data set of this name.")] = False,  # noqa: FBT002
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Add a table as a data set: it is read and profiled once, and stays where it is; the answer to a query is kept.

    How a CSV file is written is found, said and stored, as far as no option states it.
    """
    asked = {
        "name": name,
        "source": source if query else str(Path(source).absolute()),
        "id": id_column,
        "query": query,
        "label": label,
        "encoding": encoding,
        "separator": "\t" if separator == "\\t" else separator,
        "quote": quote,
        "decimal": decimal,
        "missing": missing or None,
        "replace": replace,
    }
    with connected(server, token_file, ca, party) as client:
        added = client.add_dataset(asked)
    result(output, added, lambda: f"{added['name']}: {added['rows']:,} rows, {added['columns']} columns")
    if output is Format.TEXT:
        note(*(f"{each['kind']}: {each['text']}" for each in added["notices"]))


@app.command("list")
def list_datasets(
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """List the data sets of this party."""
    with connected(server, token_file, ca, party) as client:
        answer = client.datasets()
    result(output, answer, lambda: _table(answer["datasets"]))


@app.command("profile")
def profile(
    name: NameArgument,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show the columns of a data set: type, gaps, values, range, and what is suspicious.

    The profile holds values of the table: it is for its owner.
    """
    with connected(server, token_file, ca, party) as client:
        answer = client.profile(name)
    result(output, answer, lambda: _columns(answer))


@app.command("mock")
def mock(
    name: NameArgument,
    rows: Annotated[int, typer.Option(metavar="N", min=1, max=100_000)] = 1000,
    seed: Annotated[int, typer.Option(metavar="N", min=0)] = 0,
    destination: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Default: mock-NAME.csv in this folder.")
    ] = None,
    force: ForceOption = False,  # noqa: FBT002 - a flag of the command line
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write a made-up table with the same columns and types, for a peer to develop against.

    No value of the table enters it, and no range, category or number of rows.
    """
    path = destination or Path(f"mock-{name}.csv")
    check_place(path, force=force)
    with connected(server, token_file, ca, party) as client:
        pieces: list[bytes] = []
        client.mock(name, rows, seed, pieces.append)
    write_file(path, b"".join(pieces), force=force)
    result(output, {"dataset": name, "rows": rows, "file": str(path)}, lambda: str(path))


@app.command("remove")
def remove(
    name: NameArgument,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Take a data set away; its file stays, and jobs that run go on.

    What the ledger has counted of it stays too.
    """
    with connected(server, token_file, ca, party) as client:
        removed = client.remove_dataset(name)
    result(output, removed, lambda: f"{removed['name']} is no data set of this party any more")


def _table(datasets: list[dict[str, Any]]) -> "RenderableType":
    from rich.table import Table  # noqa: PLC0415 - only for text

    if not datasets:
        return "no data sets yet; `vfl data add NAME PATH --id COLUMN` adds one"
    table = Table(box=None, pad_edge=False)
    table.add_column("data set", no_wrap=True)
    for heading in ("rows", "columns", "ids", "label", "digest"):
        table.add_column(heading)
    # Its name alone: the folder, which is in the JSON, would hide it in a narrow terminal.
    table.add_column("file", overflow="fold")
    for each in datasets:
        counts = (f"{each['rows']:,}", str(each["columns"]))
        said = (", ".join(each["id"]), each["label"] or "-", each["digest"][:12], Path(each["source"]).name)
        table.add_row(each["name"], *map(_plain, (*counts, *said)))
    return table


def _columns(answer: dict[str, Any]) -> "RenderableType":
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, title=f"{answer['name']}: {answer['rows']:,} rows", title_justify="left")
    for heading in ("column", "type", "missing", "values", "range or most common", "suspicious"):
        table.add_column(heading)
    for each in answer["columns"]:
        shown = ", ".join(f"{common['value']} ({common['rows']:,})" for common in each["common"])
        if each["least"] is not None:
            shown = f"{_end(each['least'])} to {_end(each['greatest'])}"
        counts, suspicious = (f"{each['missing']:,}", f"{each['distinct']:,}"), ", ".join(each["suspicious"])
        table.add_row(*map(_plain, (each["name"], each["type"], *counts, shown, suspicious)))
    return table


def _plain(text: str) -> "Text":
    """Files choose some of the words."""
    from rich.text import Text  # noqa: PLC0415

    from parties.errors import printable  # noqa: PLC0415

    return Text(printable(text))


def _end(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
