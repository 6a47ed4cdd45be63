"""What the benchmarks of rounds share: their data, who holds which rows, one run of the real roles, and its row."""

import gzip
import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from vfl.flow import run_together
from vfl.kinds import spec_of
from vfl.messages import RoundReply
from vfl.protocols.rounds import ROLES
from vfl.reports import Outcome, RoundDone
from vfl.schedule import batch_sizes, permutation
from vfl.setup import Setup, Table
from vfl.spec.rounds import RoundsSpec

MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"
AGGREGATOR = "hub"


@dataclass(frozen=True)
class Dataset:
    """Labelled images, one row each."""

    name: str
    columns: NDArray[np.float64]
    """rows x pixels."""
    labels: NDArray[np.float64]
    shape: tuple[int, int, int]
    """Channels, height, width."""
    largest: float
    """Values lie between 0 and it."""

    def rows(self, chosen: NDArray[Any]) -> "Dataset":
        return replace(self, columns=self.columns[chosen], labels=self.labels[chosen])

    def table(self, *, labelled: bool = True) -> Table:
        return Table(bytes(32), self.columns, self.labels if labelled else None)


def load(name: str) -> Dataset | None:
    """`digits`, which scikit-learn brings, or `mnist`: 10,000 images; None where its two files are not there."""
    if name == "digits":
        digits = load_digits()
        return Dataset(name, digits.data.astype(float), digits.target.astype(float), (1, 8, 8), 16.0)
    files = [MNIST / f"t10k-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")]
    if name != "mnist" or not all(file.exists() for file in files):
        return None
    images, labels = (gzip.decompress(file.read_bytes()) for file in files)
    columns = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 784).astype(float)
    return Dataset(name, columns, np.frombuffer(labels, np.uint8, offset=8).astype(float), (1, 28, 28), 255.0)


def drawn(seed: int, purpose: str) -> bytes:
    """A seed for one purpose; all rows of a table share it, so they differ in what they compare alone."""
    return hashlib.sha256(f"{purpose} {seed}".encode()).digest()


def parted(dataset: Dataset, sizes: Sequence[int], seed: int) -> list[Dataset]:
    """Disjoint parts of so many rows each, at random, and one of what is left."""
    order = permutation(drawn(seed, "parts"), "parts", len(dataset.labels))
    return [dataset.rows(rows) for rows in np.split(order, np.cumsum(sizes))]


def specification(
    dataset: Dataset,
    clients: int,
    *,
    uses: Sequence[str] = ("test",),
    model: Mapping[str, Any],
    train: Mapping[str, Any],
    rounds: Mapping[str, Any],
) -> RoundsSpec:
    """A job on this data set with `clients` clients; `uses` are the tables the aggregator brings."""
    names = [f"client-{number:03}" for number in range(1, clients + 1)]
    shape = {"mlp": [dataset.columns.shape[1]], "small_cnn": list(dataset.shape)}[model["network"]]
    spec = spec_of(
        {
            "job": {"name": dataset.name, "protocol": "rounds", "task": "multiclass", "classes": 10},
            "roster": {"aggregator": AGGREGATOR, "clients": names},
            "data": {AGGREGATOR: {use: use for use in uses}, **{name: {"dataset": "rows"} for name in names}},
            "model": {"input_shape": shape, "input_range": [0.0, dataset.largest], "label": "label", **model},
            "train": train,
            "rounds": {"min_clients": 1, **rounds},
        }
    )
    if not isinstance(spec, RoundsSpec):
        raise TypeError("the benchmarks of rounds run rounds")
    return spec


def setups(
    spec: RoundsSpec, own: Mapping[str, Table], dealt: Sequence[Dataset], seed: int, first_model: bytes = b""
) -> dict[str, Setup[RoundsSpec]]:
    """`own` are the aggregator's tables by use, `dealt` one part for each client."""
    tables = {AGGREGATOR: own} | {
        client: {"rows": rows.table()} for client, rows in zip(spec.roster.clients, dealt, strict=True)
    }
    return {
        party: Setup(
            spec,
            party,
            tables[party],
            drawn(seed, "joint"),
            drawn(seed, party),
            model=first_model if party == AGGREGATOR else b"",
        )
        for party in spec.parties
    }


class Row(TypedDict):
    """One line of a table, of one seed."""

    accuracy_by_round: list[float]
    """Global test accuracy."""
    bytes_up: int
    """Payload from clients to the aggregator, whole job."""
    bytes_down: int
    client_steps: int
    """Gradient steps of all clients together."""
    kept: NotRequired[dict[str, float]]
    """By carry-back: share of the gain of decoder averaging on the first model that it keeps."""
    client_std: NotRequired[float]
    """Of the final model's accuracy over clients, each on the test rows of its own classes."""
    client_worst: NotRequired[float]
    rounds_to_fedavg_final: NotRequired[int]
    """The first round as good as averaging in its last five; 0 if none is."""
    label_entropy: NotRequired[float]
    """Of the classes a client trained on, own rows and found ones, as a share of the largest there is."""
    first_model: NotRequired[float]
    """Accuracy of the first model after the job, where a second one may have been trained."""
    stored_by_round: NotRequired[list[float]]
    """Global test accuracy of the compressed copy that clients store."""
    parameter_bytes: NotRequired[int]
    """What a client keeps of the model between rounds."""
    seconds_to_target: NotRequired[dict[str, float]]
    """By Mbit/s of a client's link."""


@dataclass(frozen=True)
class Run:
    """What one job left behind."""

    row: Row
    outcome: Outcome
    """The aggregator's."""
    replies: list[RoundReply]
    """Of all rounds, where they were kept."""


def run(by_party: Mapping[str, Setup[RoundsSpec]], *, keep_replies: bool = False) -> Run:
    """All roles of one job, in this process: the code that runs between processes."""
    roles = {party: ROLES[setup.spec.role_of(party)](setup) for party, setup in by_party.items()}
    together = run_together(roles, keep_messages=keep_replies)
    outcome = together.results[AGGREGATOR]
    up = sum(sent.payload_bytes for sent in together.transcript if sent.receiver == AGGREGATOR)
    steps = sum(
        len(batch_sizes(setup.rows + int(fact.measures.get("inverted_rows", 0)), setup.spec.train.batch_rows))
        * setup.spec.rounds.local_epochs
        for party, setup in by_party.items()
        for fact in together.reports[party]
        if party != AGGREGATOR and isinstance(fact, RoundDone)
    )
    row: Row = {
        "accuracy_by_round": outcome.series["accuracy"],
        "bytes_up": up,
        "bytes_down": sum(sent.payload_bytes for sent in together.transcript) - up,
        "client_steps": steps,
    }
    evened = [
        fact.measures["entropy_after"]
        for party in by_party
        for fact in together.reports[party]
        if party != AGGREGATOR and isinstance(fact, RoundDone) and fact.measures.get("inverted_rows")
    ]
    if evened:
        row["label_entropy"] = statistics.fmean(evened)
    return Run(row, outcome, [sent.message for sent in together.transcript if isinstance(sent.message, RoundReply)])
