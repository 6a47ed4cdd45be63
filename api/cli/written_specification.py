"""The specifications that commands write for their user: printed for a grant, or submitted."""

from pathlib import Path
from typing import Any

from api.cli.connection import job_command
from api.cli.output import Format, note, result


def tell_of(
    text: str,
    job: dict[str, Any] | None,
    output: Format,
    *,
    afterwards: tuple[str, str],
    where: tuple[str | None, Path | None, Path | None, Path | None],
) -> None:
    """Print the specification, or of a submitted job its id, what the party is told, and the commands that follow it.

    `afterwards` is the verb of the last command and what it does; `where` are the options that name the server.
    """
    if job is None:
        result(output, {"specification": text}, text.rstrip)
        return
    result(output, job, lambda: str(job["id"]))
    if output is Format.TEXT:
        verb, does = afterwards
        note(*(f"{notice['kind']}: {notice['text']}" for notice in job["notices"]))
        note(
            f"`{job_command('watch', job['id'], *where)}` follows it; `{job_command(verb, job['id'], *where)}` {does}."
        )
