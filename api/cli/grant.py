"""`vfl grant`: what peers may do with this party's data without asking its operator again."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.connection import CaOption, PartyOption, ServerOption, TokenFileOption, connected
from api.cli.output import CommandFailed, Exit, Format, FormatOption, note, result
from api.cli.run import specification

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(help="Allow jobs on this party's data in advance, and take that back.", no_args_is_help=True)
STANDING = "standing"


@app.command("create")
def create(
    spec: Annotated[
        Path | None, typer.Argument(metavar="SPEC", help="Specification of a job that the grant is to cover.")
    ] = None,
    job: Annotated[str, typer.Option("--job", metavar="JOB", help="In place of SPEC, a job that was proposed.")] = "",
    days: Annotated[int, typer.Option(metavar="N", min=1, max=366, help="How long the grant is good.")] = 30,
    uses: Annotated[str, typer.Option(metavar="N", help="For how many jobs; `standing` for any number.")] = "1",
    purpose: Annotated[
        str | None, typer.Option(metavar="TEXT", help='What job.purpose must be; "" for every purpose.')
    ] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A column that may be used; repeat for each one.")
    ] = None,
    maximum_epochs: Annotated[int | None, typer.Option(metavar="N", min=0, help="Epochs or rounds.")] = None,
    minimum_rows: Annotated[int | None, typer.Option(metavar="N", min=0, help="Rows to train on.")] = None,
    maximum_opened_values: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="What one job may reveal of the data set.")
    ] = None,
    maximum_rho: Annotated[float | None, typer.Option(metavar="RHO", min=0, help="Of one job.")] = None,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Grant what a job takes of this party's data, a grant for each data set.

    Without options the grants are as narrow as the job: its columns, its epochs, the present bytes of the file.
    """
    if (spec is None) == (not job):
        raise CommandFailed(Exit.ARGUMENTS, "invalid_arguments", "give either SPEC or --job JOB")
    if uses != STANDING and not uses.isdecimal():
        raise CommandFailed(Exit.ARGUMENTS, "invalid_arguments", f"--uses is a number or `{STANDING}`, not {uses!r}")
    terms = {
        "purpose": purpose,
        "columns": column or None,
        "maximum_epochs": maximum_epochs,
        "minimum_rows": minimum_rows,
        "maximum_opened_values": maximum_opened_values,
        "maximum_rho": maximum_rho,
    }
    asked = {
        "job": job,
        "days": days,
        "uses": uses if uses == STANDING else int(uses),
        "terms": {name: value for name, value in terms.items() if value is not None},
    }
    with specification(spec) if spec else nullcontext("") as text, connected(server, token_file, ca, party) as client:
        made = client.grant(asked | {"spec": text})
    result(output, made, lambda: _table(made["grants"]))


@app.command("list")
def list_grants(
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """List the grants of this party, newest first."""
    with connected(server, token_file, ca, party) as client:
        answer = client.grants()
    result(output, answer, lambda: _table(answer["grants"]))


@app.command("revoke")
def revoke(
    grant_id: Annotated[str, typer.Argument(metavar="GRANT", help="The grant's id.")],
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Take a grant back: it approves no further job. Jobs that it has approved go on."""
    with connected(server, token_file, ca, party) as client:
        revoked = client.revoke(grant_id)
    result(output, revoked, lambda: f"grant {revoked['id']} is revoked")
    if output is Format.TEXT and revoked["used"]:
        note(f"It has approved {revoked['used']} jobs; `vfl job cancel` ends one that still runs.")


def _table(grants: list[dict[str, Any]]) -> "RenderableType":
    from rich.table import Table  # noqa: PLC0415 - only for text

    if not grants:
        return "no grants yet; `vfl grant create SPEC` makes one"
    table = Table(box=None, pad_edge=False)
    table.add_column("grant", no_wrap=True)
    for heading in ("peer", "data", "columns", "at most", "used", "until"):
        table.add_column(heading)
    for grant in grants:
        columns = [*grant["columns"], *([f"label {grant['label']}"] if grant["label"] else [])]
        opened, rho = f"{grant['maximum_opened_values']:,} opened", f"rho {grant['maximum_rho']:.3g}"
        until = "revoked" if grant["revoked_at"] else grant["expires_at"][:10]
        table.add_row(
            grant["id"],
            grant["peer"],
            grant["dataset"],
            ", ".join(columns),
            f"{grant['maximum_epochs']} epochs, {opened}, {rho}",
            f"{grant['used']} of {grant['uses']}",
            until,
        )
    return table
