"""How many bytes a job of rounds will send, found by running two of its rounds on a few made-up rows.

The roles are the real ones, with every part, so there is no second description of what travels. How large a message
is depends on the network and on the terms, not on the data: a handful of rows and one epoch tell.
"""

from typing import Any

import msgspec
import numpy as np

from vfl.flow import run_together
from vfl.horizontal.network import network_of
from vfl.messages import Published
from vfl.planning.plan import ClientBytes, Forecast
from vfl.protocols.rounds import ROLES
from vfl.reports import RoundDone
from vfl.schedule import philox
from vfl.setup import Setup, Table
from vfl.spec.rounds import RoundsRole, RoundsSpec
from vfl.spec.rounds_settings import Stop
from vfl.spec.sections import PartyId

CLIENTS = 3
MOST_CLIENTS = 30
"""Of a rehearsal with secure sums; more peers are not rehearsed."""
ROUNDS = 2
FEWEST_ROWS = 32
RATE = 1e-6
"""Of all training here: made-up rows teach nothing, and a model must not diverge on them."""
SEED = bytes(32)


def parameters_in(spec: RoundsSpec) -> int:
    """Trained values of the whole network. Raises ImpossibleJob where it cannot be built."""
    return sum(parameter.numel() for parameter in network_of(spec, SEED).parameters())


def forecast(spec: RoundsSpec) -> Forecast:
    """The bytes of the whole job, should every round run. Raises ImpossibleJob where the network cannot be built."""
    sizes = rehearse(spec)
    plain = rehearse(without_parts(spec)) if spec.parts or spec.rounds.secure_sum else sizes
    tasks, clients = spec.cohort * spec.rounds.rounds, len(spec.roster.clients)
    once = min(tasks, clients)
    return Forecast(
        parameters=parameters_in(spec),
        **msgspec.structs.asdict(sizes),
        without_parts={"down": plain.down, "up": plain.up},
        total_down=tasks * sizes.down + once * sizes.once_down + clients * sizes.published,
        total_up=tasks * sizes.up + once * sizes.once_up,
    )


def rehearse(spec: RoundsSpec) -> ClientBytes:
    """Raises ImpossibleJob where the network cannot be built, and what else a role would raise before its first row."""
    small = _small(spec)
    roles = {party: ROLES[small.role_of(party)](_setup(small, party)) for party in small.parties}
    together = run_together(roles)
    aggregator, clients = small.roster.aggregator, small.roster.clients
    down, up, published = [0] * (ROUNDS + 1), [0] * (ROUNDS + 1), 0
    number = 0
    for line in together.transcript:
        number = max(number, getattr(line.message, "round", 0))
        if isinstance(line.message, Published):
            published += line.payload_bytes
        elif line.sender == aggregator:
            down[number] += line.payload_bytes
        else:
            up[number] += line.payload_bytes
    stored = [len(fact.state) for client in clients for fact in together.reports[client] if isinstance(fact, RoundDone)]
    return ClientBytes(
        down=down[-1] // len(clients),
        up=up[-1] // len(clients),
        once_down=(down[0] + max(0, down[1] - down[-1])) // len(clients),
        once_up=(up[0] + max(0, up[1] - up[-1])) // len(clients),
        published=published // len(clients),
        stored=max(stored),
    )


def without_parts(spec: RoundsSpec) -> RoundsSpec:
    """The same job as federated averaging."""
    bare: dict[str, Any] = dict.fromkeys(spec.rounds.parts)
    return msgspec.structs.replace(spec, rounds=msgspec.structs.replace(spec.rounds, parts=(), **bare))


def _small(spec: RoundsSpec) -> RoundsSpec:
    """The same job with few clients, two rounds and one epoch of everything."""
    replace = msgspec.structs.replace
    # What a client says in a secure sum grows with the number of its peers.
    most = spec.cohort if spec.rounds.secure_sum else len(spec.roster.clients) if spec.pools_columns else CLIENTS
    clients = spec.roster.clients[: min(most, MOST_CLIENTS)]
    optimiser = replace(spec.train.optimiser, rate=RATE)
    backbone = spec.rounds.backbone_decoder
    if backbone is not None:
        backbone = replace(backbone, align_epochs=1, distil_epochs=1)
    return replace(
        spec,
        roster=replace(spec.roster, clients=clients),
        data={party: own for party, own in spec.data.items() if party in {spec.roster.aggregator, *clients}},
        model=replace(spec.model, first_model="", first_epochs=1),
        train=replace(spec.train, optimiser=optimiser),
        rounds=replace(
            spec.rounds,
            rounds=ROUNDS,
            local_epochs=1,
            clients_per_round=0,
            min_clients=min(spec.rounds.min_clients, len(clients)),
            deadline_seconds=1.0,
            stop=Stop(gigabytes=spec.rounds.stop.gigabytes),
            reply_norm_limit=0.0,
            backbone_decoder=backbone,
        ),
    )


def _setup(spec: RoundsSpec, party: PartyId) -> Setup[RoundsSpec]:
    draws = np.random.Generator(philox(SEED, f"rehearsal {party}"))
    rows, ranges = max(FEWEST_ROWS, 2 * spec.outputs), np.array(spec.model.ranges or ((0.0, 1.0),))
    tables = {}
    for use in spec.tables_of(party):
        columns = draws.uniform(ranges[:, 0], ranges[:, 1], (rows, spec.inputs))
        labels = (np.arange(rows) % max(spec.outputs, 2)).astype(np.float64)
        tables[use] = Table(bytes(32), columns, labels if use != "public" else None)
    seed = party.encode() if spec.role_of(party) is RoundsRole.CLIENT else SEED
    return Setup(spec, party, tables, SEED, seed)
