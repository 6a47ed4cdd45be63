"""Rows of model-inversion (model_inversion.md): averaging, inversion at clients, at the aggregator, both, and controls.

    one_shard  digits, small network of convolutions, ten clients of one label shard each, three chosen per round
    two_class  MNIST-10k, 784-128-64-10, each class at exactly two of ten clients, all chosen
    even       digits, two shards, all chosen; `mild` with Dirichlet 1, where averaging works and has little to gain
    one_shot   digits, five clients, Dirichlet 0.5, one reply each; `one_shot_skewed` with Dirichlet 0.1
    student    digits: a network trained on found rows alone, and the one in which they were found
    ablation   ten rounds of `one_shard`, inversion at clients with one term changed in each row

Controls: `noise_rows` is `both` with noise for rows; `fedprox` averages under a proximal term; `equal_steps` averages
with as many steps as `both` takes, by more local epochs; `real_rows` trains the mean on held-out rows of its own, which
is an upper bound. `one_shot` adds the mean client alone and the ensemble of all. The rate of `one_shard` is the one of
0.005 to 0.1 that is best for averaging alone, on validation rows of other draws; the others have the defaults.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from fairness import with_clients, with_rounds_to
from federation import Dataset, Row, Run, drawn, parted, run, setups, specification
from torch import nn

from parties.simulation.partition import dirichlet, shards
from vfl.horizontal.model_inversion import part as model_inversion
from vfl.horizontal.model_inversion.inversion import Inverted, Search, Space, invert
from vfl.horizontal.model_inversion.search import Find, labels_of
from vfl.horizontal.network import network_of
from vfl.horizontal.parts import PARTS
from vfl.horizontal.rows import examples_of
from vfl.horizontal.update_encoding import like, read
from vfl.models.local_training import features, train
from vfl.models.networks import load_parameters, parameters_of
from vfl.schedule import permutation
from vfl.spec.rounds import RoundsSpec
from vfl.spec.sections import Optimiser

Terms = dict[str, Any]


def remembering(find: Find) -> Find:
    """The same, which looks into a model once: all simulated clients received the same one (rounds.md)."""
    inverted: dict[bytes, Inverted] = {}

    def remembered(
        module: nn.Module, labels: torch.Tensor, space: Space, search: Search, seed: bytes, student: nn.Module | None
    ) -> Inverted:
        if search.steps != Search().steps:  # at the aggregator: each client's model is another
            return find(module, labels, space, search, seed, student)
        state = b"".join(values.numpy().tobytes() for values in module.state_dict().values())
        key = hashlib.sha256(state).digest()
        if key not in inverted:
            inverted.clear()
            inverted[key] = find(module, labels, space, search, key, student)
        return inverted[key]

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
        "dirichlet 1": lambda: dirichlet(labels, 10, 1.0, draw),
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
    """0 leaves the setting out of --quick."""
    epochs: int
    chosen: int = 0
    tests: int = 360
    real: int = 100
    """Rows for `real_rows`, which no client has."""
    batch: int = 32
    rate: float = 0.05


CNN = {"network": "small_cnn", "hidden": [16, 32, 64], "norm": "batch"}
PLANS = {
    "one_shard": Plan("one shard", CNN, 30, 5, 2, chosen=3, batch=16, rate=0.1),
    "two_class": Plan(
        "two classes",
        {"network": "mlp", "hidden": [128, 64], "norm": "batch", "input_shape": [1, 28, 28]},
        20,
        5,
        5,
        tests=2000,
        real=500,
        batch=64,
    ),
    "even": Plan("two shards", CNN, 20, 0, 5),
    "mild": Plan("dirichlet 1", CNN, 20, 0, 5),
    "one_shot": Plan("dirichlet 0.5", CNN, 1, 1, 20),
    "one_shot_skewed": Plan("dirichlet 0.1", CNN, 1, 0, 20),
}
ROWS: dict[str, tuple[Terms, Find]] = {
    "clients": ({"where": "clients"}, invert),
    "aggregator": ({"where": "aggregator"}, invert),
    "both": ({"where": "both"}, invert),
    "noise_rows": ({"where": "both"}, noise),
}
ONE_SHOT: Terms = {"warm_up": 1, "server_epochs": 60, "server_rate": 1.0, "server_rows": 256, "statistics": 3.0}
"""Settled on rows that no seed of the table tests on."""
ABLATIONS: dict[str, Terms] = {
    "clients": {},
    "weight_0.3": {"weight": 0.3},
    "weight_1": {"weight": 1.0},
    "refresh_1": {"refresh": 1},
    "refresh_10": {"refresh": 10},
    "no_filter": {"confidence": 0.0},
    "no_statistics": {"statistics": 0.0},
    "all_classes": {"classes": "all"},
    "generator": {"kind": "generator"},
}


@dataclass(frozen=True)
class Task:
    """A setting with one seed's draws."""

    plan: Plan
    dataset: Dataset
    test: Dataset
    real: Dataset
    clients: list[Dataset]
    seed: int
    rounds: int

    def spec(self, uses: tuple[str, ...] = ("test",), **rounds: Any) -> RoundsSpec:
        plan = self.plan
        own: Terms = {"local_epochs": plan.epochs} | rounds
        train = {"batch_rows": plan.batch, "optimiser": {"name": "sgd", "rate": plan.rate}}
        return specification(
            self.dataset,
            len(self.clients),
            uses=uses,
            model=plan.model,
            train=train | {"proximal": own.pop("proximal", 0.0)},
            rounds={"rounds": self.rounds, "clients_per_round": plan.chosen, **own},
        )

    def run(self, spec: RoundsSpec, *, keep_replies: bool = False) -> Run:
        own = {"test": self.test.table(), "shared": self.real.table()}
        tables = own if spec.shared_data else {"test": own["test"]}
        return run(setups(spec, tables, self.clients, self.seed), keep_replies=keep_replies)

    def row(self, spec: RoundsSpec) -> Row:
        return with_clients(spec, self.run(spec), self.clients, self.test)

    def inverting(self, terms: Terms, find: Find = invert) -> Row:
        PARTS["model_inversion"] = partial(model_inversion.part, remembering(find))
        return self.row(self.spec(parts=["model_inversion"], model_inversion={"leak_meter": False, **terms}))


