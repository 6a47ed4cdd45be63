"""How many bytes a job of rounds will send, found by running two of its rounds on a few made-up rows.

The roles are the real ones, with every part, so there is no second description of what travels. How large a message
is depends on the network and on the terms, never on the data (R0.8): a handful of rows and one epoch tell.
"""

from collections import defaultdict
from typing import Any

import msgspec
import numpy as np

from vfl.flow import Together, run_together
from vfl.horizontal.aggregation import network_of
from vfl.protocols.rounds import PROTOCOL
from vfl.reports import Outcome, RoundDone
from vfl.rounds_spec import RoundsSpec
from vfl.rounds_terms import Stop
from vfl.schedule import philox
from vfl.setup import Setup, Table
from vfl.terms import PartyId, Role

CLIENTS = 3
ROUNDS = 2
FEWEST_ROWS = 32
RATE = 1e-6
"""Of all training here: made-up rows teach nothing, and a model must not diverge on them."""
SEED = bytes(32)


class Sizes(msgspec.Struct, frozen=True):
    """Of one client, payload bytes."""

    first_task: int
    """To it, the first time it is chosen."""
    task: int
    """To it, every other time."""
    reply: int
    published: int
    """To it, at the end."""
    stored: int
    """What it holds between rounds."""

    @property
    def backbone(self) -> int:
        """What is sent once per client."""
        return max(0, self.first_task - self.task)


def parameters_in(spec: RoundsSpec) -> int:
    """Trained values of the whole network. Raises ImpossibleJob where it cannot be built."""
    return sum(parameter.numel() for parameter in network_of(spec, SEED).parameters())


def rehearse(spec: RoundsSpec) -> Sizes:
    """Raises ImpossibleJob where the network cannot be built, and what else a role would raise before its first row."""
    small = _small(spec)
    roles = {party: PROTOCOL.roles[small.role_of(party)](_setup(small, party)) for party in small.parties}
    together = run_together(roles)
    hub, client = small.roster.aggregator, small.roster.clients[0]
    down, up = _sizes(together, hub, client), _sizes(together, client, hub)
    stored = [len(fact.state) for fact in together.reports[client] if isinstance(fact, RoundDone)]
    return Sizes(
        first_task=down["RoundTask"][0],
        task=down["RoundTask"][-1],
        reply=up["RoundReply"][-1],
        published=down["Published"][-1],
        stored=stored[-1],
    )


def without_parts(spec: RoundsSpec) -> RoundsSpec:
    """The same job as federated averaging."""
    bare: dict[str, Any] = dict.fromkeys(spec.rounds.parts)
    return msgspec.structs.replace(spec, rounds=msgspec.structs.replace(spec.rounds, parts=(), **bare))


def _sizes(together: Together[Outcome], sender: PartyId, receiver: PartyId) -> dict[str, list[int]]:
    found = defaultdict[str, list[int]](list)
    for sent in together.transcript:
        if (sent.sender, sent.receiver) == (sender, receiver):
            found[sent.kind].append(sent.payload_bytes)
    return found


def _small(spec: RoundsSpec) -> RoundsSpec:
    """The same job with few clients, two rounds and one epoch of everything."""
    replace = msgspec.structs.replace
    clients = spec.roster.clients[:CLIENTS]
    optimiser = replace(spec.train.optimiser, rate=RATE)
    backbone = spec.rounds.backbone_decoder
    if backbone is not None:
        backbone = replace(backbone, align_epochs=1, distil_epochs=1)
    return replace(
        spec,
        roster=replace(spec.roster, clients=clients),
        data={party: brought for party, brought in spec.data.items() if party in {spec.roster.aggregator, *clients}},
        model=replace(spec.model, first_model="", first_epochs=1),
        train=replace(spec.train, optimiser=optimiser),
        rounds=replace(
            spec.rounds,
            rounds=ROUNDS,
            local_epochs=1,
            clients_per_round=0,
            min_clients=1,
            stop=Stop(gigabytes=spec.rounds.stop.gigabytes),
            reply_norm_limit=0.0,
            backbone_decoder=backbone,
        ),
    )


def _setup(spec: RoundsSpec, party: PartyId) -> Setup[RoundsSpec]:
    draws = np.random.Generator(philox(SEED, f"rehearsal {party}"))
    rows, (low, high) = max(FEWEST_ROWS, 2 * spec.outputs), spec.model.input_range
    tables = {}
    for use in spec.brings(party):
        columns = draws.uniform(low, high, (rows, spec.inputs))
        labels = (np.arange(rows) % max(spec.outputs, 2)).astype(np.float64)
        tables[use] = Table(bytes(32), columns, labels if use != "public" else None)
    seed = party.encode() if spec.role_of(party) is Role.CLIENT else SEED
    return Setup(spec, party, tables, SEED, seed)
