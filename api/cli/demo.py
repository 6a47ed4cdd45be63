"""`vfl demo`: real party servers on this machine, the jobs between them, and a report."""

import enum
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.errors import named
from api.cli.output import CommandFailed, Exit, Format, FormatOption, QuietOption, envelope, note, result
from parties.processes import loading
from vfl.errors import JobError

if TYPE_CHECKING:
    from api.demo.folder import Place
    from api.demo.job import Watcher
    from api.demo.training.agreement import Agreement
    from api.demo.training.tables import DividedTable


class Dataset(enum.StrEnum):
    """Tables that come with the installation."""

    BREAST_CANCER = "breast-cancer"
    DIGITS = "digits"
    DIABETES = "diabetes"


class Scheme(enum.StrEnum):
    """What protects the features."""

    CKKS = "ckks"
    PAILLIER = "paillier"
    NONE = "none"


class Layout(enum.StrEnum):
    """What the feature party brings to the joint model."""

    FEATURES = "features"
    EMBEDDINGS = "embeddings"


class Method(enum.StrEnum):
    """How a model over both parties' columns comes about."""

    STEPS = "steps"
    SUMS = "one-pass"


class Top(enum.StrEnum):
    """The label party's model."""

    LINEAR = "linear"
    MLP = "mlp"


class Task(enum.StrEnum):
    """What is learned."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


class Mode(enum.StrEnum):
    """Which part of horizontal rounds is shown, each on digits."""

    BACKBONE_DECODER = "backbone-decoder"
    COMPRESSED_SYNC = "compressed-sync"
    MODEL_INVERSION = "model-inversion"
    SHARED_DATA = "shared-data"


OWN = "Your own tables"
ROUNDS = "An aggregator and three clients"


@dataclass(frozen=True)
class _Planned:
    """A demonstration that can start."""

    name: str
    parties: tuple[str, ...]
    lines: Iterable[str]
    """Lines about what was guessed and the limits that are relaxed for it."""
    run: "Callable[[Path, Watcher], dict[str, Any]]"


def demo(
    dataset: Annotated[
        Dataset | None,
        typer.Option(metavar="NAME", help="breast-cancer (default), digits or diabetes, divided between two parties."),
    ] = None,
    scheme: Annotated[
        Scheme | None,
        typer.Option(
            help="Encrypted: ckks (default), or paillier with the extra of that name; or none, in clear for comparison."
        ),
    ] = None,
    layout: Annotated[
        Layout | None,
        typer.Option(help="The feature party's columns as they are (default), or what its own network makes of them."),
    ] = None,
    top: Annotated[
        Top | None, typer.Option(help="The label party's model: linear (default), or with hidden neurons.")
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(help="Train in steps (default), or solve a linear model in one pass from sums over all rows."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Passes over the rows (default: by table).")
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Fixes files and draws, but not the order of aligned rows.")
    ] = 0,
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
    positive: Annotated[
        str | None,
        typer.Option(
            metavar="VALUE",
            help="The value of a label with two values that counts as positive (default: the greater number).",
            rich_help_panel=OWN,
        ),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            metavar="MODE",
            help="Horizontal rounds on digits: backbone-decoder (a second model whose decoder travels), "
            "compressed-sync (parameters in 4 bits), model-inversion (rows found in models) or "
            "shared-data (means adjusted on shared rows).",
            rich_help_panel=ROUNDS,
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Rounds (default: by mode).", rich_help_panel=ROUNDS)
    ] = None,
    output: FormatOption = Format.TEXT,
    quiet: QuietOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Run a federation of party servers on this machine, from their files to a report.

    Two parties that hold different columns of the same rows, or with --mode an aggregator and three clients that hold
    different rows. Each is a server process of its own, with its own folder and only its own files.
    """
    from api.cli.demo_screen import rounds_screen, training_screen  # noqa: PLC0415 - as all below

    own: dict[str, Any] = {
        "--label-file": label_file,
        "--feature-file": feature_file,
        "--id": id_column,
        "--label": label,
    }
    if mode:
        columns = {"--scheme": scheme, "--layout": layout, "--top": top, "--method": method, "--epochs": epochs}
        own |= {"--task": task, "--positive": positive}
        _check_mode(mode, dataset, columns | own)
        planned, screen = _planned_rounds(mode, rounds, seed), rounds_screen
    else:
        _check_arguments(dataset, own, {"--task": task, "--positive": positive}, rounds)
        if method is Method.SUMS:
            _check_one_pass({"--scheme": scheme, "--layout": layout, "--top": top, "--epochs": epochs})
        table = _table(dataset, label_file, feature_file, id_column, label, task, positive, seed)
        if method is Method.SUMS:
            agreement = _agreed_on_one_pass(table, seed)
        else:
            agreement = _agreed_on_steps(table, seed, epochs=epochs, scheme=scheme, layout=layout, top=top)
        planned = _planned_training(table, agreement, seed)
        screen = training_screen
    data = _run(planned, output_folder, quiet=quiet)
    result(output, data, lambda: screen(data))


