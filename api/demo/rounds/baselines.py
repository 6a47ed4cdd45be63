"""What the federated model is compared with: the same network without the federation, on the same rows."""

from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

import numpy as np

from api.demo.errors import DemoError
from api.demo.rounds.tables import AGGREGATOR, CLIENTS, ID, ROWS
from parties.datasets import load
from parties.negotiation import joint_seed
from parties.settings import DatasetSettings
from vfl.horizontal.aggregation import network_of
from vfl.horizontal.carrier import write
from vfl.horizontal.rows import derived, examples_of
from vfl.models.local_training import evaluate, train
from vfl.models.networks import parameters_of
from vfl.rounds_spec import RoundsSpec
from vfl.setup import Table


def compare(spec: RoundsSpec, folder: Path) -> dict[str, float]:
    """Accuracy on the aggregator's test rows of a model from each client's rows alone (mean), and from all of theirs.

    Each takes as many epochs as the rounds and starts from the same fresh weights.
    """
    rows = {client: _table(spec, folder, client, ROWS) for client in CLIENTS}
    test = _table(spec, folder, AGGREGATOR, "test")
    return {
        "client_alone": fmean(_accuracy(spec, [rows[client]], test, client) for client in CLIENTS),
        "centralised": _accuracy(spec, rows.values(), test, "all clients"),
    }


def whole_model_bytes(spec: RoundsSpec) -> int:
    """Payload of averaging the whole network at full precision over the same rounds: out, back, and published."""
    network = len(write(parameters_of(network_of(spec, bytes(32)))))
    return network * (2 * spec.cohort * spec.rounds.rounds + len(spec.roster.clients))


def _accuracy(spec: RoundsSpec, tables: Iterable[Table], test: Table, who: str) -> float:
    seed = joint_seed(spec, {})
    given = [(table.columns, _labels(table)) for table in tables]
    rows = Table(
        b"", np.concatenate([columns for columns, _ in given]), np.concatenate([labels for _, labels in given])
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
    found = evaluate(module, held_out.inputs, held_out.labels, regression=False)
    return found.correct / found.rows


def _table(spec: RoundsSpec, folder: Path, party: str, use: str) -> Table:
    """A party's file as that party reads it."""
    datasets = {dataset: DatasetSettings(path=f"{dataset}.csv", id=ID) for dataset in _datasets(spec, party)}
    found = load(folder / party, datasets, spec, party)[use]
    return Table(b"", found.columns, found.labels)


def _datasets(spec: RoundsSpec, party: str) -> list[str]:
    return [brought.dataset for brought in spec.brings(party).values()]


def _labels(table: Table) -> "np.ndarray":
    if table.labels is None:
        raise DemoError("rows without labels cannot be compared")
    return table.labels
