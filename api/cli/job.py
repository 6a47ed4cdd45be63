"""`vfl job`: propose a job to the peer, look at it, follow it, stop it."""

import itertools
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.approval import JobArgument, approve, diff, reject
from api.cli.check import check
from api.cli.connection import CaOption, PartyOption, ServerOption, TokenFileOption, connected, job_command
from api.cli.estimate import agreed_to
from api.cli.job_text import job_text
from api.cli.output import (
    CommandFailed,
    Exit,
    Format,
    FormatOption,
    QuietOption,
    StreamFormat,
    StreamFormatOption,
    note,
    print_json,
    result,
)
from api.cli.pause import pause, resume
from api.cli.run import specification
from api.cli.written_file import ForceOption, check_place, write_file

if TYPE_CHECKING:
    from rich.console import RenderableType

    from api.client import Client

app = typer.Typer(
    help="Check, submit, follow, pause, report and cancel jobs at a party's server.", no_args_is_help=True
)
app.command("check")(check)
for decision in (approve, reject, diff, pause, resume):
    app.command(decision.__name__)(decision)

EVENTS_PER_SECOND = 10
SHOWN_AS_PROGRESS = frozenset({"step", "epoch", "round"})
LOOK_SECONDS = 1.0
"""Pause between two looks at a running job."""


