"""Rows of shared-data (shared_data.md): every rule beside averaging and beside the shared rows alone.

`balanced` shares a tenth of the clients' rows, drawn like them; `skewed` as many in a Dirichlet(0.5) mix of classes;
`scarce_skewed` a hundredth, skewed. `permuted` and `scarce_permuted` share a tenth and a hundredth, drawn like the
clients', under labels that were shuffled among them: rows that teach nothing. `ablation` is feddu on skewed rows, one
term changed in each row. Clients hold two label shards each.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from fairness import with_clients, with_rounds_to
from federation import Dataset, Row, drawn, parted, run, setups, specification
from numpy.typing import NDArray

from parties.simulation.partition import shards
from vfl.schedule import permutation, philox

RULES = ("feddu", "hybrid", "fixed")
Drawn = Literal["balanced", "skewed", "permuted"]
ABLATIONS: dict[str, dict[str, object]] = {
    "feddu": {},
    "scale_3": {"scale": 3.0},
    "no_decay": {"decay": 1.0},
    "hold_out_5": {"hold_out": 0.05},
    "clients_divergence": {"divergence": "clients"},
    "estimated_counts": {"counts": "estimate"},
    "momentum": {"momentum": 0.9},
}
SIZES = {
    # clients, chosen per round, local epochs, batch, rounds, test rows, shared rows of a tenth and of a hundredth
    "digits": (20, 4, 2, 10, 60, 360, 130, 14),
    "mnist": (100, 10, 5, 10, 100, 2000, 727, 79),
}
HIDDEN = {"digits": [64], "mnist": [200]}
QUICK_ROUNDS = 30
DECAY = 0.99
SKEW = 0.5
"""Of the Dirichlet draw that mixes skewed shared rows."""


def setting(
    dataset: Dataset,
    seed: int,
    quick: bool,  # noqa: FBT001
    *,
    drawn_as: Drawn,
    scarce: bool = False,
    ablation: bool = False,
) -> Mapping[str, Row]:
    if ablation and quick:
        return {}
    clients, per_round, epochs, batch, rounds, tests, tenth, hundredth = SIZES[dataset.name]
    rounds = min(rounds, QUICK_ROUNDS) if quick else rounds
    test, rest = parted(dataset, [tests], seed)
    chosen = shared_rows(rest, hundredth if scarce else tenth, seed, skewed=drawn_as == "skewed")
    shared = rest.rows(chosen)
    if drawn_as == "permuted":
        order = permutation(drawn(seed, "permuted"), "permuted", len(shared.labels))
        shared = replace(shared, labels=shared.labels[order])
    left = rest.rows(np.setdiff1d(np.arange(len(rest.labels)), chosen))
    dealt = [left.rows(rows) for rows in shards(left.labels.astype(int), clients, 2, drawn(seed, "shards"))]

    usual: dict[str, object] = {"epochs": epochs, "batch_rows": batch}

    def one(parts: list[str], terms: dict[str, object] | None = None) -> Row:
        spec = specification(
            dataset,
            clients,
            uses=("test", "shared"),
            model={"network": "mlp", "hidden": HIDDEN[dataset.name]},
            train={"batch_rows": batch, "optimiser": {"name": "sgd", "rate": 0.1}},
            rounds={
                "rounds": rounds,
                "local_epochs": epochs,
                "clients_per_round": per_round,
                "rate_decay": DECAY,
                "parts": parts,
                "allow": ["undo"] if terms and terms.get("undo") is False else [],
                **({"shared_data": usual | terms} if terms is not None else {}),
            },
        )
        by_party = setups(spec, {"test": test.table(), "shared": shared.table()}, dealt, seed)
        return with_clients(spec, run(by_party), dealt, test)

    rows = {"fedavg": one([])}
    if ablation:
        return with_rounds_to(rows | {name: one(["shared_data"], terms) for name, terms in ABLATIONS.items()})
    for rule in RULES:
        rows[rule] = one(["shared_data"], {"rule": rule})
    if drawn_as == "permuted":
        rows["feddu_no_undo"] = one(["shared_data"], {"undo": False})
    else:
        rows["share"] = one(["shared_data"], {"rule": "share"})
        grown = 1 + len(shared.labels) * clients / len(left.labels)  # own and shared rows, to own rows
        rows["share"]["client_steps"] = round(rows["share"]["client_steps"] * grown)
    rows["shared_rows_alone"] = alone(dataset, shared, test, dealt, rounds, seed)
    return with_rounds_to(rows)


def alone(dataset: Dataset, shared: Dataset, test: Dataset, dealt: list[Dataset], rounds: int, seed: int) -> Row:
    """One client that holds the shared rows: what they teach without anybody else."""
    epochs, batch = SIZES[dataset.name][2:4]
    spec = specification(
        dataset,
        1,
        model={"network": "mlp", "hidden": HIDDEN[dataset.name]},
        train={"batch_rows": batch, "optimiser": {"name": "sgd", "rate": 0.1}},
        rounds={"rounds": rounds, "local_epochs": epochs, "rate_decay": DECAY},
    )
    return with_clients(spec, run(setups(spec, {"test": test.table()}, [shared], seed)), dealt, test)


def shared_rows(dataset: Dataset, count: int, seed: int, *, skewed: bool) -> NDArray[np.int64]:
    """Indices of the rows that are shared: at random, or so many of each class as a Dirichlet draw says."""
    order = permutation(drawn(seed, "shared"), "shared", len(dataset.labels))
    if not skewed:
        return order[:count]
    generator = np.random.Generator(philox(drawn(seed, "skew"), "classes"))
    wanted = generator.multinomial(count, generator.dirichlet([SKEW] * 10))
    return np.concatenate([order[dataset.labels[order] == label][:number] for label, number in enumerate(wanted)])


SETTINGS: dict[str, Callable[[Dataset, int, bool], Mapping[str, Row]]] = {
    "balanced": partial(setting, drawn_as="balanced"),
    "skewed": partial(setting, drawn_as="skewed"),
    "scarce_skewed": partial(setting, drawn_as="skewed", scarce=True),
    "permuted": partial(setting, drawn_as="permuted"),
    "scarce_permuted": partial(setting, drawn_as="permuted", scarce=True),
    "ablation": partial(setting, drawn_as="skewed", ablation=True),
}
