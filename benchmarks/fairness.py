"""How a model serves single clients, and how fast it comes where averaging ends (model_inversion.md)."""

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from federation import Dataset, Row, Run
from safetensors.torch import load

from vfl.horizontal.network import network_of
from vfl.horizontal.rows import examples_of
from vfl.models.local_training import one_thread
from vfl.models.networks import load_parameters
from vfl.spec.rounds import RoundsSpec

LAST = 5
"""Rounds whose mean is where averaging ends."""


def with_clients(spec: RoundsSpec, run: Run, dealt: Sequence[Dataset], test: Dataset) -> Row:
    """The run's row with the spread of its model's accuracy over clients, each on test rows of its own classes."""
    module = network_of(spec, bytes(32))
    load_parameters(module, load(run.outcome.state))
    rows = examples_of(spec, test.table(), "test")
    module.eval()
    with one_thread(), torch.no_grad():
        right = (module(rows.inputs).argmax(1) == rows.labels).numpy()
    own = [float(right[np.isin(test.labels, np.unique(one.labels))].mean()) for one in dealt]
    return {**run.row, "client_std": statistics.pstdev(own), "client_worst": min(own)}


def with_rounds_to(rows: Mapping[str, Row], reference: str = "fedavg") -> dict[str, Row]:
    """Each row with the first round at which it is as good as averaging is in its last ones; 0 if it never is."""
    final = statistics.fmean(rows[reference]["accuracy_by_round"][-LAST:])
    return {
        name: {**row, "rounds_to_fedavg_final": _first(row["accuracy_by_round"], final)} for name, row in rows.items()
    }


def _first(accuracies: Sequence[float], wanted: float) -> int:
    return next((number for number, accuracy in enumerate(accuracies, 1) if accuracy >= wanted), 0)
