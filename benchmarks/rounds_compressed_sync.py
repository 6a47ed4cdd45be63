"""Rows of compressed-sync (compressed_sync.md): bits stored and replied, beside full precision and other codecs.

`digits`: 64-64-32-10, 150 rounds; `mnist`: 784-200-10, 60 rounds; 10 clients that hold five label shards each, one
epoch a round. A row `4_2` stores 4 bits and replies with differences of 2. Rows that lose accuracy by design are named
in the terms as waived (X4). `stored` is the accuracy of the copy that clients hold after each round; seconds are what
one client's link takes for all messages until the aggregator's model comes within half a point of full precision's
last five rounds, at 1, 10 and 100 Mbit/s, computing left out.
"""

import statistics
from collections.abc import Mapping
from typing import Any, NamedTuple
from unittest.mock import patch

from federation import Dataset, Row, drawn, parted, run, setups, specification
from hadamard_minmax import HADAMARD_MINMAX

from parties.simulation.partition import shards
from vfl.codecs import CODECS
from vfl.horizontal.network import network_of
from vfl.horizontal.update_encoding import raw_encoding
from vfl.models.networks import parameters_of

CLIENTS, SHARDS, LAST = 10, 5, 5
HALF_A_POINT = 0.005
MEGABITS = (1, 10, 100)


class Size(NamedTuple):
    hidden: list[int]
    rounds: int
    tests: int
    batch: int
    rate: float


SIZES = {"digits": Size([64, 32], 150, 360, 16, 0.1), "mnist": Size([200], 60, 2000, 50, 0.1)}

Terms = dict[str, Any]
ROWS: dict[str, Terms | None] = {
    "fp32": None,
    "4_4": {},
    "4_2": {"reply_bits": 2},
    "8_1": {"stored_bits": 8, "reply_bits": 1},
    "2_2": {"stored_bits": 2, "reply_bits": 2},
    "4_4_parameters": {"reply": "parameters"},
    "4_4_no_feedback": {"reply": "parameters", "feedback": False},
    "hadamard_minmax": {"codec": "uniform"},
    "top_k": {"codec": "sparse"},
}
MORE: dict[str, Terms | None] = {
    "bf16": {"codec": "half", "precision": "bf16"},
    "minmax_8": {"codec": "uniform", "stored_bits": 8, "reply_bits": 8},
    "blocks_4": {"codec": "block"},
    "grid_8": {"codec": "grid", "stored_bits": 8, "reply_bits": 8},
    "2_2_parameters": {"stored_bits": 2, "reply_bits": 2, "reply": "parameters"},
    "2_2_no_feedback": {"stored_bits": 2, "reply_bits": 2, "reply": "parameters", "feedback": False},
    "layers_8_4": {"storage": "layers", "stored_bits": 8},
    "layers_4_4": {"storage": "layers"},
    "layers_4_4_nearest": {"storage": "layers", "rounding": "nearest"},
}
"""Left out by --quick."""


def setting(dataset: Dataset, seed: int, quick: bool) -> Mapping[str, Row]:  # noqa: FBT001 - the front's interface
    test, rest = parted(dataset, [SIZES[dataset.name].tests], seed)
    dealt = [rest.rows(rows) for rows in shards(rest.labels.astype(int), CLIENTS, SHARDS, drawn(seed, "shards"))]
    rows = {
        name: _row(dataset, test, dealt, seed, name, terms) for name, terms in (ROWS if quick else ROWS | MORE).items()
    }
    target = statistics.fmean(rows["fp32"]["accuracy_by_round"][-LAST:]) - HALF_A_POINT
    for row in rows.values():
        row["seconds_to_target"] = _seconds(row, target)
    return rows


def _row(dataset: Dataset, test: Dataset, dealt: list[Dataset], seed: int, name: str, terms: Terms | None) -> Row:
    size = SIZES[dataset.name]
    compressed = {} if terms is None else {"parts": ["compressed_sync"], "compressed_sync": terms}
    spec = specification(
        dataset,
        CLIENTS,
        model={"network": "mlp", "hidden": size.hidden},
        train={"batch_rows": size.batch, "optimiser": {"name": "sgd", "rate": size.rate}},
        rounds={"rounds": size.rounds, "allow": ["X4", "X5"], **compressed},
    )
    # The baseline stands where the plain codec of equal steps stands in the product: it is one, after a rotation.
    with patch.dict(CODECS, {"uniform": HADAMARD_MINMAX} if name == "hadamard_minmax" else {}):
        done = run(setups(spec, {"test": test.table()}, dealt, seed))
    row, outcome = done.row, done.outcome
    if terms is None:
        parameters = parameters_of(network_of(spec, bytes(32)))
        row["parameter_bytes"] = len(raw_encoding(parameters).broadcast(1, parameters))
    else:
        row["parameter_bytes"] = round(outcome.metrics["parameter_bytes_stored"])
        # Of the copy of a round's result, which is sent in the next one, or published.
        row["stored_by_round"] = [*outcome.series["stored_accuracy"][1:], outcome.metrics["stored_accuracy"]]
    return row


def _seconds(row: Row, target: float) -> dict[str, float]:
    """By Mbit/s; infinite where the target is not reached."""
    accuracies = row["accuracy_by_round"]
    needed = next((number for number, value in enumerate(accuracies, 1) if value >= target), None)
    if needed is None:
        return {str(speed): float("inf") for speed in MEGABITS}
    per_round = (row["bytes_up"] + row["bytes_down"]) / CLIENTS / len(accuracies)
    return {str(speed): needed * per_round * 8 / (speed * 1e6) for speed in MEGABITS}


SETTINGS = {"digits": setting, "mnist": setting}
