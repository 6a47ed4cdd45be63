"""The places of a round that a part may fill. What a part leaves empty is done as federated averaging does it.

    derive     aggregator, once      first model -> what is trained, sent and averaged
    broadcast  aggregator, per round parameters -> the body all chosen clients get
    dispatch   aggregator, per client and task: what only some clients need
    receive    client, per task      can it train? then, what it trains
    prepare    client, per task      its rows -> as the module reads them
    augment    client, per task      its rows, and the model it received -> the rows it trains on
    update     client, per task      body -> trained -> body of the reply
    read       aggregator, per reply body -> parameters
    adjust     aggregator, per round mean -> next parameters
    finish     aggregator, once      -> the model that is kept, and what the report says

All functions are deterministic given the seeds of the job (R0.5). What a part must remember it gives out by `saved`
and takes back when it is made; what follows from that it computes again (R0.7).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vfl.codecs.parameters import Shape
from vfl.horizontal.mean import WeightedMean
from vfl.messages import Message, Published, RoundTask
from vfl.models.networks import Parameters
from vfl.notices import Notice
from vfl.setup import Setup
from vfl.spec.rounds import RoundsSpec
from vfl.spec.sections import PartyId


@dataclass(frozen=True)
class Examples:
    """Rows a model can be fed: inputs (rows, ...) float32, labels (rows,) int64 or float32, or nothing."""

    inputs: torch.Tensor
    labels: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    """(rows,) weight of each row in the loss; None is 1."""

    @property
    def rows(self) -> int:
        return len(self.inputs)


def unchanged(rows: torch.Tensor) -> torch.Tensor:
    return rows


@dataclass(frozen=True)
class SharedModule:
    """What is trained, sent and averaged each round: a whole model, or what stands behind a backbone that stays."""

    module: nn.Sequential
    embed: Callable[[torch.Tensor], torch.Tensor] = unchanged
    """Inputs of the job -> inputs of `module`."""


@dataclass(frozen=True)
class Work:
    """One client's task, as far as it does not depend on how parameters travel."""

    spec: RoundsSpec
    build: Callable[[], nn.Sequential]
    """A fresh module of the shape that travels; its parameters are overwritten. Nothing of it lives between tasks."""
    examples: Examples
    round: int
    epochs: int
    rate: float
    seed: bytes = field(repr=False)
    """Of this client, this round: batches, dropout, stochastic rounding."""
    reply_bits: int = 0
    augment: Callable[[nn.Sequential, Examples], tuple[nn.Sequential, Examples]] | None = None
    """Called once before training, with the module that holds what was received: the module to train, which shares its
    weights, and on which rows."""
    amend: Callable[[nn.Sequential, Parameters], None] | None = None
    """Called once after training with the module and what was received, before the reply is encoded."""


@dataclass(frozen=True)
class Updated:
    reply: bytes
    """Body of the reply's parameters."""
    loss: float
    measures: dict[str, float] = field(default_factory=dict)
    """Of this round, for the client's own report."""


@dataclass(frozen=True)
class Finished:
    """What a job of rounds leaves at the aggregator."""

    parameters: Parameters
    """The model that is kept."""
    metrics: dict[str, float] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class UpdateEncoding:
    """How parameters travel: one pair of functions for each direction. Bodies are self-contained."""

    broadcast: Callable[[int, Parameters], bytes]
    """(round, parameters) -> body for every chosen client. Called once per round; may keep what it dropped."""
    received: Callable[[bytes], Parameters]
    """What a client reads out of that body."""
    read: Callable[[bytes, Parameters, int], Parameters]
    """(a reply's body, what that client had received, its reply bits) -> its trained parameters.

    Raises vfl.codecs.InvalidBody.
    """
    reply_bits: Callable[[int], int] = lambda _round: 0
    """(round) -> bits per value asked of replies."""


@dataclass(frozen=True)
class SumQuery:
    """Whole numbers that clients are asked for; only their sum over the clients is ever read."""

    purpose: str
    words: int
    """How many numbers each client gives."""
    numbers: tuple[float, ...] = ()
    """What a client needs to know to answer; public."""