def _check_mode(mode: Mode, dataset: Dataset | None, others: dict[str, Any]) -> None:
    foreign = next((name for name, value in others.items() if value), "")
    if dataset not in {None, Dataset.DIGITS}:
        foreign = f"--dataset {dataset}"
    if foreign:
        raise CommandFailed(
            Exit.ARGUMENTS,
            "invalid_arguments",
            f"{foreign} does not go with --mode {mode}, which deals the rows of digits to an aggregator and clients",
            fix="Leave one of the two out; --rounds, --seed, --output, --format and --quiet go with every mode.",
        )


def _check_one_pass(of_steps: dict[str, Any]) -> None:
    if foreign := next((name for name, value in of_steps.items() if value), ""):
        raise CommandFailed(
            Exit.ARGUMENTS,
            "invalid_arguments",
            f"{foreign} does not go with --method one-pass, which solves a linear model on ciphertexts of its own",
            fix="Leave one of the two out.",
        )


def _check_arguments(
    dataset: Dataset | None, own: dict[str, Any], of_labels: dict[str, Any], rounds: int | None
) -> None:
    options = [name for name, value in own.items() if value]
    if rounds:
        raise CommandFailed(
            Exit.ARGUMENTS,
            "invalid_arguments",
            "--rounds is for --mode",
            fix=f"Give --epochs, or --mode {' or '.join(Mode)}.",
        )
    if dataset and options:
        raise CommandFailed(
            Exit.ARGUMENTS, "invalid_arguments", f"--dataset and {options[0]} exclude each other", fix="Give one."
        )
    if options and len(options) < len(own):
        missing = ", ".join(name for name in own if name not in options)
        raise CommandFailed(
            Exit.ARGUMENTS,
            "invalid_arguments",
            f"own tables need {missing} as well",
            fix="For example: vfl demo --label-file a.csv --feature-file b.csv --id id --label y",
        )
    for name, value in of_labels.items():
        if value and not options:
            raise CommandFailed(Exit.ARGUMENTS, "invalid_arguments", f"{name} is for own tables", fix="Leave it out.")
    task = of_labels["--task"]
    if of_labels["--positive"] and task not in {None, Task.BINARY}:
        raise CommandFailed(
            Exit.ARGUMENTS,
            "invalid_arguments",
            f"--positive is for --task binary, not for {task}",
            fix="Leave one of the two out.",
        )


def _table(
    dataset: Dataset | None,
    label_file: Path | None,
    feature_file: Path | None,
    id_column: str | None,
    label: str | None,
    task: Task | None,
    positive: str | None,
    seed: int,
) -> "DividedTable":
    if label_file and feature_file and id_column and label:
        with loading():
            from api.demo.training.own_tables import own_tables  # noqa: PLC0415 - polars and scikit-learn, after the arguments

        return own_tables(label_file, feature_file, id_column, label, task.value if task else None, positive)
    with loading():
        from api.demo.training.scattered import scattered  # noqa: PLC0415
        from api.demo.training.tables import BUNDLED  # noqa: PLC0415

    return scattered(BUNDLED[(dataset or Dataset.BREAST_CANCER).value](), seed)


