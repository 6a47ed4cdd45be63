"""The result of a demonstration as data: what `result.json` and `--format json` hold."""

import math
import os
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version

from api.client import JsonObject
from api.demo.training.agreement import Demonstration
from api.demo.training.curves import EpochPoint
from api.demo.training.tables import FEATURE_PARTY, LABEL_PARTY
from vfl.kinds import kind_of
from vfl.models.metrics import METRIC

ONE_MACHINE = (
    "All parties stand on one machine, with a fixed seed and keys that lie beside each other: it shows the protocol, "
    "it does not keep organisations apart."
)
PARTIES = {LABEL_PARTY: "label_party", FEATURE_PARTY: "feature_party"}


def result_data(
    demonstration: Demonstration,
    jobs: Mapping[str, JsonObject],
    scores: Mapping[str, Mapping[str, float]],
    points: list[EpochPoint],
    processes: int,
    seconds: float,
    audit: JsonObject,
) -> JsonObject:
    """From both parties' views of the finished job; the fields are listed in docs/cli.md."""
    table, agreement = demonstration.table, demonstration.agreement
    spec, plan, metric = agreement.spec, agreement.plan, METRIC[table.task]
    training = jobs[LABEL_PARTY]["seconds"]["training"]
    operations: Counter[str] = Counter()
    for job in jobs.values():
        operations.update(job["operations"])
    return {
        "dataset": table.name,
        "task": table.task,
        "scheme": spec.encryption.scheme,
        "layout": spec.model.layout,
        "top": spec.model.top.kind,
        "rows": table.rows,
        "training_rows": plan.training_rows,
        "held_out_rows": plan.test_rows,
        "epochs": spec.train.epochs,
        "steps": plan.steps,
        "batch_rows": spec.train.batch_rows,
        "seed": demonstration.seed,
        # A metric that is not defined, as the AUC over held-out rows of one class, is null.
        metric: {model: _defined(measures.get(metric)) for model, measures in scores.items()},
        "intervals": {
            model: [measures[f"{metric}_low"], measures[f"{metric}_high"]] if f"{metric}_low" in measures else None
            for model, measures in scores.items()
        },
        "seconds": {"total": round(seconds, 3), "training": round(training, 3)},
        "samples_per_second": round(plan.training_rows * spec.train.epochs / training, 1) if training else 0.0,
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
        "processes": processes,
        "curves": [{key: _defined(value) for key, value in asdict(point).items()} for point in points],
        "notices": {name: jobs[party]["notices"] for party, name in PARTIES.items()},
        "relaxed_limits": [asdict(limit) for limit in agreement.relaxed_limits],
        "not_protected": not_protected(demonstration),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "tenseal", "numpy")},
        },
        "job": jobs[LABEL_PARTY]["id"],
        "audit": audit,
        "folder": str(demonstration.folder),
    }


def not_protected(demonstration: Demonstration) -> list[str]:
    """What this run does not hide or guard, in plain sentences."""
    agreement = demonstration.agreement
    return [*kind_of(agreement.spec).unprotected(agreement.spec, asdict(agreement.plan)), ONE_MACHINE]


def _sent(job: JsonObject) -> int:
    return sum(int(line["payload_bytes"]) for line in job["traffic"] if line["direction"] == "sent")


def _defined(number: float | None) -> float | None:
    """JSON has no NaN: an AUC over rows of one class is null."""
    return number if number is not None and math.isfinite(number) else None
