"""Facts a role tells its own party while it runs. They are shown to that party's operator and never sent to a peer."""

from typing import TypeAlias

import msgspec

from vfl.notices import Notice


class StepDone(msgspec.Struct, frozen=True, tag=True):
    """One batch has passed through; `step` counts from 1 to `steps`."""

    step: int
    steps: int
    epoch: int
    dropped: int = 0
    """Updates of the top model left out so far, because they left the agreed range; at the label party only."""


class EpochDone(msgspec.Struct, frozen=True, tag=True):
    """One pass over the data; `state` is this party's model half as safetensors bytes, the last good checkpoint."""

    epoch: int
    epochs: int
    state: bytes
    measures: dict[str, float] = {}
    """What this party alone knows of the epoch: length of the mean gradient, or size of the errors that came back."""


class RoundDone(msgspec.Struct, frozen=True, tag=True):
    """One round is over; `state` is all this party needs to go on from here, the last good checkpoint."""

    round: int
    rounds: int
    state: bytes
    measures: dict[str, float] = {}
    """Of this round: accuracy, AUC, loss, rows, replies, bytes sent and received."""


class CheckpointReached(msgspec.Struct, frozen=True, tag=True):
    """Between two steps; `state` is all that this party needs to go on after this step, and no key or mask."""

    step: int
    epoch: int
    """How many epochs are over."""
    state: bytes


class Refused(msgspec.Struct, frozen=True, tag=True):
    """A peer sent something that was left out; the job goes on with the rest."""

    peer: str
    text: str


class Warned(msgspec.Struct, frozen=True, tag=True):
    """Something the operator should know before the job ends; it is stored with the job."""

    notice: Notice


class Remark(msgspec.Struct, frozen=True, tag=True):
    """A line for the operator outside the steps, such as evaluation."""

    text: str


class Answered(msgspec.Struct, frozen=True, tag=True):
    """A request of the own operator is answered (`vfl/requests.py`)."""

    number: int
    """Of the request."""
    scores: list[list[float | None]]
    """Of each row that was asked for, a number for each output; null where the score left the agreed range."""
    opened: int
    """For so many of these rows a peer was asked now; of the others its part was here already."""
    opened_before: int


Fact: TypeAlias = StepDone | EpochDone | RoundDone | CheckpointReached | Refused | Warned | Remark | Answered


def without_state(fact: Fact) -> Fact:
    """The same without the model in it, for whoever keeps many."""
    has_state = isinstance(fact, EpochDone | RoundDone | CheckpointReached)
    return msgspec.structs.replace(fact, state=b"") if has_state else fact


class Outcome(msgspec.Struct, frozen=True):
    """What a role returns: its own half of the model and what it alone may know of how good it is."""

    state: bytes
    """Weights of this party's half, safetensors."""
    metrics: dict[str, float] = {}
    """Held-out metrics; at the label party only."""
    operations: dict[str, int] = {}
    """Homomorphic operations this party carried out, by name."""
    series: dict[str, list[float]] = {}
    """Measures by round, such as accuracy and bytes; of a training points of curves over held-out rows."""
    notices: list[Notice] = []
    """For this party's operator: waivers, warnings, what was kept and why."""
    result_digest: str = ""
    """Of a result that all parties share, hexadecimal: by it a later job names it. Empty where there is none."""
