"""What the federated model is compared with: the same network without the federation or the part, on the same rows."""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import msgspec
import numpy as np

from api.demo.errors import DemoError
from api.demo.folder import drawn_seed
from api.demo.rounds.tables import AGGREGATOR, CLIENTS, ID, ROWS
from parties.tables.datasets import load
from parties.tables.registered import Registered
from parties.wire.control import joint_seed
from vfl.flow import run_together
from vfl.horizontal.network import network_of
from vfl.horizontal.rows import derived, examples_of
from vfl.horizontal.update_encoding import write
from vfl.models.local_training import evaluate, train
from vfl.models.networks import parameters_of
from vfl.protocols.rounds import aggregator, client
from vfl.reports import Outcome
from vfl.setup import Setup, Table
from vfl.spec.rounds import RoundsSpec


def compare(spec: RoundsSpec, folder: Path) -> dict[str, float]:
    """Accuracy on the aggregator's test rows of a model from each client's rows alone (mean), and from all of theirs.

    Each takes as many epochs as the rounds and starts from the same fresh weights. With shared-data also of one from
    the shared rows, which takes all epochs that the aggregator may take on them.
    """
    rows = {client: _table(spec, folder, client, ROWS) for client in CLIENTS}
    test = _table(spec, folder, AGGREGATOR, "test")
    scores = {
        "client_alone": fmean(_accuracy(spec, [rows[client]], test, client) for client in CLIENTS),
        "centralised": _accuracy(spec, rows.values(), test, "all clients"),
    }
    shared = spec.shared_data
    if shared is not None:
        as_there = msgspec.structs.replace(
            spec,
            train=msgspec.structs.replace(spec.train, batch_rows=shared.batch_rows),
            rounds=msgspec.structs.replace(spec.rounds, local_epochs=shared.epochs),
        )
        own = _table(spec, folder, AGGREGATOR, "shared")
        scores["shared_rows_alone"] = _accuracy(as_there, [own], test, "shared rows")
    return scores


def averaged(spec: RoundsSpec, folder: Path, seed: int) -> list[float]:
    """Accuracy by round of plain averaging: the same job with the same draws on the same rows, without its parts."""
    rounds, inversion = spec.rounds, spec.model_inversion
    if inversion is None:
        plain = msgspec.structs.replace(rounds, parts=(), shared_data=None)
    else:  # it never acts, and holds out the same rows for its leak meter
        never = msgspec.structs.replace(inversion, warm_up=rounds.rounds + 1, leak_meter=False)
        plain = msgspec.structs.replace(rounds, model_inversion=never)
    return in_one_process(msgspec.structs.replace(spec, rounds=plain), folder, seed).series["accuracy"]


def in_one_process(spec: RoundsSpec, folder: Path, seed: int) -> Outcome:
    """The job as the servers run it, all roles in this process; answers what the aggregator is left with."""
    roles = {}
    for party in spec.parties:
        tables = {use: _table(spec, folder, party, use) for use in spec.tables_of(party)}
        setup = Setup(spec, party, tables, joint_seed(spec, {}), drawn_seed(seed, party))
        roles[party] = aggregator(setup) if party == AGGREGATOR else client(setup)
    return run_together(roles, keep_messages=False).results[AGGREGATOR]


def whole_model_bytes(spec: RoundsSpec) -> int:
    """Payload of averaging the whole network at full precision over the same rounds: out, back, and published."""
    network = len(write(parameters_of(network_of(spec, bytes(32)))))
    return network * (2 * spec.cohort * spec.rounds.rounds + len(spec.roster.clients))


def _accuracy(spec: RoundsSpec, tables: Iterable[Table], test: Table, who: str) -> float:
    seed = joint_seed(spec, {})
    examples = [(table.columns, _labels(table)) for table in tables]
    rows = Table(
        b"", np.concatenate([columns for columns, _ in examples]), np.concatenate([labels for _, labels in examples])
    )
    training, held_out = examples_of(spec, rows, "training"), examples_of(spec, test, "test")
    if training.labels is None or held_out.labels is None:
        raise DemoError("rows without labels cannot be compared")
    module = network_of(spec, derived(seed, "initial weights"))
    train(
        module,
        training.inputs,
        training.labels,
        epochs=spec.rounds.rounds * spec.rounds.local_epochs,
        batch_rows=spec.train.batch_rows,
        optimiser=spec.train.optimiser,
        seed=derived(seed, "alone", who),
        regression=False,
    )
    evaluation = evaluate(module, held_out.inputs, held_out.labels, regression=False)
    return evaluation.correct / evaluation.rows


def _table(spec: RoundsSpec, folder: Path, party: str, use: str) -> Table:
    """A party's file as that party reads it."""
    datasets = {dataset: Registered(source=f"{dataset}.csv", id=(ID,)) for dataset in _datasets(spec, party)}
    table = load(folder / party, datasets, spec, party)[use]
    return Table(b"", table.columns, table.labels)


def _datasets(spec: RoundsSpec, party: str) -> list[str]:
    return [brought.dataset for brought in spec.tables_of(party).values()]


def _labels(table: Table) -> "np.ndarray":
    if table.labels is None:
        raise DemoError("rows without labels cannot be compared")
    return table.labels
