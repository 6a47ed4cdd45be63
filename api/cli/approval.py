"""`vfl job approve`, `reject` and `diff`: the operator decides about a job that no grant covers."""

from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.connection import CaOption, PartyOption, ServerOption, TokenFileOption, connected
from api.cli.output import CommandFailed, Exit, Format, FormatOption, note, result
from api.cli.question import need_terminal, said_yes

if TYPE_CHECKING:
    from api.client import Client

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; stored with the decision.")]


def approve(
    job_id: JobArgument,
    reason: ReasonOption = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; you have read the summary.")] = False,  # noqa: FBT002
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Let a job use the data of this party.

    At a terminal the command first shows the job in plain sentences, and asks.
    """
    with connected(server, token_file, ca, party) as client:
        if not yes:
            _ask(client, job_id)
        job = client.approve(job_id, reason)
    result(output, job, lambda: f"{job['id']} is approved by the operator of {job['party']}")


def reject(
    job_id: JobArgument,
    reason: ReasonOption = "",
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """End a job that waits for this operator; its coordinator reads the reason."""
    with connected(server, token_file, ca, party) as client:
        job = client.reject(job_id, reason)
    result(output, job, lambda: f"{job['id']} is rejected")


def diff(
    job_id: JobArgument,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show a job in plain sentences, and what differs from the last one that was approved with the same parties."""
    with connected(server, token_file, ca, party) as client:
        summary = client.summary(job_id)
    result(output, summary, lambda: str(summary["text"]))


def _ask(client: "Client", job_id: str) -> None:
    waits = "The job still waits."
    need_terminal(f"Read `vfl job diff {job_id}`, then run the command with --yes.", waits)
    note(client.summary(job_id)["text"])
    if not said_yes("Type yes to approve this job"):
        raise CommandFailed(
            Exit.ARGUMENTS,
            "not_confirmed",
            "the job was not approved",
            safe=waits,
            fix=f"`vfl job reject {job_id}` ends it.",
        )