@dataclass(frozen=True)
class AggregatorHooks:
    derive: Callable[[nn.Sequential], SharedModule] | None = None
    encoding: Callable[[SharedModule], UpdateEncoding] | None = None
    observe: Callable[[nn.Sequential], nn.Sequential] | None = None
    """What travels -> the same module, that also keeps statistics of what its layers read."""
    keeps_replies: bool = False
    """It looks at each client's parameters when it enters: the mean keeps them until the round ends."""
    dispatch: Callable[[PartyId, bytes, RoundTask], RoundTask] | None = None
    """(client, digest of the backbone it last named, task) -> task."""
    handed_out: Callable[[], Message] | None = None
    """What each client is given once, before its first task."""
    question: Callable[[int], SumQuery | None] | None = None
    """(round) -> what the clients that replied are asked; round 0 asks all, before the first round."""
    learn: Callable[[int, NDArray[np.uint64]], None] | None = None
    """(round, the sums that answer it)."""
    enter: Callable[[int, SharedModule, Parameters, WeightedMean], None] | None = None
    """(round, what travels, its parameters before the round, the replies' mean so far): may add to the mean."""
    adjust: Callable[[int, SharedModule, Parameters, Parameters], Parameters] | None = None
    """(round, what travels, its parameters before the round, their mean) -> parameters. May load into the module."""
    publish: Callable[[bytes, Published], Published] | None = None
    """(digest of the backbone a client last named, message) -> message."""
    measures: Callable[[], dict[str, float]] = dict
    """Of the round that has just been adjusted, for the report."""
    closed: Callable[[int, float, int], None] | None = None
    """(round, seconds its slowest reply took, payload bytes sent and received): told after each round."""
    finish: Callable[[SharedModule, Parameters], Finished] | None = None
    saved: Callable[[], Parameters] = dict


@dataclass(frozen=True)
class ClientHooks:
    receive: Callable[[RoundTask | Published], bool] | None = None
    """False: this client cannot train, because it lacks a backbone it should hold."""
    held: Callable[[], bytes] = bytes
    """Digest of the backbone this client holds."""
    trained: Callable[[nn.Sequential], nn.Sequential] | None = None
    """The whole network -> the module that is trained, sent and averaged."""
    observe: Callable[[nn.Sequential], nn.Sequential] | None = None
    """As the aggregator's."""
    take: Callable[[Message], None] | None = None
    """What the aggregator has handed out. Raises InvalidData."""
    answer: Callable[[int, str, tuple[float, ...], Examples], NDArray[np.uint64] | None] | None = None
    """(round, purpose, numbers of the question, own rows) -> this client's numbers; None: not asked of this part."""
    embed: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Inputs of the job -> inputs of what travels, where its model is measured. Raises RemoteProtocolError."""
    prepare: Callable[[RoundTask, Examples], Examples] | None = None
    augment: Callable[[int, nn.Sequential, Examples], tuple[nn.Sequential, Examples]] | None = None
    """(round, ...): see Work."""
    update: Callable[[bytes, Work], Updated] | None = None
    amend: Callable[[nn.Sequential, Parameters], None] | None = None
    """See Work."""
    read: Callable[[bytes, dict[str, Shape]], Parameters] | None = None
    """(published parameters, what they must hold) -> the parameters this client keeps. Raises InvalidBody."""
    complete: Callable[[Parameters], Parameters] | None = None
    """Those parameters -> with what this client holds beside what travels."""
    stored: Callable[[], bytes] | None = None
    """What this client holds between rounds; what it received, where this is empty."""
    memory: Callable[[], bytes] | None = None
    """What this part must remember beside that; it comes back as `setup.saved`."""
    measures: Callable[[], dict[str, float]] = dict
    """Of the round it has just trained in, for the client's own report."""
    conclude: Callable[[nn.Sequential], dict[str, float]] | None = None
    """The published model, as it travels -> metrics for the client's own report."""
    notices: Callable[[], tuple[Notice, ...]] = tuple
    """For the client's own report."""


@dataclass(frozen=True)
class Part:
    """A part on both sides. `saved` is what the aggregator's side gave out by `saved`, empty at the start."""

    name: str
    aggregator: Callable[[Setup[RoundsSpec], Mapping[str, torch.Tensor]], AggregatorHooks]
    client: Callable[[Setup[RoundsSpec]], ClientHooks]
    remembers: Callable[[RoundsSpec], bool] = lambda _: False
    """Whether its client's side has a memory."""


def parts_of(spec: RoundsSpec) -> tuple[Part, ...]:
    """The parts of a job in the order of its adjustments; what is carried back comes last (R0.2)."""
    names = sorted(spec.rounds.parts, key=lambda name: name == "backbone_decoder")
    return tuple(PARTS[name]() for name in names)


def _compressed_sync() -> Part:
    from vfl.horizontal.compressed_sync.part import PART  # noqa: PLC0415

    return PART


def _backbone_decoder() -> Part:
    from vfl.horizontal.backbone_decoder.part import PART  # noqa: PLC0415

    return PART


def _model_inversion() -> Part:
    from vfl.horizontal.model_inversion.part import PART  # noqa: PLC0415

    return PART


def _shared_data() -> Part:
    from vfl.horizontal.shared_data.part import PART  # noqa: PLC0415

    return PART


PARTS: dict[str, Callable[[], Part]] = {
    "model_inversion": _model_inversion,
    "shared_data": _shared_data,
    "compressed_sync": _compressed_sync,
    "backbone_decoder": _backbone_decoder,
}
"""Functions that import on demand: the only registry of parts."""
