"""Rows of model-inversion (methods.md 3.7): averaging, inversion at clients, at the aggregator, at both, and controls.

`one_shard`: digits, small network of convolutions, ten clients of one label shard each, three chosen per round.
`two_class`: MNIST-10k, 784-128-64-10, each class at exactly two of ten clients, all chosen. `even`: digits, two shards,
all chosen, where inversion is not expected to help. `one_shot`: five clients, Dirichlet 0.5, one reply each.
`noise_rows` takes the steps of `both` with noise for rows.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from fairness import with_clients, with_rounds_to
from federation import Dataset, Row, drawn, parted, run, setups, specification
from torch import nn

from vfl.horizontal import model_inversion
from vfl.horizontal.inverter import Find
from vfl.horizontal.part import PARTS
from vfl.inversion import Inverted, Search, Space, invert
from vfl.partition import dirichlet, shards
from vfl.schedule import permutation

Terms = dict[str, Any]


def remembering(find: Find) -> Find:
    """The same, which finds rows of all classes in a model once: all simulated clients received the same one."""
    found: dict[bytes, Inverted] = {}

    def remembered(
        module: nn.Module, labels: torch.Tensor, space: Space, search: Search, seed: bytes, student: nn.Module | None
    ) -> Inverted:
        if search.steps != Search().steps:  # at the aggregator: each client's model is another
            return find(module, labels, space, search, seed, student)
        state = b"".join(values.numpy().tobytes() for values in module.state_dict().values())
        key = hashlib.sha256(state).digest()
        rows_per_class = int(torch.bincount(labels).max())
        if key not in found:
            found.clear()
            every = torch.arange(10).repeat_interleave(rows_per_class)
            found[key] = find(module, every, space, search, key, student)
        chosen = torch.isin(found[key].labels, labels)
        return Inverted(*(values[chosen] for values in found[key]))

    return remembered


def noise(
    _module: nn.Module, labels: torch.Tensor, space: Space, _search: Search, seed: bytes, _student: nn.Module | None
) -> Inverted:
    """The control: rows of noise, all kept."""
    draws = torch.Generator().manual_seed(int.from_bytes(seed[:7], "big"))
    return Inverted(
        torch.rand(len(labels), *space.shape, generator=draws), labels, torch.ones(len(labels), dtype=torch.bool)
    )


def two_classes(labels: np.ndarray[Any, Any], clients: int, seed: bytes) -> list[np.ndarray[Any, Any]]:
    """Client k gets half of class k and half of class k + 1."""
    order = permutation(seed, "two classes", len(labels))
    halves = {label: np.array_split(order[labels[order] == label], 2) for label in range(clients)}
    return [np.sort(np.concatenate([halves[k][0], halves[(k + 1) % clients][1]])) for k in range(clients)]


def dealt(dataset: Dataset, how: str, seed: int) -> list[Dataset]:
    labels, draw = dataset.labels.astype(int), drawn(seed, "dealt")
    ways: dict[str, Callable[[], list[Any]]] = {
        "one shard": lambda: shards(labels, 10, 1, draw),
        "two shards": lambda: shards(labels, 10, 2, draw),
        "two classes": lambda: two_classes(labels, 10, draw),
        "dirichlet 0.5": lambda: dirichlet(labels, 5, 0.5, draw),
        "dirichlet 0.1": lambda: dirichlet(labels, 5, 0.1, draw),
    }
    return [dataset.rows(rows) for rows in ways[how]()]


@dataclass(frozen=True)
class Plan:
    """What all rows of a setting share."""

    dealt: str
    model: Mapping[str, Any]
    rounds: int
    quick_rounds: int
    epochs: int
    chosen: int = 0
    tests: int = 360
    batch: int = 32
    rate: float = 0.05


CNN = {"network": "small_cnn", "hidden": [16, 32, 64], "norm": "batch"}
PLANS = {
    "one_shard": Plan("one shard", CNN, 30, 10, 2, chosen=3),
    "two_class": Plan(
        "two classes",
        {"network": "mlp", "hidden": [128, 64], "norm": "batch", "input_shape": [1, 28, 28]},
        20,
        10,
        5,
        tests=2000,
        batch=64,
    ),
    "even": Plan("two shards", CNN, 20, 6, 5),
    "one_shot": Plan("dirichlet 0.5", CNN, 1, 1, 20),
    "one_shot_skewed": Plan("dirichlet 0.1", CNN, 1, 1, 20),
}
ROWS: dict[str, tuple[Terms, Find]] = {
    "clients": ({"where": "clients"}, invert),
    "aggregator": ({"where": "aggregator"}, invert),
    "both": ({"where": "both"}, invert),
    "noise_rows": ({"where": "both"}, noise),
}
ONE_SHOT: Terms = {"warm_up": 1, "server_epochs": 20, "server_rate": 1.0}


def setting(_dataset: Dataset, seed: int, quick: bool, *, name: str) -> Mapping[str, Row]:  # noqa: FBT001
    plan, dataset = PLANS[name], _dataset
    test, rest = parted(dataset, [plan.tests], seed)
    clients = dealt(rest, plan.dealt, seed)
    rows = {"fedavg": job(plan, dataset, test, clients, seed, quick=quick)}
    for row, (terms, find) in ROWS.items():
        given = terms | (ONE_SHOT if plan.rounds == 1 else {})
        rows[row] = job(plan, dataset, test, clients, seed, quick=quick, terms=given, find=find)
    if plan.rounds == 1:
        soft = ONE_SHOT | {"where": "aggregator", "labels": "soft"}
        rows["soft"] = job(plan, dataset, test, clients, seed, quick=quick, terms=soft)
    return with_rounds_to(rows)


def job(
    plan: Plan,
    dataset: Dataset,
    test: Dataset,
    clients: list[Dataset],
    seed: int,
    *,
    quick: bool,
    terms: Terms | None = None,
    find: Find = invert,
) -> Row:
    spec = specification(
        dataset,
        len(clients),
        model=plan.model,
        train={"batch_rows": plan.batch, "optimiser": {"name": "sgd", "rate": plan.rate}},
        rounds={
            "rounds": plan.quick_rounds if quick else plan.rounds,
            "local_epochs": plan.epochs,
            "clients_per_round": plan.chosen,
            "parts": ["model_inversion"] if terms else [],
            **({"model_inversion": {"leak_meter": False, **terms}} if terms else {}),
        },
    )
    PARTS["model_inversion"] = partial(model_inversion.part, remembering(find))
    return with_clients(spec, run(setups(spec, {"test": test.table()}, clients, seed)), clients, test)


RUNS_ON = {
    "one_shard": "digits",
    "even": "digits",
    "one_shot": "digits",
    "one_shot_skewed": "digits",
    "two_class": "mnist",
}
SETTINGS: dict[str, Callable[[Dataset, int, bool], Mapping[str, Row]]] = {
    name: partial(setting, name=name) for name in PLANS
}
