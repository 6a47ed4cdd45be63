"""What all sides of a job expect of it before it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from vfl.routes import Route
from vfl.spec.sections import PartyId


class RevealLine(msgspec.Struct, frozen=True):
    """One row of the table "what each side could see", with the number of values this job reveals."""

    message: str
    sender: str
    receiver: str
    learns: str
    grain: str
    values: int
    messages: int
    """In how many messages these values travel, if every step is taken once."""
    protection: str

    @classmethod
    def of(cls, route: Route, players: Mapping[Any, PartyId], values: int, messages: int | None = None) -> "RevealLine":
        """What one route of a job reveals between the two parties that play its roles; each message one value where
        their number is not given."""
        reveals = route.message.reveals
        return cls(
            message=route.message.kind(),
            sender=players[route.sender],
            receiver=players[route.receiver],
            learns=reveals.learns,
            grain=reveals.grain.value,
            values=values,
            messages=values if messages is None else messages,
            protection=reveals.protection,
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all sides expect of a job on this many rows: what a party's policy judges, of a job of any kind.

    A kind whose operators should see more has a class of its own; as JSON its fields stand beside these.
    """

    rows: int
    training_rows: int
    test_rows: int
    steps: int
    smallest_batch: int = 0
    """0 where nothing is learned in batches."""
    opened_per_step: int = 0
    """Values one party reads per step, each a sum over the rows of a batch; 0 where no such sums are opened."""
    minimum_batch: int = 0
    """How many rows a batch must have for that many values (ckks_training.md)."""
    rho: float = 0.0
    """Opened sums per column over hidden rows: the share of a column's variance the label party could reconstruct if
    it knew all row errors (threat_model.md)."""
    tells_of_each_row: bool = False
    """What is read tells of each row by itself, so that many rows hide none: no rule about few rows applies."""
    opens_on_request: bool = False
    """Who asks decides how many values a message holds, so that the whole is counted with the first one."""
    payload_bytes: dict[str, int] = field(default_factory=dict)
    """What will travel, by message kind, over the whole job; empty where it does not follow from the specification."""
    reveals: tuple[RevealLine, ...]


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(Plan):
    validation_rows: int
    """On which the loss is measured between epochs; 0 where it is not."""
    values_per_key: int
    """0 in clear training."""
    weight_noise: float
    """Standard deviation that reply noise alone gives a trained weight, at most, of a linear model trained by sgd; 0 in
    clear training and where there is no such forecast."""
    guards_deviating_label_party: bool
    """Whether the cap per key keeps it secret even from a label party that breaks the protocol (heuristic)."""


class ClientBytes(msgspec.Struct, frozen=True):
    """Payload bytes of one client in a job of rounds, on average."""

    down: int
    """To the client, each round it is chosen."""
    up: int
    once_down: int
    """To the client, once: a backbone, rows, keys of a first sum."""
    once_up: int
    published: int
    """To the client, at the end."""
    stored: int
    """What the client holds between rounds."""


class Forecast(ClientBytes, frozen=True):
    """The same, and the bytes of all clients together should every round run."""

    parameters: int
    without_parts: dict[str, int]
    """`down` and `up` if the same job were federated averaging."""
    total_down: int
    total_up: int
