"""The page of a real job at one party, from what `GET /v1/jobs/{id}/report` answers; a job may run, or have failed."""

import json
from collections.abc import Iterator
from typing import Any

from api.agreement import data_by_party, kind_in, reveals
from api.client import JsonObject
from api.coefficients import coefficients_of
from api.foreseen import beside_measured
from api.metrics import measured
from api.report.charts import bytes_by_kind, bytes_by_round, calibration, curve, roc
from api.report.page import page
from api.sizes import readable_bytes
from vfl.kind import Kind
from vfl.kinds import spec_of
from vfl.message import MESSAGES
from vfl.spec.job import JobSpec

NAMES = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "r2": "R²",
    "own_columns_auc": "AUC of own columns alone",
    "own_columns_accuracy": "accuracy of own columns alone",
    "own_columns_r2": "R² of own columns alone",
    "loss": "loss",
    "validation_loss": "mean squared error on validation rows",
    "gradient": "length of the mean gradient",
    "cut_error": "size of the errors that came back",
}
"""Measures as a person reads them; of others the underscores are left out."""
CURVES = ("accuracy", "auc", "r2", "loss", "validation_loss", "gradient", "cut_error")
AROUND_THE_JOB = "agree, begin, end"


def render(view: JsonObject) -> str:
    job, progress = view["job"], view["progress"]
    specification, kind = job["specification"], kind_in(job)
    spec = spec_of(specification)
    sizes = list(_traffic(job))
    metrics = list(_metrics(job["metrics"]))
    context: dict[str, Any] = {
        "title": job["name"],
        "metric": f"{job['role']} party {job['party']}",
        "score": job["state"],
        "kicker": f"as {job['party']} sees it ({job['role']} party), with {', '.join(job['peers'])}",
        "job": job["id"],
        "summary": _summary(job, kind, spec),
        "facts": list(_facts(job, kind)),
        "error": job["error"],
        "metrics": metrics,
        "intervals": any(interval for _, _, interval in metrics),
        "quality_charts": list(_quality(job["series"])),
        "quality_caption": _quality_caption(job["series"]),
        "coefficients": coefficients_of(job),
        "learning_charts": list(_learning(progress, kind.checkpoint)),
        "learning_caption": f"Measured by {job['party']} after each {kind.checkpoint}, on its own side.",
        "seen": list(_seen(job)),
        "counted": kind.counted,
        "seen_note": "As planned for the whole job"
        + (", messages of each client at most." if kind.counted == "messages" else "."),
        "not_protected": list(kind.unprotected(spec, job["plan"])),
        "relaxed_limits": job["relaxed_limits"],
        "bytes_chart": bytes_by_kind(sizes, first="received") if sizes else "",
        "first_bytes": f"received by {job['party']}",
        "second_bytes": f"sent by {job['party']}",
        "foreseen": list(beside_measured(job)),
        "operations": job["operations"],
        "notices": [*(f"{notice['kind']}: {notice['text']}" for notice in job["notices"]), *job["attendance"]],
        "purpose": specification["job"]["purpose"],
        "data_by_party": list(data_by_party(specification)),
        "specification": json.dumps(specification, indent=2, ensure_ascii=False),
        "where": list(_where(job)),
    }
    return page("job.html", context)


def name_of(measure: str) -> str:
    return NAMES.get(measure, measure.replace("_", " "))


def _summary(job: JsonObject, kind: Kind[Any, Any], spec: JobSpec) -> str:
    how_far = f"{job['step']} of {job['steps']} {kind.step}s" if job["steps"] else f"no {kind.step}s"
    if job["state"] != "done":
        ended = "It is not over: this page shows what there is." if job["error"] is None else "Nothing came of it."
        state = "failed" if job["state"] == "failed" else f"is {job['state']}"
        return f"The job {state} after {how_far}. {ended}"
    of_joint = {name: value for name, value in job["metrics"].items() if not name.startswith("own_columns_")}
    scores = [f"{name} {value}" for name, value, _ in _metrics(of_joint)][:2]
    verb_phrase = "On held-out rows the model reaches" if spec.learns else "It found"
    reached = f" {verb_phrase} {' and '.join(scores)}." if scores else ""
    halves = (
        " Each party keeps its own half, and no row left its owner in clear."
        if spec.disclosure in {"ckks", "paillier"}
        else ""
    )
    return f"The job is done after {how_far}.{reached}{halves}"


