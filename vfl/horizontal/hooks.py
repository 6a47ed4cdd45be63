"""The hooks of a round: what a part may do at each place of it, as methods that do nothing until a part overrides them.

    derive     aggregator, once      first model -> what is trained, sent and averaged
    encoding   both sides            how parameters travel in each direction
    dispatch   aggregator, per client and task: what only some clients need
    receive    client, per task      can it train? then, what it trains
    prepare    client, per task      its rows -> as the module reads them
    augment    client, per task      its rows, and the model it received -> the rows it trains on
    amend      client, per task      the trained module, before the reply is encoded
    adjust     aggregator, per round mean -> next parameters
    finish     aggregator, once      -> the model that is kept, and what the report says

All methods are deterministic given the seeds of the job. What a part must remember it gives out by `saved` (aggregator)
or `memory` (client) and takes back when it is made; what follows from that it computes again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vfl.codecs.parameters import Shape
from vfl.horizontal.mean import WeightedMean
from vfl.message import Message
from vfl.messages import Published, RoundTask
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
    parts: "tuple[ClientHooks, ...]" = ()
    """Whose `augment` comes before the training, and whose `amend` after it."""

    @property
    def augments(self) -> bool:
        """Whether a part must see the whole received model before the first step."""
        return any(part.augments for part in self.parts)

    @property
    def amends(self) -> bool:
        """Whether a part must see the whole trained model after the last step."""
        return any(part.amends for part in self.parts)

    def augmented(self, module: nn.Sequential) -> tuple[nn.Sequential, Examples]:
        """The module to train, which shares the weights of `module`, and on which rows."""
        examples = self.examples
        for part in self.parts:
            module, examples = part.augment(self.round, module, examples)
        return module, examples

    def amend(self, module: nn.Sequential, received: Parameters) -> None:
        for part in self.parts:
            part.amend(module, received)


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
class ClientEncoding:
    """The client's end of an UpdateEncoding."""

    update: Callable[[bytes, Work], Updated]
    """(a task's body, the work) -> trained, and the body of the reply. Raises vfl.codecs.InvalidBody."""
    read: Callable[[bytes, dict[str, Shape]], Parameters]
    """(published parameters, what they must hold) -> the parameters this client keeps. Raises InvalidBody."""


@dataclass(frozen=True)
class SumQuery:
    """Whole numbers that clients are asked for; only their sum over the clients is ever read."""

    purpose: str
    words: int
    """How many numbers each client gives."""
    numbers: tuple[float, ...] = ()
    """What a client needs to know to answer; public."""


class AggregatorHooks:
    """The aggregator's side of a part; as it stands here, that of federated averaging.

    Each round calls, in this order: `dispatch`, `query` and `on_sum`, `enter`, `adjust`, `close_round`, `measures`.
    """

    keeps_replies = False
    """Whether it looks at each client's parameters in `enter`: the mean keeps them until the round ends."""

    def derive(self, shared: SharedModule) -> SharedModule:
        """Once: the first model -> what travels."""
        return shared

    def observe(self, module: nn.Sequential) -> nn.Sequential:
        """Once: what travels -> the same module, that also keeps statistics of what its layers read."""
        return module

    def encoding(self, shared: SharedModule, usual: UpdateEncoding) -> UpdateEncoding:
        """Once: how parameters travel; `usual` is at full precision."""
        return usual

    def handed_out(self) -> tuple[Message, ...]:
        """What each client is given once, before its first task."""
        return ()

    def dispatch(self, client: PartyId, backbone_digest: bytes, task: RoundTask) -> RoundTask:
        """`backbone_digest` is the digest of the backbone the client last named."""
        return task

    def query(self, round_number: int) -> SumQuery | None:
        """What the clients that replied are asked; round 0 asks all, before the first round."""
        return None

    def on_sum(self, round_number: int, sums: NDArray[np.uint64]) -> None:
        """The sums that answer `query`, (words,)."""

    def enter(self, round_number: int, shared: SharedModule, before: Parameters, mean: WeightedMean) -> None:
        """The replies' mean so far: a part may add to it. `before` are the parameters before the round."""

    def adjust(self, round_number: int, shared: SharedModule, before: Parameters, mean: Parameters) -> Parameters:
        """The mean -> the next parameters. May load parameters into the module."""
        return mean

    def close_round(self, round_number: int, slowest_seconds: float, payload_bytes: int) -> None:
        """Seconds that the slowest reply of the round took, and payload bytes sent and received."""

    def measures(self) -> dict[str, float]:
        """Of the round that has just been adjusted, for the report."""
        return {}

    def publish(self, backbone_digest: bytes, message: Published) -> Published:
        """`backbone_digest` as in `dispatch`."""
        return message

    def finish(self, shared: SharedModule, parameters: Parameters) -> Finished:
        """Once: the model that is kept, and what the report says."""
        return Finished(parameters)

    def saved(self) -> Parameters:
        """What this side must remember between rounds."""
        return {}


