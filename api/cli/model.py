"""`vfl model`: the models of which this party holds its half."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.connection import CaOption, PartyOption, ServerOption, TokenFileOption, connected
from api.cli.output import CommandFailed, Exit, Format, FormatOption, result
from api.cli.text import Facts
from api.metrics import measured

if TYPE_CHECKING:
    from rich.console import RenderableType

app = typer.Typer(
    help="Look at the trained models of this party, take its half of one out, bring it back.", no_args_is_help=True
)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The id of the job that trained it.")]


@app.command("list")
def list_models(
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """List the models of which this party holds its half, newest first."""
    with connected(server, token_file, ca, party) as client:
        answer = client.models()
    result(output, answer, lambda: _table(answer["models"]))


@app.command("show")
def show(
    model: ModelArgument,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show one model: its columns, what it measured, its digests, and what was scored with it."""
    with connected(server, token_file, ca, party) as client:
        answer = client.model(model)
    result(output, answer, lambda: Facts(_facts(answer)))


@app.command("export")
def export(
    model: ModelArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to make; it must not exist yet.")],
    with_onnx: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--onnx", help="Write the half as ONNX graphs too; needs the extra onnx.")
    ] = False,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write this party's half of a model, signed: weights as safetensors, manifest, measures, and the specification.

    Both halves, brought together, score rows without a server. Whoever has both can read what the model has learned
    of either side.
    """
    from parties.onnx_half import check_onnx, write_graphs  # noqa: PLC0415 - polars and more, for this command alone

    if with_onnx:
        check_onnx()
    with connected(server, token_file, ca, party) as client:
        try:
            client.export_model(model, folder)
            graphs = write_graphs(folder) if with_onnx else []
        except OSError as error:
            raise CommandFailed(
                Exit.ARGUMENTS,
                "storage_failed",
                f"{folder} cannot be written: {error.strerror}",
                fix="Name a folder that does not exist yet.",
            ) from error
    result(output, {"model": model, "folder": str(folder), "onnx": graphs}, lambda: str(folder))


@app.command("score")
def score(
    model: ModelArgument,
    ids: Annotated[
        list[str], typer.Option("--id", metavar="ID", help="A row, as its id is written in this party's file; repeat.")
    ],
    job: Annotated[str, typer.Option(metavar="JOB", help="The session, where several of the model are open.")] = "",
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Score rows now, in the session that `vfl predict --session` has opened."""
    with connected(server, token_file, ca, party) as client:
        answer = client.predict(model, {"ids": ids, "job": job})
    result(output, answer, lambda: _scores(answer["rows"]))


def _scores(rows: list[dict[str, Any]]) -> "RenderableType":
    from rich.table import Table  # noqa: PLC0415 - only for text

    names = next((list(row["scores"]) for row in rows if row["scores"]), [])
    table = Table("id", "state", *names, box=None, pad_edge=False)
    for row in rows:
        scores = [(row["scores"] or {}).get(name) for name in names]
        table.add_row(", ".join(row["id"]), row["state"], *("" if each is None else f"{each:g}" for each in scores))
    return table


@app.command("import")
def import_half(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What `vfl model export` wrote.")],
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Hold again a half that this party has exported, where the server has lost it.

    The folder lies on the machine of the server.
    """
    with connected(server, token_file, ca, party) as client:
        answer = client.import_model(str(folder if server else folder.resolve()))
    result(output, answer, lambda: Facts(_facts(answer)))


def _table(models: list[dict[str, Any]]) -> "RenderableType":
    from rich.table import Table  # noqa: PLC0415 - only for text

    if not models:
        return "no models yet; a training that is done leaves one"
    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True, min_width=max(len(model["training"]) for model in models))
    for heading in ("name", "as", "with", "reached", "predictions"):
        table.add_column(heading)
    for model in models:
        reached = ", ".join(f"{metric.name} {metric}" for metric in list(measured(model["metrics"]))[:1])
        peers, predictions = ", ".join(model["peers"]), str(len(model["predictions"]))
        table.add_row(model["training"], model["name"], model["role"], peers, reached, predictions)
    return table


def _facts(model: dict[str, Any]) -> Any:
    yield "model", model["training"]
    yield "name", model["name"]
    yield "trained", f"{model['finished_at']}, {model['protocol']}, {model['task']}"
    yield "party", f"{model['party']} ({model['role']} party), with {', '.join(model['peers'])}"
    yield "columns", ", ".join(model["columns"]) or "none"
    if model["label"]:
        yield "label", model["label"]
    if model["classes"]:
        yield "classes", ", ".join(model["classes"])
    yield from ((metric.name, str(metric)) for metric in measured(model["metrics"]))
    yield "specification", model["spec_digest"]
    yield "own half", model["model_digest"]
    yield "manifest", model["manifest_digest"]
    yield from (("prediction", job) for job in model["predictions"])
