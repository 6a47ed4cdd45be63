"""The result of a demonstration as data: what `result.json` and `--format json` hold."""

import math
import os
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import NamedTuple

from api.client import JsonObject
from api.demo.training.agreement import Agreement, Demonstration
from api.demo.training.curves import EpochPoint
from api.demo.training.new_scores import ScoredRows
from api.demo.training.tables import FEATURE_PARTY, LABEL_PARTY
from vfl.kinds import kind_of, spec_of
from vfl.models.metrics import METRIC
from vfl.spec.training import TrainingSpec

ONE_MACHINE = (
    "All parties stand on one machine, with a fixed seed and keys that lie beside each other: it shows the protocol, "
    "it does not keep organisations apart."
)
PARTIES = {LABEL_PARTY: "label_party", FEATURE_PARTY: "feature_party"}


@dataclass(frozen=True)
class Finished:
    """What the servers did: each job as its parties tell of it."""

    alignment: Mapping[str, JsonObject]
    training: Mapping[str, JsonObject]
    scored: ScoredRows | None
    """None of tables without new rows."""
    processes: int
    """How many ran at most."""
    audit: JsonObject


def result_data(
    demonstration: Demonstration,
    finished: Finished,
    scores: Mapping[str, Mapping[str, float]],
    points: list[EpochPoint],
    seconds: float,
) -> JsonObject:
    """`scores` are metrics by model; the fields are listed in docs/cli.md."""
    table, agreement, jobs = demonstration.table, demonstration.agreement, finished.training
    plan, metric, trained = agreement.plan, METRIC[table.task], _trained(agreement)
    training = jobs[LABEL_PARTY]["seconds"]["training"]
    operations: Counter[str] = Counter()
    for job in jobs.values():
        operations.update(job["operations"])
    return {
        "dataset": table.name,
        "task": table.task,
        "scheme": trained.scheme,
        "layout": trained.layout,
        "top": trained.top,
        "rows": table.rows,
        "alignment": _aligned(finished.alignment),
        "training_rows": plan.training_rows,
        "held_out_rows": plan.test_rows,
        "epochs": trained.epochs,
        "steps": plan.steps,
        "batch_rows": trained.batch_rows,
        "seed": demonstration.seed,
        # A metric that is not defined, as the AUC over held-out rows of one class, is null.
        metric: {model: _defined(measures.get(metric)) for model, measures in scores.items()},
        "intervals": {
            model: [measures[f"{metric}_low"], measures[f"{metric}_high"]] if f"{metric}_low" in measures else None
            for model, measures in scores.items()
        },
        "new_rows": _scored(finished.scored) if finished.scored else None,
        "seconds": {"total": round(seconds, 3), "training": round(training, 3)},
        "samples_per_second": round(plan.training_rows * trained.epochs / training, 1) if training else 0.0,
        "bytes": {f"{PARTIES[party]}_sent": _sent(jobs[party]) for party in (FEATURE_PARTY, LABEL_PARTY)},
        "messages": [
            {"party": PARTIES[party], **{key: line[key] for key in ("kind", "messages", "payload_bytes")}}
            for party in PARTIES
            for line in jobs[party]["traffic"]
            if line["direction"] == "sent"
        ],
        "he_operations": dict(sorted(operations.items())),
        "reveals": jobs[LABEL_PARTY]["reveals"],
        "model_digest": {name: jobs[party]["model_digest"] for party, name in PARTIES.items()},
        "processes": finished.processes,
        "curves": [{key: _defined(value) for key, value in asdict(point).items()} for point in points],
        "notices": {name: jobs[party]["notices"] for party, name in PARTIES.items()},
        "relaxed_limits": [asdict(limit) for limit in agreement.relaxed_limits],
        "not_protected": not_protected(demonstration, finished),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "tenseal", "numpy")},
        },
        "job": jobs[LABEL_PARTY]["id"],
        "audit": finished.audit,
        "folder": str(demonstration.folder),
    }


class _Trained(NamedTuple):
    """How the model was trained, in the words of the command line."""

    scheme: str
    layout: str
    top: str
    epochs: int
    batch_rows: int


def _trained(agreement: Agreement) -> _Trained:
    """In one pass each row is touched once, and all rows of a fold together."""
    spec = agreement.spec
    if not isinstance(spec, TrainingSpec):
        return _Trained(spec.job.protocol, "features", "linear", 1, agreement.plan.smallest_batch)
    return _Trained(
        spec.encryption.scheme, spec.model.layout, spec.model.top.kind, spec.train.epochs, spec.train.batch_rows
    )


def not_protected(demonstration: Demonstration, finished: Finished) -> list[str]:
    """What this run does not hide or guard, in plain sentences."""
    agreement = demonstration.agreement
    others = [finished.alignment, *([finished.scored.prediction] if finished.scored else [])]
    lines = [*kind_of(agreement.spec).unprotected(agreement.spec, asdict(agreement.plan))]
    for jobs in others:
        spec = spec_of(jobs[LABEL_PARTY]["specification"])
        lines += kind_of(spec).unprotected(spec, {})
    return [*dict.fromkeys(lines), ONE_MACHINE]


def _aligned(jobs: Mapping[str, JsonObject]) -> JsonObject:
    metrics = jobs[LABEL_PARTY]["metrics"]
    return {
        "label_party_rows": int(metrics["own_ids"]),
        "feature_party_rows": int(metrics["ids_of_peer"]),
        "common_rows": int(metrics["common_ids"]),
        "job": jobs[LABEL_PARTY]["id"],
    }


def _scored(scored: ScoredRows) -> JsonObject:
    """A few of the scores, and how far the joint ones are from those in clear."""
    return {
        "alignment": _aligned(scored.alignment),
        "job": scored.prediction[LABEL_PARTY]["id"],
        "outputs": scored.new.outputs,
        "largest_difference": scored.new.largest_difference,
        "examples": [asdict(score) for score in scored.new.examples],
    }


def _sent(job: JsonObject) -> int:
    return sum(int(line["payload_bytes"]) for line in job["traffic"] if line["direction"] == "sent")


def _defined(number: float | None) -> float | None:
    """JSON has no NaN: an AUC over rows of one class is null."""
    return number if number is not None and math.isfinite(number) else None
