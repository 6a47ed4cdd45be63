"""`vfl predict`: score new rows with a trained model, without writing a specification."""

from pathlib import Path
from typing import Annotated

import typer

from api.cli.connection import CaOption, PartyOption, ServerOption, TokenFileOption, connected
from api.cli.output import Format, FormatOption, result
from api.cli.written_file import ForceOption, check_place, write_file
from api.cli.written_specification import tell_of
from api.written_specifications import prediction_specification


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The id of the job that trained it.")],
    data: Annotated[str, typer.Option("--data", metavar="NAME", help="Data set of this party with the new rows.")],
    peer_data: Annotated[
        str, typer.Option(metavar="NAME", help="Data set of the peers (default: the same name).")
    ] = "",
    alignment: Annotated[
        str, typer.Option(metavar="ID", help="An alignment of the new rows; without one both files are in one order.")
    ] = "",
    decimals: Annotated[int, typer.Option(metavar="N", min=0, max=6, help="To which scores are rounded.")] = 4,
    session: Annotated[
        float, typer.Option(metavar="MINUTES", min=0.0, help="Stay open so long, and score what is asked for.")
    ] = 0.0,
    purpose: Annotated[str, typer.Option(metavar="TEXT", help="What it is for; grants and operators read it.")] = "",
    print_specification: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--print", help="Print the specification, and submit nothing.")
    ] = False,
    own_columns_only: Annotated[  # noqa: FBT002 - a flag of the command line
        bool,
        typer.Option("--own-columns-only", help="Score without a peer, by this party's own columns: a weaker model."),
    ] = False,
    place: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="CSV to write; with --own-columns-only.")
    ] = None,
    force: ForceOption = False,  # noqa: FBT002 - a flag of the command line
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Score new rows jointly with the parties of a model; this party, the label party, alone reads the scores.

    With --own-columns-only nobody is asked: this party's own columns alone are scored, by the model that the training
    has fitted on them.

    It starts when each peer has a grant for it, or its operator approves it. `vfl job scores` writes the result. With
    --session no row is scored at once: `vfl model score` asks for some, until the minutes are over.
    """
    if own_columns_only:
        file = place or Path(f"own-columns-scores-{model}.csv")
        check_place(file, force=force)
        with connected(server, token_file, ca, party) as client:
            write_file(file, client.own_columns_scores(model, data, decimals), force=force)
        answer = {"model": model, "basis": "own_columns_only", "file": str(file)}
        result(output, answer, lambda: f"{file}: scores of this party's own columns alone; no joint scores")
        return
    with connected(server, token_file, ca, party) as client:
        roster = client.job(model)["specification"]["roster"]
        brought = dict.fromkeys(roster.get("features", ()), peer_data or data) | {roster.get("label", ""): data}
        text = prediction_specification(
            model, roster, brought, alignment=alignment, decimals=decimals, purpose=purpose, minutes=session
        )
        job = None if print_specification else client.submit(text)
    where = (server, token_file, ca, party)
    afterwards = ("end", "ends the session before its time") if session else ("scores", "writes the scores")
    tell_of(text, job, output, afterwards=afterwards, where=where)
