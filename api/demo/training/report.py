"""`report.html`: one page that opens offline and says what happened, what it cost, and what each side could see."""

from collections import Counter
from typing import Any

import msgspec

from api.agreement import data_by_party
from api.client import JsonObject
from api.demo.training.curves import EpochPoint
from api.demo.training.tables import LABEL_PARTY
from api.report.charts import bytes_by_kind, loss_curve, metric_curve
from api.report.page import page
from api.sizes import readable_bytes
from parties.storage.scores import SCORE
from vfl.kinds import read_spec
from vfl.message import MESSAGES

METRIC_NAMES = {"auc": "AUC", "accuracy": "accuracy", "r2": "R²"}
LOSS_NAMES = {
    "binary": "Logistic loss",
    "multiclass": "Logistic loss, mean over classes",
    "regression": "Squared error, in label deviations",
}
CLASS_OUTPUT = f"{SCORE}_"
AROUND_THE_JOB = "agree, begin, end"
TITLES = {"breast-cancer": "Breast cancer", "digits": "Digits", "diabetes": "Diabetes", "own-tables": "Own tables"}


def metric_of(result: JsonObject) -> tuple[str, dict[str, float | None]]:
    """The metric's key in a result, and the four models' values."""
    name = next(name for name in METRIC_NAMES if name in result)
    return name, result[name]


def metric_rows(result: JsonObject) -> list[tuple[str, str]]:
    """What each of the four values belongs to, as a person reads it."""
    _, scores = metric_of(result)
    trained = "two parties, in clear" if result["scheme"] == "none" else "two parties, on ciphertexts"
    names = {
        "federated": trained,
        "same_model_in_clear": "same model, in clear in one process",
        "label_party_alone": "label party alone",
        "centralised": "all columns in one place, "
        + ("exact loss" if result["top"] == "linear" else "ReLU network of scikit-learn"),
    }
    return [(names[key], with_interval(scores[key], result["intervals"][key])) for key in names]


def files_line(alignment: JsonObject) -> str:
    """How many rows the two files of an alignment hold, and how many both."""
    label, feature, common = (alignment[f"{whose}_rows"] for whose in ("label_party", "feature_party", "common"))
    return f"{label:,} in the label party's file, {feature:,} in the other, {common:,} in both"


def new_score_rows(result: JsonObject) -> list[tuple[str, str, str]]:
    """(id, joint score, score in clear) of a few new rows; of several classes the likeliest one with its score."""
    new, rows = result["new_rows"], []
    for example in new["examples"]:
        joint = [score for score in example["joint"] if score is not None]
        best = example["joint"].index(max(joint)) if joint else 0
        named = f"{new['outputs'][best].removeprefix(CLASS_OUTPUT)}: " if len(new["outputs"]) > 1 else ""
        shown = f"{named}{max(joint):.4f}" if joint else "out of range"
        rows.append((example["id"], shown, f"{named}{example['in_clear'][best]:.4f}"))
    return rows


def score_heading(result: JsonObject) -> str:
    return "joint score" if len(result["new_rows"]["outputs"]) == 1 else "likeliest class: joint score"


def with_interval(score: float | None, interval: list[float] | None) -> str:
    between = "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
    return readable_score(score, 4) + between


def readable_score(score: float | None, decimals: int) -> str:
    """0.9960; over held-out rows of one class an AUC is not defined."""
    return "undefined" if score is None else f"{score:.{decimals}f}"


def notices_by_party(result: JsonObject) -> list[tuple[str, JsonObject]]:
    """(who is told, the notice); what both parties are told in the same words stands once."""
    by_text: dict[str, tuple[list[str], JsonObject]] = {}
    for party, notices in result["notices"].items():
        for notice in notices:
            by_text.setdefault(notice["text"], ([], notice))[0].append(party.replace("_", " "))
    return [("both parties" if len(parties) > 1 else parties[0], notice) for parties, notice in by_text.values()]


