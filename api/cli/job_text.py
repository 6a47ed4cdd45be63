"""What `vfl job show` says of a job on a terminal."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from api.agreement import data_by_party, kind_in, listed, reveals
from api.cli.text import Facts
from api.foreseen import Foreseen, beside_measured
from api.metrics import measured

if TYPE_CHECKING:
    from rich.console import RenderableType


def job_text(job: dict[str, Any]) -> "RenderableType":
    from rich.console import Group  # noqa: PLC0415 - only for text
    from rich.table import Table  # noqa: PLC0415

    from api.cli.coefficients import coefficient_table  # noqa: PLC0415 - only for text

    parts: list[RenderableType] = [Facts(_facts(job)), *coefficient_table(job)]
    if job["traffic"]:
        traffic = Table(
            "direction", "peer", "message", "count", "bytes", box=None, pad_edge=False, title_justify="left"
        )
        for line in job["traffic"]:
            counts = (f"{line['messages']:,}", f"{line['payload_bytes']:,}")
            traffic.add_row(line["direction"], line["peer"], line["kind"], *counts)
        parts += ["", traffic]
    if job["reveals"]:
        learned = Table("receiver", "learns from", "in", box=None, pad_edge=False)
        counted = kind_in(job).counted
        is_exact = counted == "values" or (counted == "ids" and job["state"] == "done" and len(job["peers"]) == 1)
        learned.add_column(counted if is_exact else f"{counted}, at most", justify="right")
        learned.add_column("what")
        for line in reveals(job):
            if line["values"]:
                learned.add_row(
                    line["receiver"], line["sender"], line["message"], f"{line['values']:,}", line["learns"]
                )
        parts += ["", learned]
    return Group(*parts)


def _agreed(specification: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """For what, and on which data."""
    if purpose := specification["job"]["purpose"]:
        yield "purpose", purpose
    for of in data_by_party(specification):
        columns = f": {listed(of.columns)}" if of.columns else ""
        label = f", label {of.label}" if of.label else ""
        yield "data", f"{of.party}, {of.data}{columns}{label}" if of.data else f"{of.party}, none"


def _beside(foreseen: Foreseen) -> str:
    return f"{foreseen.forecast}, measured {foreseen.measured}" if foreseen.measured else foreseen.forecast


def _decided(approval: dict[str, Any]) -> str:
    who = {"operator": "by this party's operator", "submit": "by submitting it"}
    how = who.get(approval["by"], f"by grant {', '.join(approval['grants'])}")
    return f"{how}, {approval['time']}" + (f": {approval['reason']}" if approval["reason"] else "")


def _facts(job: dict[str, Any]) -> Iterator[tuple[str, str]]:
    from api.cli.progress import how_far  # noqa: PLC0415 - only for text

    yield "job", job["id"]
    yield "name", job["name"]
    yield "state", job["state"] + (f", waiting for {job['waits_for']}" if job["waits_for"] else "")
    yield "party", f"{job['party']} ({job['role']} party), with {', '.join(job['peers'])}"
    yield from _agreed(job["specification"])
    if job["approval"]:
        yield job["approval"]["decision"], _decided(job["approval"])
    if job["steps"]:
        yield "progress", how_far(job)
    yield from ((metric.name, str(metric)) for metric in measured(job["metrics"]))
    by_round = job["series"] if kind_in(job).step == "round" else {}
    for name, values in by_round.items():
        measured_rounds = [value for value in values if value is not None]
        if len(measured_rounds) > 1:
            first, last = measured_rounds[0], measured_rounds[-1]
            of = f"of {len(measured_rounds)} rounds"
            yield f"{name} by round", f"{first:,.6g} in the first, {last:,.6g} in the last {of}"
    yield from (("attendance", sentence) for sentence in job["attendance"])
    if job["classes"]:
        yield "classes", ", ".join(job["classes"]) + (" (positive)" if len(job["classes"]) == 2 else "")
    yield from ((notice["kind"], notice["text"]) for notice in job["notices"])
    yield from ((f"{name} time", f"{value:.1f} s") for name, value in job["seconds"].items() if value is not None)
    yield from ((f"foreseen {each.what}", _beside(each)) for each in beside_measured(job))
    yield from (("relaxed limit", str(limit)) for limit in job["relaxed_limits"])
    if job["result_digest"]:
        yield "result", f"{job['result_digest']}, by which a later job names it"
    if job["scores_path"]:
        yield "scores", job["scores_path"]
    elif job["model_path"]:
        yield "model", job["model_path"]
    if job["error"]:
        yield "error", f"{job['error']['message']} [{job['error']['code']}]"
        yield from (("", text) for text in (job["error"]["safe"], job["error"]["fix"]) if text)
