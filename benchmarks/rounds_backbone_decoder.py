"""Rows of backbone-decoder: a first model meets a shifted domain at its clients (backbone_decoder.md).

    turned       images turned by 90 degrees; the first model knows them upright
    new_classes  ten classes; the first model knows five

Rows that derive a second model show its accuracy; `kept` is what of the gain comes back into the first one:
(first model after - before) / (decoder averaging on the first model - before), by carry-back. The aggregator holds a
share of the images: most for the first model, and, without labels and in the clients' domain, as public rows; a few
with labels to choose between carry-backs. `layers` has a first model of its own, with square blocks to leave out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from federation import Dataset, Row, Run, drawn, parted, run, setups, specification

from parties.simulation.partition import even
from vfl.setup import Table

CLIENTS = 10
KNOWN_CLASSES = 5


@dataclass(frozen=True)
class Scale:
    """How large a federation is, and what derives its second models."""

    first_rows: int
    validation_rows: int
    client_rows: int
    hidden: tuple[int, ...]
    blocks: tuple[int, ...]
    """Of the first model that has square blocks."""
    student: tuple[int, ...]
    rank: int
    rounds: int
    first_epochs: int
    align_epochs: int


SCALES = {
    "digits": Scale(560, 80, 800, (512, 512), (512, 512, 512), (48,), 22, 20, 30, 60),
    "mnist": Scale(3600, 400, 4000, (512, 128), (512, 128, 128, 128), (40,), 24, 30, 10, 20),
}
"""Students and low ranks have at most an eighth of the first backbone's parameters."""


@dataclass(frozen=True)
class Task:
    scale: Scale
    own: Mapping[str, Table]
    """The aggregator's rows."""
    dealt: list[Dataset]
    other_public: Table
    """Public rows outside the clients' domain."""
    dataset: Dataset
    seed: int

    def run(self, terms: Mapping[str, Any] | None, **more: Any) -> Run:
        """One job with these terms of backbone-decoder; without any, whole models are averaged."""
        hidden = more.pop("hidden", self.scale.hidden)
        own, dealt = more.pop("own", self.own), more.pop("dealt", self.dealt)
        parts = [*more, *(["backbone_decoder"] if terms else [])]
        tables = (
            {"backbone_decoder": {"cut": "features", "align_epochs": self.scale.align_epochs, **terms}} if terms else {}
        )
        spec = specification(
            self.dataset,
            len(dealt),
            uses=tuple(own),
            model={"network": "mlp", "hidden": list(hidden), "first_epochs": self.scale.first_epochs},
            train={"batch_rows": 32, "optimiser": {"name": "sgd", "rate": 0.1}},
            rounds={"rounds": self.scale.rounds, "local_epochs": 2, "parts": parts, **tables, **more},
        )
        return run(setups(spec, own, dealt, self.seed))


def turned(dataset: Dataset, seed: int, quick: bool) -> dict[str, Row]:  # noqa: FBT001
    scale = SCALES[dataset.name]
    first, validation, clients, test = parted(dataset, _sizes(scale), seed)
    own = {
        "first": first.table(),
        "validation": turned_rows(validation).table(),
        "public": turned_rows(first).table(labelled=False),
        "test": turned_rows(test).table(),
    }
    return _rows(_task(scale, own, turned_rows(clients), first.table(labelled=False), seed), quick=quick)


def new_classes(dataset: Dataset, seed: int, quick: bool) -> dict[str, Row]:  # noqa: FBT001
    scale = SCALES[dataset.name]
    first, validation, clients, test = parted(dataset, _sizes(scale), seed)
    known = first.rows(first.labels < KNOWN_CLASSES)
    own = {
        "first": known.table(),
        "validation": validation.table(),
        "public": first.table(labelled=False),
        "test": test.table(),
    }
    return _rows(_task(scale, own, clients, known.table(labelled=False), seed), quick=quick)


