"""`vfl demo`: two real party servers on this machine, one job between them, and a report."""

import enum
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.errors import named
from api.cli.output import Exit, Failure, Format, FormatOption, QuietOption, envelope, note, result
from vfl.errors import JobError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from api.demo.agreement import Agreement
    from api.demo.folder import Place
    from api.demo.tables import DividedTable


class Dataset(enum.StrEnum):
    """Tables that come with the installation."""

    BREAST_CANCER = "breast-cancer"
    DIGITS = "digits"
    DIABETES = "diabetes"


class Scheme(enum.StrEnum):
    """What protects the features."""

    CKKS = "ckks"
    NONE = "none"


class Layout(enum.StrEnum):
    """What the feature party brings to the joint model."""

    FEATURES = "features"
    EMBEDDINGS = "embeddings"


class Top(enum.StrEnum):
    """The label party's model."""

    LINEAR = "linear"
    MLP = "mlp"


class Task(enum.StrEnum):
    """What is learned."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


OWN = "Your own tables"


def demo(
    dataset: Annotated[
        Dataset | None,
        typer.Option(metavar="NAME", help="breast-cancer (default), digits or diabetes, divided between two parties."),
    ] = None,
    scheme: Annotated[Scheme, typer.Option(help="Encrypted, or in clear for comparison.")] = Scheme.CKKS,
    layout: Annotated[
        Layout, typer.Option(help="The feature party's columns as they are, or what its own network makes of them.")
    ] = Layout.FEATURES,
    top: Annotated[Top, typer.Option(help="The label party's model: linear, or with hidden neurons.")] = Top.LINEAR,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Passes over the rows (default: by table).")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Fixes batches, held-out rows and first weights.")] = 0,
    output_folder: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Folder to leave everything in (default: new, in ./vfl-demo)."),
    ] = None,
    label_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The label party's CSV or Parquet.", rich_help_panel=OWN)
    ] = None,
    feature_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The feature party's.", rich_help_panel=OWN)
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", metavar="COLUMN", help="Id column of both files.", rich_help_panel=OWN)
    ] = None,
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Label column of --label-file.", rich_help_panel=OWN)
    ] = None,
    task: Annotated[
        Task | None,
        typer.Option(
            metavar="TASK",
            help="binary, multiclass or regression (default: told from the labels).",
            rich_help_panel=OWN,
        ),
    ] = None,
    output: FormatOption = Format.TEXT,
    quiet: QuietOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Train one model between two party servers on this machine, and report it.

    Each party is a server process of its own, with its own folder and only its own file.
    """
    own = {"--label-file": label_file, "--feature-file": feature_file, "--id": id_column, "--label": label}
    _check_arguments(dataset, own, task)
    if label_file and feature_file and id_column and label:
        from api.demo.own_tables import own_tables  # noqa: PLC0415 - polars and scikit-learn, after the arguments

        table = own_tables(label_file, feature_file, id_column, label, task.value if task else None)
    else:
        from api.demo.tables import BUNDLED  # noqa: PLC0415

        table = BUNDLED[(dataset or Dataset.BREAST_CANCER).value]()
    from api.demo.agreement import agree  # noqa: PLC0415 - after the arguments are right

    agreement = agree(table, scheme=scheme.value, epochs=epochs, seed=seed, layout=layout.value, top=top.value)
    data = _run(table, agreement, seed, output_folder, quiet=quiet)
    result(output, data, lambda: _shown(data))


def _check_arguments(dataset: Dataset | None, own: dict[str, Any], task: Task | None) -> None:
    given = [name for name, value in own.items() if value]
    if dataset and given:
        raise Failure(
            Exit.ARGUMENTS, "invalid_arguments", f"--dataset and {given[0]} exclude each other", fix="Give one."
        )
    if given and len(given) < len(own):
        missing = ", ".join(name for name in own if name not in given)
        raise Failure(
            Exit.ARGUMENTS,
            "invalid_arguments",
            f"own tables need {missing} as well",
            fix="For example: vfl demo --label-file a.csv --feature-file b.csv --id id --label y",
        )
    if task and not given:
        raise Failure(Exit.ARGUMENTS, "invalid_arguments", "--task is for own tables", fix="Leave it out.")


