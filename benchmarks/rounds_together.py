"""Rows of all four parts: none, each alone, each pair, each three, and all in one job (rounds.md).

Images are turned by 90 degrees and dealt to ten clients of two label shards each, of which five are chosen per round;
the first model knows them upright. With backbone-decoder the accuracy by round is that of the second model;
`first_model` is the first one's after it was carried back, and in the other rows the last round's. Behind a backbone
model-inversion seeks features (X7). The aggregator also has a few turned rows with labels: shared-data adjusts on them,
and backbone-decoder chooses between its ways back by them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from federation import Dataset, Row, drawn, parted, run, setups, specification
from rounds_backbone_decoder import turned_rows

from parties.simulation.partition import shards

CLIENTS, SHARDS = 10, 2


@dataclass(frozen=True)
class Scale:
    first_rows: int
    shared_rows: int
    client_rows: int
    hidden: tuple[int, ...]
    student: tuple[int, ...]
    rounds: int
    quick_rounds: int


SCALES = {
    "digits": Scale(500, 160, 800, (128, 128), (32,), 30, 10),
    "mnist": Scale(3500, 400, 4000, (256, 128), (32,), 30, 10),
}
"""A student has at most an eighth of the first backbone's parameters."""


def terms_of(scale: Scale) -> dict[str, dict[str, Any]]:
    """By part, in the order in which adjusters run."""
    return {
        "compressed_sync": {"stored_bits": 4, "reply_bits": 4},
        "model_inversion": {"leak_meter": False},
        "shared_data": {"rule": "feddu", "epochs": 2, "batch_rows": 32},
        "backbone_decoder": {"cut": "features", "derive": "student", "student_hidden": list(scale.student)},
    }


def setting(dataset: Dataset, seed: int, quick: bool) -> Mapping[str, Row]:  # noqa: FBT001 - the front's interface
    scale = SCALES[dataset.name]
    first, shared, clients, test = parted(dataset, [scale.first_rows, scale.shared_rows, scale.client_rows], seed)
    shared, clients, test = (turned_rows(rows) for rows in (shared, clients, test))
    dealt = [clients.rows(rows) for rows in shards(clients.labels.astype(int), CLIENTS, SHARDS, drawn(seed, "shards"))]
    tables = {
        "first": first.table(),
        "public": turned_rows(first).table(labelled=False),
        "validation": shared.table(),
        "shared": shared.table(),
        "test": test.table(),
    }

    def row(parts: tuple[str, ...]) -> Row:
        terms: dict[str, Any] = {part: terms_of(scale)[part] for part in parts}
        if {"model_inversion", "backbone_decoder"} <= terms.keys():
            terms["model_inversion"]["space"] = "features"
        spec = specification(
            dataset,
            CLIENTS,
            uses=tuple(tables),
            model={"network": "mlp", "hidden": list(scale.hidden), "norm": "batch", "first_epochs": 20},
            train={"batch_rows": 32, "optimiser": {"name": "sgd", "rate": 0.1}},
            rounds={
                "rounds": scale.quick_rounds if quick else scale.rounds,
                "local_epochs": 2,
                "clients_per_round": CLIENTS // 2,
                "parts": list(parts),
                **terms,
            },
        )
        done = run(setups(spec, tables, dealt, seed))
        metrics = done.outcome.metrics
        carried = metrics.get("first_model_before", 0.0) + metrics.get("first_model_gain", 0.0)
        last = done.row["accuracy_by_round"][-1]
        return {**done.row, "first_model": carried if "backbone_decoder" in parts else last}

    parts = tuple(terms_of(scale))
    sets = [chosen for size in range(len(parts) + 1) for chosen in combinations(parts, size)]
    return {"+".join(chosen) or "fedavg": row(chosen) for chosen in sets}


SETTINGS = {"digits": setting, "mnist": setting}