def task(name: str, dataset: Dataset, seed: int, *, quick: bool) -> Task:
    plan = PLANS[name]
    test, real, rest = parted(dataset, [plan.tests, plan.real], seed)
    rounds = plan.quick_rounds if quick else plan.rounds
    return Task(plan, dataset, test, real, dealt(rest, plan.dealt, seed), seed, rounds)


def setting(dataset: Dataset, seed: int, quick: bool, *, name: str) -> Mapping[str, Row]:  # noqa: FBT001
    if quick and not PLANS[name].quick_rounds:
        return {}
    this = task(name, dataset, seed, quick=quick)
    one_shot = ONE_SHOT if this.plan.rounds == 1 else {}
    rows = {"fedavg": this.row(this.spec())}
    for row, (terms, find) in ROWS.items():
        rows[row] = this.inverting(terms | one_shot, find)
    if one_shot:
        rows["soft"] = this.inverting(one_shot | {"where": "aggregator", "labels": "soft"})
        rows |= ensemble(this)
    elif not quick:
        rows |= controls(this, rows["both"]["client_steps"] / rows["fedavg"]["client_steps"])
    return with_rounds_to(rows)


def controls(this: Task, steps: float) -> dict[str, Row]:
    """`steps`: of `both`, for each of averaging's."""
    real = {"rule": "fixed", "step": 1.0, "epochs": 1, "batch_rows": this.plan.batch}
    return {
        "fedprox_0.01": this.row(this.spec(proximal=0.01)),
        "fedprox_0.1": this.row(this.spec(proximal=0.1)),
        "equal_steps": this.row(this.spec(local_epochs=round(this.plan.epochs * steps))),
        "real_rows": this.row(this.spec(("test", "shared"), parts=["shared_data"], shared_data=real)),
    }


