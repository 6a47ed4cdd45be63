"""The work of rounds, rehearsed and timed: three rounds by the real roles on made-up rows, as many as each party has.

What parts of a round cost hangs on their network and their terms, so that there is no second description of it here.
Rows beyond a number are not made up: their time is taken to grow with their number.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from vfl.flow import Flow, Report, Send, run_together
from vfl.messages import RoundTask
from vfl.planning.work import REPORT, SECONDS, START, Clock, TableRows, Turn, added, sends
from vfl.protocols.rounds import ROLES
from vfl.rehearsal import forecast
from vfl.reports import Outcome, RoundDone
from vfl.schedule import philox
from vfl.setup import Setup, Table
from vfl.spec.rounds import RoundsRole, RoundsSpec
from vfl.spec.rounds_settings import Stop
from vfl.spec.sections import PartyId

CLIENTS, MOST_CLIENTS = 3, 10
"""Who takes part in a rehearsal; the more where secure sums are taken, in which each hears of all others."""
ROUNDS, COSTLY = 3, 2
"""The second does what a part does now and then, the third does not; the first warms up."""
MOST_ROWS = 1024
SEED = bytes(32)
SPREAD = 0.5
"""Of made-up values around that of their class, so that a model learns something and parts do not stand aside."""


@dataclass
class _Timed:
    """Seconds of one party's role: until the first task is sent, in each round, and at the end."""

    before: float = 0.0
    rounds: list[float] = field(default_factory=list)
    end: float = 0.0


def work(spec: RoundsSpec, rows: TableRows, clock: Clock) -> Iterator[Turn]:
    aggregator, clients = spec.roster.aggregator, spec.roster.clients
    sizes, timed = forecast(spec), _rehearsed(spec, rows, clock)
    rehearsed = [client for client in clients if client in timed]
    # A client that was not rehearsed works as the others do on average, for its own rows.
    mean = sum(timed[client].rounds[-1] / _own(rows, client) for client in rehearsed) / len(rehearsed)
    chosen = clients[: spec.cohort]
    yield Turn("start", 1, {party: {START: 1, "torch/start": 1} for party in spec.parties})
    yield Turn("start", 1, {aggregator: {SECONDS: timed[aggregator].before}})
    yield Turn("start", 1, sends(aggregator, len(chosen), len(chosen) * sizes.once_down))
    costly = _costly_rounds(spec)
    for number, at in ((costly, COSTLY - 1), (spec.rounds.rounds - costly, ROUNDS - 1)):
        yield Turn("steps", number, sends(aggregator, 1, len(chosen) * sizes.down))
        trained = {
            client: timed[client].rounds[at] if client in timed else mean * _own(rows, client) for client in chosen
        }
        yield Turn("steps", number, {client: {SECONDS: seconds} for client, seconds in trained.items()})
        yield Turn(
            "steps", number, {client: added(sends(client, 1, sizes.up)[client], {REPORT: 1}) for client in chosen}
        )
        combined = timed[aggregator].rounds[at] * len(chosen) / min(len(chosen), len(rehearsed))
        yield Turn("steps", number, {aggregator: {SECONDS: combined, REPORT: 1}})
    yield Turn("end", 1, {aggregator: {SECONDS: timed[aggregator].end}})
    yield Turn("end", 1, sends(aggregator, 1, len(clients) * sizes.published))
    yield Turn("end", 1, {client: {SECONDS: timed[client].end} for client in rehearsed})


def _costly_rounds(spec: RoundsSpec) -> int:
    """Those in which model-inversion seeks rows anew; without it the second round of a rehearsal is like the third."""
    terms = spec.model_inversion
    if terms is None or spec.rounds.rounds < terms.warm_up:
        return 0
    return -(-(spec.rounds.rounds - terms.warm_up + 1) // terms.refresh)


def _own(rows: TableRows, party: PartyId) -> int:
    return max(1, *rows[party].values()) if rows[party] else 1


def _rehearsed(spec: RoundsSpec, rows: TableRows, clock: Clock) -> dict[PartyId, _Timed]:
    small = _small(spec)
    timed = {party: _Timed() for party in small.parties}
    run_together(
        {
            party: _marked(ROLES[small.role_of(party)](_setup(small, party, rows[party])), clock, timed[party])
            for party in small.parties
        },
        keep_messages=False,
    )
    for party, seconds in timed.items():
        share = max(1.0, _own(rows, party) / MOST_ROWS)
        seconds.before, seconds.end = share * seconds.before, share * seconds.end
        seconds.rounds = [share * each for each in seconds.rounds]
    return timed


def _marked(flow: Flow[Outcome], clock: Clock, timed: _Timed) -> Flow[Outcome]:
    """The same role, with its own seconds written down."""
    answer, spent, has_begun = None, 0.0, False
    while True:
        start = clock()
        try:
            effect = flow.send(answer)
        except StopIteration as stop:
            timed.end += spent + clock() - start
            return stop.value  # type: ignore[no-any-return]
        spent += clock() - start
        if isinstance(effect, Send) and isinstance(effect.message, RoundTask) and not has_begun:
            has_begun, timed.before, spent = True, spent, 0.0
        if isinstance(effect, Report) and isinstance(effect.fact, RoundDone):
            timed.rounds.append(spent)
            spent = 0.0
        answer = yield effect


def _small(spec: RoundsSpec) -> RoundsSpec:
    """The same job with few clients and three rounds, of which the second is one with everything."""
    replace = msgspec.structs.replace
    clients = spec.roster.clients[: min(spec.cohort, MOST_CLIENTS if spec.rounds.secure_sum else CLIENTS)]
    terms = spec.model_inversion
    if terms is not None:
        terms = replace(terms, warm_up=COSTLY, refresh=ROUNDS)
    return replace(
        spec,
        roster=replace(spec.roster, clients=clients),
        data={party: own for party, own in spec.data.items() if party in {spec.roster.aggregator, *clients}},
        model=replace(spec.model, first_model=""),
        rounds=replace(
            spec.rounds,
            rounds=ROUNDS,
            clients_per_round=0,
            min_clients=min(spec.rounds.min_clients, len(clients)),
            deadline_seconds=1.0,
            stop=Stop(),
            reply_norm_limit=0.0,
            model_inversion=terms,
        ),
    )


def _setup(spec: RoundsSpec, party: PartyId, own: Any) -> Setup[RoundsSpec]:
    draws = np.random.Generator(philox(SEED, f"rehearsal {party}"))
    ranges = np.array(spec.model.ranges or ((0.0, 1.0),))
    centres = np.random.Generator(philox(SEED, "classes")).uniform(0.0, 1.0, (max(spec.outputs, 2), spec.inputs))
    tables = {}
    for use in spec.tables_of(party):
        rows = max(2 * spec.outputs, spec.train.batch_rows, min(MOST_ROWS, own.get(use, MOST_ROWS)))
        labels = np.arange(rows) % max(spec.outputs, 2)
        values = (1 - SPREAD) * centres[labels] + SPREAD * draws.uniform(0.0, 1.0, (rows, spec.inputs))
        columns = ranges[:, 0] + (ranges[:, 1] - ranges[:, 0]) * values
        tables[use] = Table(bytes(32), columns, labels.astype(np.float64) if use != "public" else None)
    seed = party.encode() if spec.role_of(party) is RoundsRole.CLIENT else SEED
    return Setup(spec, party, tables, SEED, seed)
