"""`vfl run`: a job with all its parties simulated on this machine."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.errors import named
from api.cli.output import CommandFailed, Exit, Format, FormatOption, QuietOption, note, result
from api.cli.text import Facts
from api.metrics import measured
from api.sizes import readable_bytes
from vfl.errors import JobError

if TYPE_CHECKING:
    from rich.console import RenderableType

SpecArgument = Annotated[Path, typer.Argument(metavar="SPEC", help="Job specification, a TOML file.")]

NAMES = {"auc": "AUC", "r2": "R²"}
HEADINGS = f"{'round':>11} {{score:>9}}{{auc}} {'loss':>9} {'replies':>8} {'down':>10} {'up':>10}"


def run(
    spec: SpecArgument,
    processes: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Processes that run clients (default: simulation.processes)."),
    ] = None,
    output_folder: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Folder for model, report and a state per round.")
    ] = None,
    resume: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--resume", help="Go on from the last round that --output holds.")
    ] = False,
    output: FormatOption = Format.TEXT,
    quiet: QuietOption = False,  # noqa: FBT002
) -> None:
    """Run a job of rounds with many simulated clients on this machine.

    The table simulation of the specification says how many; no server is needed. The roles are those that run between
    servers, and the result depends on the specification alone.
    """
    if resume and output_folder is None:
        raise CommandFailed(
            Exit.ARGUMENTS, "invalid_arguments", "--resume needs --output", fix="Name the folder to go on in."
        )
    with specification(spec) as text:
        data = _run(spec, text, processes, output_folder, resume=resume, quiet=quiet)
    result(output, data, lambda: _shown(data))


@contextlib.contextmanager
def specification(path: Path) -> Iterator[str]:
    """The text of a specification; what is wrong with it leaves the block as a CommandFailed that names the file."""
    text = _text(path)
    try:
        yield text
    except (CommandFailed, JobError) as error:
        failure = named(error) if isinstance(error, JobError) else error
        if failure.code in _about_specifications():
            failure.args = (f"{path}: {failure}",)
        raise failure from error.__cause__


def _about_specifications() -> set[str]:
    from vfl.errors import ImpossibleJob, NotAvailable, SpecConflict, SpecError  # noqa: PLC0415 - when one is wrong

    return {error.code for error in (SpecError, SpecConflict, NotAvailable, ImpossibleJob)}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # Windows editors write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(
            Exit.ARGUMENTS, "file_unreadable", f"the specification {path} cannot be read", fix="Name a TOML file."
        ) from error


def _run(
    spec: Path, text: str, processes: int | None, output_folder: Path | None, *, resume: bool, quiet: bool
) -> dict[str, Any]:
    from api.cli.progress import Progress  # noqa: PLC0415 - after the arguments are right
    from parties.simulation.folder import Run  # noqa: PLC0415 - tables and tensors
    from parties.simulation.specification import read_federation  # noqa: PLC0415

    federation = read_federation(text)
    with Progress(quiet=quiet) as progress:
        lines = _Lines(progress.line, federation.spec.rounds.rounds)
        this = Run(
            federation,
            processes or federation.simulation.processes,
            text,
            spec.parent,
            output_folder,
            on_round=lines.round,
            on_refused=lambda text: progress.line(f"refused: {text}"),
        )
        try:
            return this.resumed() if resume else this.fresh()
        except KeyboardInterrupt:
            again = f"; --resume goes on in {output_folder}" if output_folder and lines.last else ""
            note(f"interrupted after round {lines.last}{again}" if lines.last else "interrupted before round 1 ended")
            raise typer.Exit(Exit.INTERRUPTED) from None


class _Lines:
    """One line per round, under headings."""

    def __init__(self, line: Any, rounds: int) -> None:
        self._line, self._rounds = line, rounds
        self.last = 0

    def round(self, number: int, measures: Mapping[str, float]) -> None:
        score = "accuracy" if "accuracy" in measures else "r2"
        if not self.last:
            self._line(HEADINGS.format(score=score, auc=f" {'AUC':>9}" if "auc" in measures else ""))
        self.last = number
        area = f" {measures['auc']:>9.4f}" if "auc" in measures else ""
        bytes_sent, bytes_received = (readable_bytes(int(measures[key])) for key in ("bytes_sent", "bytes_received"))
        self._line(
            f"{f'{number}/{self._rounds}':>11} {measures.get(score, math.nan):>9.4f}{area} "
            f"{measures.get('loss', math.nan):>9.4f} {measures['replies']:>8.0f} {bytes_sent:>10} {bytes_received:>10}"
        )


def _shown(data: dict[str, Any]) -> "RenderableType":
    from rich.console import Group  # noqa: PLC0415 - only for text

    rows = data["rows"]
    head = (
        f"{data['name']}: {data['clients']:,} clients with {rows['fewest']:,} to {rows['most']:,} rows, "
        f"{data['rounds']:,} rounds of {data['cohort']:,} clients"
    )
    return Group(head, "", Facts(_facts(data)))


def _facts(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    at_clients = data["series"].get("tested_rows")
    tested = at_clients[-1] if at_clients else data["rows"].get("test", 0)
    for metric in measured(data["metrics"]):
        name = metric.name
        on_rows = f" on {tested:,.0f} held-out rows" if name in {"accuracy", "auc", "r2"} else ""
        yield NAMES.get(name, name.replace("_", " ")), f"{metric}{on_rows}"
    traffic = data["bytes"]
    yield "sent", f"aggregator {readable_bytes(traffic['down'])}, clients {readable_bytes(traffic['up'])}"
    kinds: dict[tuple[str, str], list[int]] = {}
    for line in traffic["by_round"]:
        total = kinds.setdefault((line["kind"], line["direction"]), [0, 0])
        total[0] += line["messages"]
        total[1] += line["bytes"]
    for (kind, direction), (messages, size) in kinds.items():
        yield "sent", f"{kind} {direction}: {messages:,} messages, {readable_bytes(size)}"
    processes = "1 process" if data["processes"] == 1 else f"{data['processes']} processes"
    yield "time", f"{data['seconds']:.1f} s, clients in {processes}"
    for refusal in data["refused"]:
        yield "refused", refusal["text"]
    for notice in data["notices"]:
        yield notice["kind"], notice["text"]
    yield "model", f"SHA-256 {data['model_digest'][:16]}"
    if data["folder"]:
        yield "folder", data["folder"]
