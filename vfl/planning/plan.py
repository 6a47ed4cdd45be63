"""What all sides of a job expect of it before it runs."""

from dataclasses import dataclass

import msgspec


class RevealLine(msgspec.Struct, frozen=True):
    """One row of the table "what each side could see", with the number of values this job reveals."""

    message: str
    sender: str
    receiver: str
    learns: str
    grain: str
    values: int
    protection: str


@dataclass(frozen=True)
class Plan:
    """What both sides expect of a job on this many rows."""

    rows: int
    training_rows: int
    test_rows: int
    steps: int
    smallest_batch: int
    opened_per_step: int
    """Values the label party reads per step; 0 in clear training."""
    minimum_batch: int
    """What ckks_training.md asks of a batch for that many values; 0 in clear training."""
    rho: float
    """Opened sums per column over hidden rows: the share of a column's variance the label party could reconstruct if
    it knew all row errors (threat_model.md)."""
    values_per_key: int
    weight_noise: float
    """Standard deviation that reply noise alone gives a trained weight, at most, of a linear model trained by sgd; 0 in
    clear training and where there is no such forecast."""
    guards_deviating_label_party: bool
    """Whether the cap per key keeps it secret even from a label party that breaks the protocol (heuristic)."""
    payload_bytes: dict[str, int]
    """What will travel, by message kind, over the whole job."""
    reveals: tuple[RevealLine, ...]


class Forecast(msgspec.Struct, frozen=True):
    """Sizes of a job of rounds in payload bytes: of one client, and of all together should every round run."""

    parameters: int
    down: int
    """To a client, each round it is chosen."""
    up: int
    once_down: int
    once_up: int
    published: int
    stored: int
    without_parts: dict[str, int]
    """`down` and `up` if the same job were federated averaging."""
    total_down: int
    total_up: int