class ClientHooks:
    """A client's side of a part; as it stands here, that of federated averaging."""

    augments = False
    """Whether `augment` looks at the received model."""
    amends = False
    """Whether `amend` does anything."""

    def trained(self, module: nn.Sequential) -> nn.Sequential:
        """The whole network -> the module that is trained, sent and averaged."""
        return module

    def observe(self, module: nn.Sequential) -> nn.Sequential:
        """As the aggregator's."""
        return module

    def encoding(self, usual: ClientEncoding) -> ClientEncoding:
        """How parameters travel; `usual` is at full precision."""
        return usual

    def backbone_digest(self) -> bytes:
        """Digest of the backbone this client holds; empty for none."""
        return b""

    def receive(self, message: RoundTask | Published) -> bool:
        """False: this client cannot train, because it lacks a backbone it should hold."""
        return True

    def take(self, message: Message) -> bool:
        """What the aggregator has handed out; False: it is not for this part. Raises InvalidData."""
        return False

    def contribution(
        self, round_number: int, purpose: str, numbers: tuple[float, ...], rows: Examples
    ) -> NDArray[np.uint64] | None:
        """This client's numbers for a query; None: the query is not this part's."""
        return None

    def embed(self, rows: torch.Tensor) -> torch.Tensor:
        """Inputs of the job -> inputs of what travels, where its model is measured. Raises RemoteProtocolError."""
        return rows

    def prepare(self, task: RoundTask, rows: Examples) -> Examples:
        """Own rows -> as the module reads them."""
        return rows

    def augment(self, round_number: int, module: nn.Sequential, rows: Examples) -> tuple[nn.Sequential, Examples]:
        """`module` holds what was received: the module to train, which shares its weights, and on which rows."""
        return module, rows

    def amend(self, module: nn.Sequential, received: Parameters) -> None:
        """The trained module, before the reply is encoded."""

    def measures(self) -> dict[str, float]:
        """Of the round it has just trained in, for the client's own report."""
        return {}

    def memory(self) -> bytes | None:
        """What this side must remember beside what it received; it comes back as `setup.saved`. None for nothing."""
        return None

    def complete(self, parameters: Parameters) -> Parameters:
        """The published parameters -> with what this client holds beside what travels."""
        return parameters

    def conclude(self, published: Callable[[], nn.Sequential]) -> dict[str, float]:
        """Gives a fresh copy of the published model, as it travels -> metrics for the client's own report."""
        return {}

    def notices(self) -> tuple[Notice, ...]:
        """For the client's own report."""
        return ()


@dataclass(frozen=True)
class Part:
    """A part on both sides. `saved` is what the aggregator's side gave out by `saved`, empty at the start."""

    name: str
    aggregator: Callable[[Setup[RoundsSpec], Mapping[str, torch.Tensor]], AggregatorHooks]
    client: Callable[[Setup[RoundsSpec]], ClientHooks]
    remembers: Callable[[RoundsSpec], bool] = lambda _: False
    """Whether its client's side has a memory."""
