"""`report.html` of a demonstration of rounds: what it reached, what travelled, and what each side could see."""

from typing import Any

from api.client import JsonObject
from api.demo.rounds.modes import MODES
from api.demo.rounds.part_facts import part_facts
from api.demo.rounds.tables import AGGREGATOR
from api.demo.training.report import agreed, of_machine, traffic, with_interval
from api.report.charts import bytes_by_kind, bytes_by_round, metric_curve
from api.report.page import page
from api.sizes import readable_bytes

CLIENTS = "clients"
NOTHING_SAVED = 1.1
"""Up to so many times more is no saving."""


def accuracy_rows(result: JsonObject) -> list[tuple[str, str]]:
    """What each accuracy belongs to, as a person reads it."""
    names = {
        "federated": MODES[result["mode"]].trained,
        "plain_averaging": "averaging, same draws, without the part",
        "shared_rows_alone": "the shared rows alone",
        "first_model_before": "aggregator's model, before",
        "second_model_after": "second model, which the clients keep",
        "client_alone": "each client alone, mean",
        "centralised": "all clients' rows in one place",
    }
    return [
        (name, with_interval(result["accuracy"][key], result["intervals"][key]))
        for key, name in names.items()
        if key in result["accuracy"]
    ]


def revealed(result: JsonObject) -> list[JsonObject]:
    """The reveal table with one line for all clients: what the aggregator reads of each, and each of the aggregator."""
    lines: dict[tuple[str, bool], JsonObject] = {}
    for line in result["reveals"]:
        key = line["message"], line["receiver"] == AGGREGATOR
        if key not in lines:
            sender, receiver = (CLIENTS, AGGREGATOR) if key[1] else (AGGREGATOR, CLIENTS)
            lines[key] = line | {"sender": sender, "receiver": receiver, "values": 0}
        lines[key]["values"] += line["values"]
    return sorted(lines.values(), key=lambda line: line["receiver"] != AGGREGATOR)


def saving(result: JsonObject) -> str:
    """How many times less than the whole model at full precision travelled; empty where it is about as much."""
    sizes = result["bytes"]
    whole, ours = sizes["whole_model"], sizes["aggregator_sent"] + sizes["clients_sent"]
    return f"{whole / ours:.1f}" if whole > NOTHING_SAVED * ours else ""


def kept(result: JsonObject) -> str:
    """What compression leaves of a client's parameters between rounds; empty where nothing is compressed."""
    sizes = [result["metrics"].get(f"parameter_bytes_{how}") for how in ("stored", "at_full_precision")]
    if None in sizes:
        return ""
    return f"{readable_bytes(round(sizes[0]))} of {readable_bytes(round(sizes[1]))}"


def render(result: JsonObject, specification: str) -> str:
    """The page, from a result and the job's TOML text."""
    curves, scores = result["curves"], result["accuracy"]
    before = scores.get("first_model_before")
    references = [
        ("all clients' rows in one place", scores["centralised"]),
        ("before the rounds", before) if before is not None else ("each client alone", scores["client_alone"]),
    ]
    context: dict[str, Any] = {
        "title": f"Digits, {result['mode']}",
        "metric": "accuracy",
        "score": f"{scores['federated']:.3f}",
        "kicker": f"network {result['network']} · {result['rounds']} rounds · seed {result['seed']}",
        "job": result["job"],
        "facts": _facts(result),
        "foreseen": [],  # a demonstration asks for no estimate
        "holdings": result["holdings"],
        "rows": accuracy_rows(result),
        "story": MODES[result["mode"]].story,
        "summary": _summary(result),
        "accuracy_chart": metric_curve(
            [point["accuracy"] for point in curves],
            "Accuracy",
            references,
            along="round",
            curve="this run",
            beside=("averaging", result["averaging"]),
        ),
        "round_chart": bytes_by_round(
            [point["aggregator_sent"] for point in curves],
            [point["clients_sent"] for point in curves],
            [point["round"] for point in curves],
        ),
        "bytes_chart": bytes_by_kind(traffic(result), first=CLIENTS),
        "first_bytes": "sent by the clients",
        "second_bytes": "sent by the aggregator",
        "whole_model": readable_bytes(result["bytes"]["whole_model"]),
        "saving": saving(result),
        "part": part_facts(result),
        "clients": [
            (client, facts["notices"]) for client, facts in result["part"]["clients"].items() if facts["notices"]
        ],
        "seen": [
            (receiver, [line for line in revealed(result) if line["receiver"] == receiver])
            for receiver in (AGGREGATOR, CLIENTS)
        ],
        "counted": "messages",
        "seen_note": "Messages of all clients together, at most.",
        "not_protected": result["not_protected"],
        "relaxed_limits": [
            f"{limit['party']}, {limit['name']}: usually {limit['usual']}, here {limit['relaxed']}"
            for limit in result["relaxed_limits"]
        ],
        "operations": {},
        "notices": [f"aggregator, {notice['kind']}: {notice['text']}" for notice in result["notices"]],
        "where": [
            *of_machine(result),
            *((f"model of {party}", digest) for party, digest in result["model_digest"].items()),
        ],
        **agreed(specification),
    }
    return page("rounds/report.html", context)


def _facts(result: JsonObject) -> list[tuple[str, str]]:
    epochs, seconds, sizes = result["local_epochs"], result["seconds"], result["bytes"]
    facts = [
        ("rows", f"{result['rows']:,} at four parties"),
        ("training", f"{result['rounds']} rounds, {epochs} local epoch{'' if epochs == 1 else 's'} each"),
        ("time", f"{seconds['total']:.1f} s, training {seconds['training']:.1f} s"),
        ("aggregator sent", readable_bytes(sizes["aggregator_sent"])),
        ("clients sent", readable_bytes(sizes["clients_sent"])),
        ("whole model, full precision", readable_bytes(sizes["whole_model"])),
    ]
    return [*facts, ("each client keeps", kept(result))] if kept(result) else facts


def _summary(result: JsonObject) -> str:
    scores = {name: f"{value:.3f}" for name, value in result["accuracy"].items()}
    before = f", against {scores['first_model_before']} before" if "first_model_before" in scores else ""
    without = f", averaging without the part {scores['plain_averaging']}" if "plain_averaging" in scores else ""
    return (
        f"An aggregator and three clients trained for {result['rounds']} rounds; no row left its owner. On test rows "
        f"nobody trained on the model reaches accuracy {scores['federated']}{before}{without}. A client alone reaches "
        f"{scores['client_alone']} on average, the same network with all clients' rows in one place "
        f"{scores['centralised']}."
    )
