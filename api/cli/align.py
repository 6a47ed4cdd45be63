"""`vfl align`: find the rows that this party and others have in common, without writing a specification."""

from enum import StrEnum
from typing import Annotated

import typer

from api.cli.connection import CaOption, PartyOption, ServerOption, TokenFileOption, connected
from api.cli.output import CommandFailed, Exit, Format, FormatOption
from api.cli.written_specification import tell_of
from api.written_specifications import alignment_specification


class IdType(StrEnum):
    TEXT = "text"
    INTEGER = "integer"


def align(
    peer: Annotated[list[str], typer.Argument(metavar="PEER...", help="With whom; the names of trusted peers.")],
    data: Annotated[str, typer.Option("--data", metavar="NAME", help="Data set of this party.")],
    id_columns: Annotated[
        list[str], typer.Option("--id", metavar="COL", help="Column of ids; repeat it for ids of several columns.")
    ],
    peer_data: Annotated[
        str, typer.Option(metavar="NAME", help="Data set of the peers (default: the same name).")
    ] = "",
    peer_id: Annotated[
        list[str] | None, typer.Option(metavar="COL", help="Its column of ids (default: the same names).")
    ] = None,
    types: Annotated[
        list[IdType] | None,
        typer.Option("--type", metavar="TYPE", help="Of each column: text or integer (default: text)."),
    ] = None,
    size_only: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--size-only", help="Tell how many rows are common, not which.")
    ] = False,
    lower: Annotated[  # noqa: FBT002 - as above
        bool, typer.Option("--lower", help="Take capital and small letters for the same.")
    ] = False,
    minimum_ids: Annotated[int, typer.Option(metavar="N", min=1, help="Each party must bring so many.")] = 1000,
    purpose: Annotated[str, typer.Option(metavar="TEXT", help="Why; the peers' operators read it.")] = "",
    print_specification: Annotated[  # noqa: FBT002 - as above
        bool, typer.Option("--print", help="Print the specification, for a peer's `vfl grant create`; send nothing.")
    ] = False,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Find the rows that this party and its peers have in common, by their ids; no other row is shown.

    It starts when each peer has a grant for it, or its operator approves it. `vfl job show` tells the result.
    """
    kinds = [str(kind) for kind in types or [IdType.TEXT] * len(id_columns)]
    if not len(id_columns) == len(kinds) == len(peer_id or id_columns):
        raise CommandFailed(
            Exit.ARGUMENTS,
            "invalid_arguments",
            "--id, --peer-id and --type must be given the same number of times",
            fix="An id of two columns takes two of each: --id country --id number --type text --type integer",
        )
    with connected(server, token_file, ca, party) as client:
        own = client.peers()["party"]
        brought = {own: (data, id_columns)} | dict.fromkeys(peer, (peer_data or data, peer_id or id_columns))
        rules = {
            "types": kinds,
            "case": "lower" if lower else "keep",
            "reveal": "size-only" if size_only else "intersection",
            "minimum_ids": minimum_ids,
        }
        text = alignment_specification(brought, rules, purpose)
        job = None if print_specification else client.submit(text)
    where = (server, token_file, ca, party)
    tell_of(text, job, output, afterwards=("show", "tells the result"), where=where)
