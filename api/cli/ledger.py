"""`vfl ledger`: what each peer has read of this party's columns, over all jobs."""

from typing import TYPE_CHECKING, Any

from api.cli.connection import CaOption, PartyOption, ServerOption, TokenFileOption, connected
from api.cli.output import Format, FormatOption, note, result

if TYPE_CHECKING:
    from rich.console import RenderableType


def ledger(
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show how much each peer has read of each column, over the life of its file, and how much rho is left."""
    with connected(server, token_file, ca, party) as client:
        accounts = client.ledger()
    result(output, accounts, lambda: _table(accounts))
    if output is Format.TEXT and accounts["lines"]:
        note(f"The cap of rho is {accounts['maximum_rho']:g}, for each peer, file and column (acceptance.maximum_rho).")


def _table(accounts: dict[str, Any]) -> "RenderableType":
    from rich.table import Table  # noqa: PLC0415 - only for text

    if not accounts["lines"]:
        return "no peer has read anything that was computed from this party's columns"
    table = Table(box=None, pad_edge=False)
    for heading in ("peer", "data", "file", "column"):
        table.add_column(heading)
    for heading in ("read", "rho", "open jobs", "rho left"):
        table.add_column(heading, justify="right")
    for line in accounts["lines"]:
        left = max(0.0, accounts["maximum_rho"] - line["rho"] - line["open_rho"])
        unit = "" if line["counted"] == "values" else f" {line['counted']}"
        table.add_row(
            line["peer"],
            line["dataset"],
            line["digest"][:8],
            line["column"],
            f"{line['values']:,}{unit}",
            f"{line['rho']:.3g}",
            f"{line['open_values']:,}",
            f"{left:.3g}",
        )
    return table
