"""The result of a demonstration of rounds as data: what `result.json` and `--format json` hold."""

import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version

import polars as pl

from api.client import JsonObject
from api.demo.rounds.agreement import RoundsDemonstration
from api.demo.rounds.tables import AGGREGATOR, CLIENTS, LABEL, PARTIES
from api.demo.training.result import ONE_MACHINE
from vfl.kinds import kind_of
from vfl.models.intervals import of_share

OF_EVERY_ROUND = {"accuracy", "auc", "loss", "replies", "rows", "bytes_sent", "bytes_received"}
"""Series of every job of rounds; the others are its part's."""


@dataclass(frozen=True)
class Beside:
    """What the run is compared with."""

    accuracy: Mapping[str, float]
    """Of models trained without the federation."""
    averaging: Sequence[float]
    """Accuracy by round of plain averaging with the same draws; empty where it was not run."""
    whole_model: int
    """Bytes of averaging the whole network at full precision."""


def rounds_result(
    demonstration: RoundsDemonstration,
    jobs: Mapping[str, JsonObject],
    beside: Beside,
    processes: int,
    seconds: float,
    audit: JsonObject,
) -> JsonObject:
    """From every party's view of the finished job; the fields are listed in docs/cli.md."""
    agreement, aggregator = demonstration.agreement, jobs[AGGREGATOR]
    mode, spec, series = agreement.mode, agreement.spec, aggregator["series"]
    bytes_sent, bytes_received = series["bytes_sent"], series["bytes_received"]
    accuracy = {
        "federated": aggregator["metrics"][mode.federated],
        **({"plain_averaging": beside.averaging[-1]} if beside.averaging else {}),
        **beside.accuracy,
        **_models(aggregator["metrics"]),
    }
    tested = agreement.table.files[AGGREGATOR]["test"].height
    return {
        "mode": mode.name,
        "dataset": agreement.table.name,
        "rows": agreement.table.rows,
        "rounds": len(series["accuracy"]),
        "local_epochs": spec.rounds.local_epochs,
        "network": spec.model.network,
        "seed": demonstration.seed,
        "accuracy": accuracy,
        # A mean over clients' models is no share of rows.
        "intervals": {
            name: None if name == "client_alone" else list(of_share(round(value * tested), tested))
            for name, value in accuracy.items()
        },
        "bytes": {
            "aggregator_sent": _sent(aggregator),
            "clients_sent": sum(_sent(jobs[client]) for client in CLIENTS),
            "per_round": [round(out + back) for out, back in zip(bytes_sent, bytes_received, strict=True)],
            "whole_model": beside.whole_model,
        },
        "metrics": aggregator["metrics"],
        "seconds": {"total": round(seconds, 3), "training": round(aggregator["seconds"]["training"], 3)},
        "messages": _messages(jobs),
        "reveals": aggregator["reveals"],
        "model_digest": {party: jobs[party]["model_digest"] for party in PARTIES},
        "processes": processes,
        "curves": [
            {"round": number, "accuracy": accuracy, "aggregator_sent": round(out), "clients_sent": round(back)}
            for number, (accuracy, out, back) in enumerate(
                zip(series[mode.by_round], bytes_sent, bytes_received, strict=True), start=1
            )
        ],
        "averaging": list(beside.averaging),
        "part": {
            "by_round": _of_part(aggregator),
            "clients": {
                client: {
                    "metrics": jobs[client]["metrics"],
                    "by_round": _of_part(jobs[client]),
                    "notices": jobs[client]["notices"],
                }
                for client in CLIENTS
            },
        },
        "holdings": [
            _holding(party, dataset, frame)
            for party in PARTIES
            for dataset, frame in agreement.table.files[party].items()
        ],
        "notices": aggregator["notices"],
        "relaxed_limits": [asdict(limit) for limit in agreement.relaxed_limits],
        "not_protected": [*kind_of(spec).unprotected(spec, {}), ONE_MACHINE],
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "numpy")},
        },
        "job": aggregator["id"],
        "audit": audit,
        "folder": str(demonstration.folder),
    }


def _models(metrics: Mapping[str, float]) -> dict[str, float]:
    """Of backbone-decoder: both models before the rounds, and the second one after them."""
    names = ("first_model_before", "second_model_before", "second_model_after")
    return {name: metrics[name] for name in names if name in metrics}


def _of_part(job: JsonObject) -> dict[str, list[float]]:
    """What the part measured, a number for each round in which it did."""
    return {name: values for name, values in job["series"].items() if name not in OF_EVERY_ROUND}


def _messages(jobs: Mapping[str, JsonObject]) -> list[JsonObject]:
    counted: Counter[tuple[str, str]] = Counter()
    payload: Counter[tuple[str, str]] = Counter()
    for party in PARTIES:
        for line in jobs[party]["traffic"]:
            if line["direction"] == "sent":
                key = ("aggregator" if party == AGGREGATOR else "clients", line["kind"])
                counted[key] += line["messages"]
                payload[key] += line["payload_bytes"]
    return [
        {"party": sender, "kind": kind, "messages": counted[sender, kind], "payload_bytes": payload[sender, kind]}
        for sender, kind in counted
    ]


def _sent(job: JsonObject) -> int:
    return sum(int(line["payload_bytes"]) for line in job["traffic"] if line["direction"] == "sent")


def _holding(party: str, dataset: str, frame: pl.DataFrame) -> JsonObject:
    """How many rows of which digits; public rows carry no digit."""
    counts = [0] * 10
    if LABEL in frame.columns:
        for digit in frame[LABEL].to_list():
            counts[digit] += 1
    return {"party": party, "use": dataset, "rows": frame.height, "digits": counts if LABEL in frame.columns else None}