@app.command("submit")
def submit(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Job specification, a TOML file.")],
    idempotency_key: Annotated[
        str, typer.Option(metavar="KEY", help="Repeating a submit with the same key returns the same job.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Make no estimate, and do not ask.")] = False,  # noqa: FBT002
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Propose a job to the peers; it starts when each has a grant for it, or its operator approves it.

    At a terminal the command first tells what the job would take, and asks.
    """
    with specification(spec) as text, connected(server, token_file, ca, party) as client:
        if not (yes or agreed_to(client, text)):
            raise CommandFailed(
                Exit.ARGUMENTS,
                "not_confirmed",
                "the job was not proposed",
                safe="No peer has heard of it.",
                fix="Answer `yes`, the whole word, or give `--yes`, and nobody is asked.",
            )
        job = client.submit(text, idempotency_key=idempotency_key)
    result(output, job, lambda: str(job["id"]))
    if output is Format.TEXT:
        note(*(f"{notice['kind']}: {notice['text']}" for notice in job["notices"]))
        note(f"Follow it with `{job_command('watch', job['id'], server, token_file, ca, party)}`.")


@app.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Show so many, the newest.")] = 50,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """List this party's jobs, newest first."""
    with connected(server, token_file, ca, party) as client:
        jobs = list(itertools.islice(client.jobs(), limit + 1))
    shown, older = jobs[:limit], len(jobs) > limit
    result(output, {"jobs": shown, "older": older}, lambda: _table(shown))
    if older and output is Format.TEXT:
        note(f"There are older ones: --limit {2 * limit} shows more.")


@app.command("show")
def show(
    job_id: JobArgument,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show one job: state, results, bytes, and what each side could see."""
    with connected(server, token_file, ca, party) as client:
        job = client.job(job_id)
    result(output, job, lambda: job_text(job))


@app.command("report")
def report(
    job_id: JobArgument,
    file: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="HTML file to write (default: report-JOB.html here, replaced if it exists).",
        ),
    ] = None,
    force: ForceOption = False,  # noqa: FBT002 - a flag of the command line
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write one page about a job: metrics, curves, what each side could see, and what was agreed.

    It opens offline and holds what this party knows, also of a job that runs or has failed.
    """
    if file is not None:
        check_place(file, force=force)
    with connected(server, token_file, ca, party) as client:
        view = client.report(job_id)
    from api.report.job_page import render  # noqa: PLC0415 - plots, once there is something to draw

    place = file or Path(f"report-{view['job']['id']}.html")
    write_file(place, render(view).encode(), force=force or file is None)
    result(output, {"job": view["job"]["id"], "state": view["job"]["state"], "file": str(place)}, lambda: str(place))


@app.command("scores")
def scores(
    job_id: JobArgument,
    file: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="CSV file to write (default: scores-JOB.csv here)."),
    ] = None,
    force: ForceOption = False,  # noqa: FBT002 - a flag of the command line
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write the scores of a prediction that this party may read: the ids of each row and its scores.

    With `--format json` they are printed, and no file is written unless --output names one.
    """
    place = file or (Path(f"scores-{job_id}.csv") if output is Format.TEXT else None)
    if place is not None:
        check_place(place, force=force)
    pieces: list[bytes] = []
    with connected(server, token_file, ca, party) as client:
        if place is not None:
            client.write_scores(job_id, pieces.append)
        answer = client.scores(job_id) if output is Format.JSON else {}
    if place is not None:
        write_file(place, b"".join(pieces), force=force)
    result(output, answer, lambda: str(place))


@app.command("cancel")
def cancel(
    job_id: JobArgument,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """End a job on both sides."""
    with connected(server, token_file, ca, party) as client:
        job = client.order(job_id, "cancel")
    result(output, job, lambda: f"{job['id']} is {job['state']}")


@app.command("end")
def end(
    job_id: JobArgument,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """End a scoring session before its time: what was asked is answered, and the job is done on both sides."""
    with connected(server, token_file, ca, party) as client:
        job = client.order(job_id, "end")
    result(output, job, lambda: f"{job['id']} ends")


@app.command("watch")
def watch(
    job_id: JobArgument,
    timeout_seconds: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.0, help="Stop watching after so long; 0 is never.")
    ] = 0.0,
    server: ServerOption = None,
    token_file: TokenFileOption = None,
    ca: CaOption = None,
    party: PartyOption = None,
    output: StreamFormatOption = StreamFormat.TEXT,
    quiet: QuietOption = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Follow a job until it ends. Ctrl-C only detaches: the job goes on."""
    again = f"`{job_command('watch', job_id, server, token_file, ca, party)}` follows it again"
    with connected(server, token_file, ca, party) as client:
        try:
            job = _watch(client, job_id, timeout_seconds, output, again, quiet=quiet)
        except KeyboardInterrupt:
            note(f"detached; the job goes on, {again}")
            raise typer.Exit(Exit.INTERRUPTED) from None
    if job["state"] != "done":
        raise ended(job)
    result(output, job, lambda: job_text(job))


def ended(job: dict[str, Any]) -> CommandFailed:
    """The failure of a command whose job did not finish."""
    error = job.get("error") or {}
    if not error:
        return CommandFailed(Exit.JOB, f"job_{job['state']}", f"job {job['id']} was {job['state']}", data=job)
    message, safe, fix = error["message"], error.get("safe") or "", error.get("fix") or ""
    return CommandFailed(Exit.JOB, error["code"], message, fix=fix, safe=safe, data=job)


def _watch(
    client: "Client", job_id: str, timeout_seconds: float, output: StreamFormat, again: str, *, quiet: bool
) -> Any:
    from api.cli.progress import Progress  # noqa: PLC0415 - with the client, after the arguments are right
    from api.client import LONG_POLL_SECONDS  # noqa: PLC0415

    deadline = time.monotonic() + timeout_seconds if timeout_seconds else float("inf")
    with Progress(quiet=quiet or output is StreamFormat.JSONL) as progress:
        job = client.job(job_id)
        progress.line(f"job {job['id']} is {job['state']}")
        printed = 0.0
        for answer in client.follow(job_id, wait_seconds=min(LOOK_SECONDS, LONG_POLL_SECONDS)):
            for event in answer["events"]:
                if output is StreamFormat.JSONL:
                    printed = _print_event(event, printed)
                elif event["kind"] not in SHOWN_AS_PROGRESS and event["text"]:
                    progress.line(event["text"])
            job = client.job(job_id)
            progress.job(job)
            if time.monotonic() > deadline:
                raise CommandFailed(
                    Exit.TIMEOUT,
                    "watch_timeout",
                    f"job {job_id} is still {job['state']} after {timeout_seconds:g} s",
                    safe="The job goes on.",
                    fix=f"{again}.",
                    data=job,
                )
        return job


def _print_event(event: dict[str, Any], printed: float) -> float:
    """At most EVENTS_PER_SECOND lines: steps in between are left out, all else waits its turn. Answers the new time."""
    wait = printed + 1 / EVENTS_PER_SECOND - time.monotonic()
    if wait > 0:
        if event["kind"] in SHOWN_AS_PROGRESS:
            return printed
        time.sleep(wait)
    print_json(event)
    return time.monotonic()


def _table(jobs: list[dict[str, Any]]) -> "RenderableType":
    from rich.table import Table  # noqa: PLC0415 - only for text

    if not jobs:
        return "no jobs yet; `vfl job submit SPEC` proposes one"
    table = Table(box=None, pad_edge=False)
    table.add_column("job", no_wrap=True, min_width=max(len(job["id"]) for job in jobs))
    for heading in ("name", "state", "as", "step"):
        table.add_column(heading)
    table.add_column("age", no_wrap=True)
    for job in jobs:
        steps = f"{job['step']}/{job['steps']}" if job["steps"] else ""
        table.add_row(job["id"], job["name"], job["state"], job["role"], steps, _age(job["created_at"]))
    return table


def _age(created_at: str) -> str:
    """Since when, short enough for a line of 80 columns; the exact time is in the JSON."""
    seconds = (datetime.now(UTC) - datetime.fromisoformat(created_at)).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
