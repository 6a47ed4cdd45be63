"""`vfl job pause` and `resume`: an operator stops the work of a training for a while."""

from api.cli.approval import JobArgument
from api.cli.connection import CaOption, PartyOption, ServerOption, TokenFileOption, connected, job_command
from api.cli.output import Format, FormatOption, note, result


def pause(
    job_id: JobArgument,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Stop the work of a training on both sides until this party resumes it.

    It goes on from its newest checkpoint. Its deadline stays as it is.
    """
    with connected(server, token_file, ca, party) as client:
        job = client.order(job_id, "pause")
    result(output, job, lambda: f"{job['id']} is paused by the operator of {job['party']}")
    if output is Format.TEXT:
        note(f"`{job_command('resume', job_id, server, token_file, ca, party)}` lets it go on, until its deadline.")


def resume(
    job_id: JobArgument,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Let a training go on that this party has paused."""
    with connected(server, token_file, ca, party) as client:
        job = client.order(job_id, "resume")
    waits = f"; it waits for {job['waits_for']}" if job["waits_for"] else ""
    result(output, job, lambda: f"{job['id']} is resumed by the operator of {job['party']}{waits}")
