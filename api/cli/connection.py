"""How a command finds its server: --server with --token-file and --ca, or the folder of a party on this machine."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.output import CommandFailed, Exit

if TYPE_CHECKING:
    from api.client import Client

PARTY_FILE = "party.toml"

ServerOption = Annotated[
    str | None, typer.Option("--server", metavar="URL", help="Operator address of a party's server.")
]
TokenFileOption = Annotated[Path | None, typer.Option("--token-file", help="File with the operator token of --server.")]
CaOption = Annotated[
    Path | None, typer.Option("--ca", metavar="FILE", help="Certificate that vouches for an https --server.")
]
PartyOption = Annotated[
    Path | None, typer.Option("--party", metavar="DIR", help="Folder of a party (default: this folder).")
]


def job_command(
    verb: str, job_id: str, server: str | None, token_file: Path | None, ca: Path | None, party: Path | None
) -> str:
    """A command to copy: it finds the server that this one found."""
    named = {"--server": server, "--token-file": token_file, "--ca": ca, "--party": party}
    options = [word for option, value in named.items() if value for word in (option, str(value))]
    return shlex.join(["vfl", "job", verb, job_id, *options])


@contextmanager
def connected(server: str | None, token_file: Path | None, ca: Path | None, party: Path | None) -> Iterator["Client"]:
    """A client for the server these options name. Whatever it cannot do leaves the block as a CommandFailed."""
    from api.client import Client, read_token, trusting  # noqa: PLC0415 - httpx, which help can do without

    if server and party:
        raise CommandFailed(
            Exit.ARGUMENTS, "invalid_arguments", "--server and --party name two servers", fix="Give one."
        )
    if ca and not (server or "").startswith("https://"):
        raise CommandFailed(
            Exit.ARGUMENTS, "invalid_arguments", "--ca needs --server https://HOST:PORT", fix="Give both, or neither."
        )
    if server and not token_file:
        raise CommandFailed(
            Exit.ARGUMENTS,
            "invalid_arguments",
            "--server needs --token-file",
            fix="It is the operator.token in the party's folder.",
        )
    folder = party or Path()
    if not server and not (folder / PARTY_FILE).is_file():
        raise CommandFailed(
            Exit.ARGUMENTS,
            "party_not_found",
            f"there is no {PARTY_FILE} in {folder.resolve()}",
            fix="Go to a party's folder, or name one with --party DIR, or a server with --server URL.",
        )
    with translated():
        if server and token_file:
            made = Client(server, read_token(token_file), tls=trusting(ca) if ca else None)
        else:
            made = Client.from_folder(folder)
        with made as client:
            yield client


@contextmanager
def translated() -> Iterator[None]:
    """A request that did not succeed leaves the block as a CommandFailed with its exit code."""
    from api.client_problems import AnswerOverdue, RequestRefused, ServerProblem  # noqa: PLC0415

    try:
        yield
    except ServerProblem as problem:
        exit_code = Exit.CONNECTION
        if isinstance(problem, AnswerOverdue):
            exit_code = Exit.TIMEOUT
        elif isinstance(problem, RequestRefused):
            exit_code = exit_of(problem.status)
        raise CommandFailed(exit_code, problem.code, str(problem), fix=problem.fix, safe=problem.safe) from problem


def exit_of(status: int) -> Exit:
    """The exit code of a request the server refused: what was asked, the peer, its own fault, or else a rule."""
    return {
        400: Exit.ARGUMENTS,
        404: Exit.ARGUMENTS,
        422: Exit.ARGUMENTS,
        500: Exit.INTERNAL,
        502: Exit.CONNECTION,
    }.get(status, Exit.JOB)