def _facts(job: JsonObject, kind: Kind[Any, Any]) -> Iterator[tuple[str, str]]:
    yield "state", job["state"]
    plan = job["plan"]
    if plan.get("rows"):
        held_out = f", {plan['test_rows']:,} held out" if plan["test_rows"] else ""
        validation = f", {plan['validation_rows']:,} for validation" if plan.get("validation_rows") else ""
        yield "rows here", f"{plan['rows']:,}{held_out}{validation}"
    if job["steps"]:
        yield kind.activity, f"{job['step']:,} of {job['steps']:,} {kind.step}s"
    for name, seconds in job["seconds"].items():
        if seconds is not None:
            yield f"{name} time", f"{seconds:.1f} s"
    for direction in ("sent", "received"):
        size = sum(line["payload_bytes"] for line in job["traffic"] if line["direction"] == direction)
        yield direction, readable_bytes(size)


def _metrics(metrics: dict[str, float]) -> Iterator[tuple[str, str, str]]:
    """(name, value, interval)."""
    for metric in measured(metrics):
        value = str(metric) if metric.counts else f"{metric.value:.4f}"
        yield name_of(metric.name), value, metric.interval


def _quality(series: dict[str, list[float]]) -> Iterator[str]:
    if "roc_true_positives" in series:
        yield roc(series["roc_false_positives"], series["roc_true_positives"])
    if "calibration_predicted" in series:
        shares = "roc_true_positives" in series
        yield calibration(series["calibration_predicted"], series["calibration_found"], shares=shares)
    if "class_recall" in series:
        yield curve(series["class_recall"], "Share of each class that was found", "class", first=0)


def _quality_caption(series: dict[str, list[float]]) -> str:
    if "class_recall" in series:
        return f"Of {sum(series['class_rows']):,.0f} held-out rows, counted by their true class."
    if "calibration_rows" in series:
        rows, bins = series["calibration_rows"], len(series["calibration_rows"])
        return (
            f"From the scores of {sum(rows):,.0f} held-out rows, which the label party alone keeps. Each point of the "
            f"calibration is the mean of about {sum(rows) / bins:,.0f} rows; on the diagonal, predictions are right."
        )
    return ""


def _learning(progress: list[JsonObject], along: str) -> Iterator[str]:
    """A curve of each measure that the party has, and bytes of rounds."""
    numbers = [point["number"] for point in progress]
    if len(numbers) < 2:
        return
    for measure in CURVES:
        values = [point["measures"].get(measure) for point in progress]
        if any(value is not None for value in values):
            yield curve(values, name_of(measure), along, numbers=numbers)
    bytes_sent, bytes_received = (
        [point["measures"].get(key) for point in progress] for key in ("bytes_sent", "bytes_received")
    )
    if None not in bytes_sent and None not in bytes_received:
        yield bytes_by_round([round(size) for size in bytes_sent], [round(size) for size in bytes_received], numbers)


def _seen(job: JsonObject) -> Iterator[tuple[str, list[JsonObject]]]:
    """By receiver."""
    lines = reveals(job)
    for receiver in dict.fromkeys(line["receiver"] for line in lines):
        yield receiver, [line for line in lines if line["receiver"] == receiver]


def _traffic(job: JsonObject) -> Iterator[tuple[str, str, int]]:
    """(direction, kind, bytes) over all peers; what servers say to each other around the job counts as one kind."""
    sizes: dict[tuple[str, str], int] = {}
    for line in job["traffic"]:
        key = line["direction"], line["kind"] if line["kind"] in MESSAGES else AROUND_THE_JOB
        sizes[key] = sizes.get(key, 0) + line["payload_bytes"]
    yield from ((direction, kind, size) for (direction, kind), size in sizes.items())


def _where(job: JsonObject) -> Iterator[tuple[str, str]]:
    yield "specification, SHA-256", job["spec_digest"]
    yield "created", job["created_at"]
    if job["finished_at"]:
        yield "finished", job["finished_at"]
    if job["result_digest"]:
        yield "result that all parties share, SHA-256", job["result_digest"]
    if job["scores_path"]:
        yield "scores of each row", job["scores_path"]
    elif job["model_digest"]:
        yield f"half of {job['party']}, SHA-256 of the weights", job["model_digest"]
        yield "its file", job["model_path"]
