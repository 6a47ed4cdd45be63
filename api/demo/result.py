"""The result of a demonstration as data: what `result.json` and `--format json` hold."""

import math
import os
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING

from api.client import JsonObject
from api.demo.curves import EpochPoint
from api.demo.tables import FEATURE_PARTY, LABEL_PARTY
from vfl.metrics import METRIC

if TYPE_CHECKING:
    from api.demo.run import Demonstration

PARTIES = {LABEL_PARTY: "label_party", FEATURE_PARTY: "feature_party"}


def result_data(
    demonstration: "Demonstration",
    jobs: Mapping[str, JsonObject],
    scores: Mapping[str, float | None],
    points: list[EpochPoint],
    processes: int,
    seconds: float,
) -> JsonObject:
    """From both parties' views of the finished job; the fields are listed in docs/cli.md."""
    table, agreement = demonstration.table, demonstration.agreement
    spec, plan = agreement.spec, agreement.plan
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
        METRIC[table.task]: {model: _defined(score) for model, score in scores.items()},
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
        "lowered_floors": [asdict(floor) for floor in agreement.floors],
        "not_protected": not_protected(demonstration),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "tenseal", "numpy")},
        },
        "job": jobs[LABEL_PARTY]["id"],
        "folder": str(demonstration.folder),
    }


def not_protected(demonstration: "Demonstration") -> list[str]:
    """What this run does not hide or guard, in plain sentences."""
    plan, spec = demonstration.agreement.plan, demonstration.agreement.spec
    scheme, embeddings = spec.encryption.scheme, spec.model.layout == "embeddings"
    brought = "an embedding coordinate" if embeddings else "a continuous column"
    lines = []
    if scheme == "none":
        lines.append(
            "Scheme none hides nothing from the label party: it read every "
            f"{'embedding' if embeddings else 'standardised value'} of the feature party."
        )
    else:
        lines.append(
            f"The label party read {plan.opened_per_step} noisy gradient sums per step. If it knew every row's error, "
            f"it could reconstruct {min(plan.rho, 1):.1%} of the variance of {brought} (rho {plan.rho:.3g})."
        )
        lines.append("The label party read a noisy score of every held-out row.")
        if not plan.guards_deviating_label_party:
            lines.append(
                f"Nothing is claimed against a label party that deviates from the protocol: one key opens up to "
                f"{plan.values_per_key} values, so that it might find the key and all that was encrypted under it."
            )
    if spec.protection is not None:
        noise = spec.protection.cut_noise
        hidden_by = "nothing hides them" if noise.method == "none" else f"noise of deviation {noise.scale:g} is on them"
        lines.append(
            "The feature party read label-bearing errors for every row and step: labels can be inferred from them, and "
            f"protection.cut_noise is {noise.method}, so that {hidden_by}."
        )
    lines.append(
        "Both ends of this run stand on one machine with a fixed seed, and their messages are not signed: it shows the "
        "protocol, it does not keep two organisations apart."
    )
    return lines


def _sent(job: JsonObject) -> int:
    return sum(int(line["payload_bytes"]) for line in job["traffic"] if line["direction"] == "sent")


def _defined(number: float | None) -> float | None:
    """JSON has no NaN: an AUC over rows of one class is null."""
    return number if number is not None and math.isfinite(number) else None