def ensemble(this: Task) -> dict[str, Row]:
    """The clients' models after their one round: their mean accuracy, and that of their mean answer."""
    spec = this.spec()
    done, module = this.run(spec, keep_replies=True), network_of(spec, bytes(32))
    expected, answers = like(parameters_of(module)), []
    rows = examples_of(spec, this.test.table(), "test")
    for reply in done.replies:
        load_parameters(module, read(reply.parameters, expected))
        answers.append(features(module, rows.inputs).softmax(1))
    each = torch.stack(answers)
    weights = torch.tensor([float(reply.rows) for reply in done.replies])
    mean = torch.einsum("k,krc->rc", weights / weights.sum(), each)

    def row(of: torch.Tensor) -> Row:
        return {**done.row, "accuracy_by_round": [right(of, this.test)]}

    return {"single_client": row(each), "ensemble": row(mean)}


def right(scores: torch.Tensor, test: Dataset) -> float:
    """Accuracy of scores (..., rows, classes)."""
    return (scores.argmax(-1) == torch.from_numpy(test.labels)).double().mean().item()


def student(dataset: Dataset, seed: int, _quick: bool) -> Mapping[str, Row]:  # noqa: FBT001
    """A network trained on found rows alone, beside the one they were found in, and one trained on noise."""
    test, rest = parted(dataset, [PLANS["one_shard"].tests], seed)
    spec = specification(dataset, 1, model=CNN, train={"batch_rows": 16}, rounds={"rounds": 1})
    tests, own = (examples_of(spec, rows.table(), "test") for rows in (test, rest))

    def trained(who: str, inputs: torch.Tensor, labels: torch.Tensor) -> nn.Sequential:
        module = network_of(spec, drawn(seed, who))
        train(
            module,
            inputs,
            labels,
            epochs=20,
            batch_rows=16,
            optimiser=Optimiser(rate=0.1),
            seed=drawn(seed, "batches"),
            regression=False,
        )
        return module

    def row(module: nn.Sequential) -> Row:
        accuracy = right(features(module, tests.inputs), test)
        return {"accuracy_by_round": [accuracy], "bytes_up": 0, "bytes_down": 0, "client_steps": 0}

    teacher = trained("teacher", own.inputs, labels_of(own))
    labels, space = torch.arange(10).repeat_interleave(64), Space(dataset.shape)
    rows = invert(teacher, labels, space, Search(), drawn(seed, "found")).filtered()
    of_noise = noise(teacher, labels, space, Search(), drawn(seed, "found"), None)
    return {
        "teacher": row(teacher),
        "student": row(trained("student", rows.inputs, rows.labels)),
        "student_of_noise": row(trained("student", of_noise.inputs, of_noise.labels)),
    }


def ablation(dataset: Dataset, seed: int, quick: bool) -> Mapping[str, Row]:  # noqa: FBT001
    if quick:
        return {}
    this = replace(task("one_shard", dataset, seed, quick=quick), rounds=10)
    rows = {"fedavg": this.row(this.spec())}
    return with_rounds_to(
        rows | {name: this.inverting({"where": "clients"} | terms) for name, terms in ABLATIONS.items()}
    )


RUNS_ON = {
    "one_shard": "digits",
    "even": "digits",
    "mild": "digits",
    "one_shot": "digits",
    "one_shot_skewed": "digits",
    "two_class": "mnist",
    "student": "digits",
    "ablation": "digits",
}
SETTINGS: dict[str, Callable[[Dataset, int, bool], Mapping[str, Row]]] = {
    name: partial(setting, name=name) for name in PLANS
} | {"student": student, "ablation": ablation}