def render(result: JsonObject, specification: str) -> str:
    """The page, from a result and the job's TOML text."""
    key, scores = metric_of(result)
    points = [EpochPoint(**point) for point in result["curves"]]
    references = [
        (name, score)
        for name, score in (
            ("label party alone", scores["label_party_alone"]),
            ("all columns in one place", scores["centralised"]),
        )
        if score is not None
    ]
    context: dict[str, Any] = {
        "title": TITLES.get(result["dataset"], result["dataset"]),
        "metric": METRIC_NAMES[key],
        "score": readable_score(scores["federated"], 3),
        "kicker": f"{result['scheme']} · layout {result['layout']} · {result['top']} model · seed {result['seed']}",
        "job": result["job"],
        "facts": [
            ("rows at both", f"{result['rows']:,}, {result['held_out_rows']:,} held out"),
            ("training", f"{result['epochs']} epochs, {result['steps']} steps"),
            ("time", f"{result['seconds']['total']:.1f} s, training {result['seconds']['training']:.1f} s"),
            ("speed", f"{result['samples_per_second']:,.0f} samples/s"),
            ("feature party sent", readable_bytes(result["bytes"]["feature_party_sent"])),
            ("label party sent", readable_bytes(result["bytes"]["label_party_sent"])),
        ],
        "rows": metric_rows(result),
        "files": _files(result),
        "foreseen": [],  # a demonstration asks for no estimate
        "new": result["new_rows"],
        "new_scores": new_score_rows(result) if result["new_rows"] else [],
        "score_heading": score_heading(result) if result["new_rows"] else "",
        "charts": _charts(points, result["task"], _capital(METRIC_NAMES[key]), references),
        "bytes_chart": bytes_by_kind(traffic(result), first="feature_party"),
        "first_bytes": "sent by the feature party",
        "second_bytes": "sent by the label party",
        "seen": [
            (party, [line for line in result["reveals"] if line["receiver"] == party]) for party in _parties(result)
        ],
        "summary": _summary(result, METRIC_NAMES[key], scores),
        "counted": "values",
        "seen_note": "",
        "not_protected": result["not_protected"],
        "relaxed_limits": [
            f"{limit['name']}: usually {limit['usual']:g}, here {limit['relaxed']:g}"
            for limit in result["relaxed_limits"]
        ],
        "operations": result["he_operations"],
        "notices": [f"{party}, {notice['kind']}: {notice['text']}" for party, notice in notices_by_party(result)],
        "where": [
            *of_machine(result),
            ("model of the label party", result["model_digest"]["label_party"]),
            ("model of the feature party", result["model_digest"]["feature_party"]),
        ],
        **agreed(specification),
    }
    return page("training/report.html", context)


def _charts(points: list[EpochPoint], task: str, metric: str, references: list[tuple[str, float]]) -> list[str]:
    """Loss and metric by epoch; none of a model that was solved in one pass."""
    if not points:
        return []
    losses = [point.training_loss for point in points], [point.held_out_loss for point in points]
    return [
        loss_curve([point.epoch for point in points], *losses, LOSS_NAMES[task]),
        metric_curve([point.held_out_metric for point in points], metric, references),
    ]


def agreed(specification: str) -> JsonObject:
    """What the section of the agreement shows, from the job's TOML text."""
    spec = msgspec.to_builtins(read_spec(specification))
    return {
        "purpose": spec["job"]["purpose"],
        "data_by_party": list(data_by_party(spec)),
        "specification": specification,
    }


def of_machine(result: JsonObject) -> list[tuple[str, str]]:
    """Where a demonstration ran."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("torch", "tenseal", "numpy") if name in machine)
    return [
        ("machine", f"{machine['system']}, {machine['processors']} processors"),
        ("software", f"Python {machine['python']}, {versions}"),
        ("processes", f"{result['processes']}: a server and a worker for each party"),
    ]


def traffic(result: JsonObject) -> list[tuple[str, str, int]]:
    """(party, kind, bytes); what servers say to each other around the job counts as one kind."""
    sizes: Counter[tuple[str, str]] = Counter()
    for line in result["messages"]:
        sizes[line["party"], line["kind"] if line["kind"] in MESSAGES else AROUND_THE_JOB] += line["payload_bytes"]
    return [(party, kind, size) for (party, kind), size in sizes.items()]


def _files(result: JsonObject) -> list[tuple[str, int, int, int]]:
    """(what rows, at the label party, at the feature party, at both)."""
    alignments = [("known rows", result["alignment"])]
    if result["new_rows"]:
        alignments.append(("new rows", result["new_rows"]["alignment"]))
    return [
        (name, each["label_party_rows"], each["feature_party_rows"], each["common_rows"]) for name, each in alignments
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _summary(result: JsonObject, metric: str, scores: dict[str, float | None]) -> str:
    values = {model: readable_score(score, 3) for model, score in scores.items()}
    how = (
        "on ciphertexts: no row left its owner in clear"
        if result["scheme"] != "none"
        else "in clear, as the reference an encrypted run is compared with"
    )
    if result["layout"] == "embeddings":
        how += ", and label-bearing errors went back to the feature party"
    return (
        f"A label party and a feature party found the {result['rows']:,} rows that both have, and trained one model "
        f"on them, {how}. On {result['held_out_rows']:,} rows it had never "
        f"met, the model reaches {metric} {values['federated']}, against {values['label_party_alone']} for the "
        f"label party alone and {values['centralised']} for a model with all columns in one place."
    )


def _parties(result: JsonObject) -> list[str]:
    """Receivers in the order of the reveal table, the label party first."""
    return sorted({line["receiver"] for line in result["reveals"]}, key=lambda party: (party != LABEL_PARTY, party))