def _agreed_on_one_pass(table: "DividedTable", seed: int) -> "Agreement":
    with loading():
        from api.demo.training.agreement import agree_on_one_pass  # noqa: PLC0415 - after the arguments are right

    return agree_on_one_pass(table, seed)


def _agreed_on_steps(
    table: "DividedTable",
    seed: int,
    *,
    epochs: int | None,
    scheme: Scheme | None,
    layout: Layout | None,
    top: Top | None,
) -> "Agreement":
    with loading():
        from api.demo.training.agreement import agree  # noqa: PLC0415 - after the arguments are right

    return agree(
        table,
        scheme=(scheme or Scheme.CKKS).value,
        epochs=epochs,
        seed=seed,
        layout=(layout or Layout.FEATURES).value,
        top=(top or Top.LINEAR).value,
    )


def _planned_training(table: "DividedTable", agreement: "Agreement", seed: int) -> _Planned:
    with loading():
        from api.demo.training.agreement import Demonstration  # noqa: PLC0415 - after the arguments are right
        from api.demo.training.run import PARTIES, run  # noqa: PLC0415

    return _Planned(
        table.name,
        PARTIES,
        [
            *map(str, table.guesses),
            *(f"limit relaxed in both parties' party.toml: {limit}" for limit in agreement.relaxed_limits),
        ],
        lambda folder, watcher: run(Demonstration(table, agreement, seed, folder), watcher),
    )


def _planned_rounds(mode: Mode, rounds: int | None, seed: int) -> _Planned:
    with loading():
        from api.demo.rounds.agreement import RoundsDemonstration, agree_on_rounds  # noqa: PLC0415 - after the arguments
        from api.demo.rounds.modes import MODES  # noqa: PLC0415
        from api.demo.rounds.run import run_rounds  # noqa: PLC0415
        from api.demo.rounds.tables import PARTIES  # noqa: PLC0415

    agreement = agree_on_rounds(MODES[mode.value], rounds=rounds, seed=seed)
    return _Planned(
        mode.value,
        PARTIES,
        map(str, agreement.relaxed_limits),
        lambda folder, watcher: run_rounds(RoundsDemonstration(agreement, seed, folder), watcher),
    )


def _run(planned: _Planned, output_folder: Path | None, *, quiet: bool) -> dict[str, Any]:
    from api.demo.folder import taken  # noqa: PLC0415 - after the arguments are right

    # Whatever ends this command ends the processes it started, like Ctrl-C.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with taken(output_folder, planned.name, planned.parties) as place:
        try:
            return _run_in(place, planned, quiet=quiet)
        except KeyboardInterrupt:
            note(f"interrupted; all processes of the demonstration have ended. Its folder is {place.folder}")
            raise typer.Exit(Exit.INTERRUPTED) from None


def _run_in(place: "Place", planned: _Planned, *, quiet: bool) -> dict[str, Any]:
    from api.cli.connection import translated  # noqa: PLC0415 - as above
    from api.cli.job import ended  # noqa: PLC0415
    from api.cli.progress import Progress  # noqa: PLC0415
    from api.demo.folder import finish  # noqa: PLC0415
    from api.demo.job import JobEnded  # noqa: PLC0415

    folder = place.folder
    try:
        with Progress(quiet=quiet) as progress, translated():
            progress.line(f"folder {folder}")
            if place.set_aside:
                progress.line(f"an unfinished demonstration was here; its files are in {place.set_aside}")
            for line in planned.lines:
                progress.line(line)
            data = planned.run(folder, progress)
        finish(folder, envelope(data))
    except JobEnded as end:
        raise _keep(folder, ended(end.job)) from end
    except JobError as error:
        raise _keep(folder, named(error)) from error
    except CommandFailed as failure:
        _keep(folder, failure)
        raise
    return data


def _keep(folder: Path, failure: CommandFailed) -> CommandFailed:
    """The failure, saying where the logs are."""
    safe = f"The folder {folder} is kept, with the logs of all parties."
    failure.safe = f"{failure.safe} {safe}".strip()
    return failure