SETTINGS = {"turned": turned, "new_classes": new_classes}


def _sizes(scale: Scale) -> tuple[int, ...]:
    return scale.first_rows, scale.validation_rows, scale.client_rows


def turned_rows(images: Dataset) -> Dataset:
    squares = images.columns.reshape(-1, *images.shape)
    return replace(images, columns=np.rot90(squares, axes=(2, 3)).reshape(images.columns.shape))


def _task(scale: Scale, own: Mapping[str, Table], clients: Dataset, other_public: Table, seed: int) -> Task:
    dealt = [clients.rows(rows) for rows in even(clients.labels, CLIENTS, drawn(seed, "even"))]
    return Task(scale, own, dealt, other_public, clients, seed)


def _rows(task: Task, *, quick: bool) -> dict[str, Row]:
    identity, rows = task.run({"derive": "identity"}), dict[str, Row]()
    before = identity.outcome.metrics["first_model_before"]
    rows["first_model_before"] = {
        "accuracy_by_round": [before],
        "bytes_up": 0,
        "bytes_down": 0,
        "client_steps": 0,
    }
    rows["decoder_on_first"] = task.run({"derive": "identity", "carry_back": "copy"}).row
    everyone = replace(
        task.dataset,
        columns=np.concatenate([rows.columns for rows in task.dealt]),
        labels=np.concatenate([rows.labels for rows in task.dealt]),
    )
    rows["central_decoder"] = task.run({"derive": "identity", "carry_back": "copy"}, dealt=[everyone]).row
    rows["whole_model"] = task.run(None, own={use: task.own[use] for use in ("first", "test")}).row
    rows["identity"] = _with_kept(identity, identity)
    for name, terms in _derivations(task.scale).items():
        rows[name] = _with_kept(task.run(terms), identity)
    blocks: dict[str, Any] = {"hidden": task.scale.blocks}
    rows["layers"] = _with_kept(
        task.run({"derive": "layers", "layers": 1}, **blocks), task.run({"derive": "identity"}, **blocks)
    )
    if not quick:
        for name, ablated in _ablations(task).items():
            rows[name] = _with_kept(ablated(), identity)
    return rows


def _derivations(scale: Scale) -> dict[str, dict[str, Any]]:
    return {
        "student": _student(scale),
        "prune": {"derive": "prune", "share": 0.1},
        "quantise": {"derive": "quantise", "bits": 4},
        "low_rank": {"derive": "low_rank", "rank": scale.rank, "translator": False},
    }


def _student(scale: Scale) -> dict[str, Any]:
    return {"derive": "student", "student_hidden": list(scale.student)}


def _ablations(task: Task) -> dict[str, Callable[[], Run]]:
    student = _student(task.scale)
    return {
        "quantise_2_bits": lambda: task.run({"derive": "quantise", "bits": 2}),
        "student_not_trained": lambda: task.run(student | {"align_epochs": 0}),
        "student_no_translator": lambda: task.run(student | {"translator": False}),
        "student_other_public": lambda: task.run(student, own={**task.own, "public": task.other_public}),
        "student_preserve_debias": lambda: task.run(student | {"preserve": True, "debias": True}),
        "student_8_bits": lambda: task.run(student, compressed_sync={"backbone_bits": 8}),
        "student_4_bits": lambda: task.run(student, compressed_sync={"backbone_bits": 4}),
    }


def _with_kept(this: Run, identity: Run) -> Row:
    """Against averaging the decoder on the first model itself."""
    before = identity.outcome.metrics["first_model_before"]
    bound = identity.outcome.metrics["second_model_after"] - before
    shares = {
        way: (this.outcome.metrics[f"first_model_after_{way}"] - before) / bound
        for way in ("copy", "delta", "distil")
        if f"first_model_after_{way}" in this.outcome.metrics
    }
    shares["best"] = this.outcome.metrics["first_model_gain"] / bound
    row = this.row
    row["kept"] = shares
    return row