def _run(
    table: "DividedTable", agreement: "Agreement", seed: int, output_folder: Path | None, *, quiet: bool
) -> dict[str, Any]:
    from api.demo.folder import taken  # noqa: PLC0415 - after the arguments are right

    # Whatever ends this command ends the processes it started, like Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with taken(output_folder, table.name) as place:
        try:
            return _run_in(place, table, agreement, seed, quiet=quiet)
        except KeyboardInterrupt:
            note(f"interrupted; all processes of the demonstration have ended. Its folder is {place.folder}")
            raise typer.Exit(Exit.INTERRUPTED) from None


def _run_in(place: "Place", table: "DividedTable", agreement: "Agreement", seed: int, *, quiet: bool) -> dict[str, Any]:
    from api.cli.connection import translated  # noqa: PLC0415 - as above
    from api.cli.job import ended  # noqa: PLC0415
    from api.cli.progress import Progress  # noqa: PLC0415
    from api.demo.folder import finish  # noqa: PLC0415
    from api.demo.job import JobEnded  # noqa: PLC0415
    from api.demo.run import Demonstration, run  # noqa: PLC0415

    folder = place.folder
    try:
        with Progress(quiet=quiet) as progress, translated():
            progress.line(f"folder {folder}")
            if place.set_aside:
                progress.line(f"an unfinished demonstration was here; its files are in {place.set_aside}")
            for floor in agreement.floors:
                progress.line(f"floor lowered in both party.toml: {floor}")
            data = run(Demonstration(table, agreement, seed, folder), progress)
        finish(folder, envelope(data))
    except JobEnded as end:
        raise _keep(folder, ended(end.job)) from end
    except JobError as error:
        raise _keep(folder, named(error)) from error
    except Failure as failure:
        _keep(folder, failure)
        raise
    return data


def _keep(folder: Path, failure: Failure) -> Failure:
    """The failure, saying where the logs are."""
    kept = f"The folder {folder} is kept, with the logs of both parties."
    failure.safe = f"{failure.safe} {kept}".strip()
    return failure


def _shown(data: dict[str, Any]) -> "RenderableType":
    from rich.console import Group  # noqa: PLC0415 - only for text
    from rich.table import Table  # noqa: PLC0415

    from api.demo.report import METRIC_NAMES, metric_of, metric_rows  # noqa: PLC0415

    over = " over embeddings" if data["layout"] == "embeddings" else ""
    model = f"scheme {data['scheme']}, {data['top']} model{over}, {data['epochs']} epochs"
    head = f"{data['dataset']}: {data['rows']:,} rows, {model}"
    key, _ = metric_of(data)
    scores = Table("model", box=None, pad_edge=False)
    scores.add_column(METRIC_NAMES[key], justify="right")
    for name, value in metric_rows(data):
        scores.add_row(name, value)
    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_column()
    facts.add_column(overflow="fold")
    shown = ""
    for name, value in _facts(data):
        facts.add_row("" if name == shown else name, value)
        shown = name
    return Group(head, "", scores, "", facts)


def _facts(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from api.demo.charts import readable_bytes  # noqa: PLC0415

    seconds, sent = data["seconds"], data["bytes"]
    speed = f"{data['samples_per_second']:,.0f} samples per second"
    yield "time", f"{seconds['total']:.1f} s, training {seconds['training']:.1f} s, {speed}"
    theirs, ours = (readable_bytes(sent[party]) for party in ("feature_party_sent", "label_party_sent"))
    yield "sent", f"feature party {theirs}, label party {ours}"
    for line in data["reveals"]:
        if line["values"] and line["grain"] != "whole table":
            yield "revealed", f"to {line['receiver']}: {line['values']:,} values, {line['learns']}"
    for floor in data["lowered_floors"]:
        yield "lowered", f"{floor['name']} from {floor['usual']:g} to {floor['lowered']:g}"
    for text in data["not_protected"]:
        yield "not protected", text
    yield "report", f"{data['folder']}/report.html"
