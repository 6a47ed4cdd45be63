"""Exchange: two parties tell each other the sum of one column, and each keeps both numbers.

A whole job kind in one file, as docs/adding_a_job_kind.md describes it: its specification, its message, its roles and
its record. The test beside it copies this file to `vfl/kinds/` and runs it between two servers.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save

from vfl.errors import RemoteProtocolError
from vfl.flow import Flow, receive, report, send
from vfl.kind import Kind, Roles
from vfl.message import Grain, Message, Reveals
from vfl.planning.plan import Plan, RevealLine
from vfl.planning.work import START, Clock, TableRows, Turn, sends
from vfl.reports import Outcome, StepDone
from vfl.routes import Route
from vfl.setup import Setup
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId, Role, Section, TableUse, require

SUM_BYTES = 20


class ExchangeRole(Role):
    FIRST = "first"
    SECOND = "second"


class ExchangeRoster(Section, frozen=True, kw_only=True):
    first: PartyId
    second: PartyId


class Amount(Section, frozen=True, kw_only=True):
    """What one party brings: a column of a registered data set."""

    dataset: str
    column: str


class ExchangeSpec(JobSpec, frozen=True, kw_only=True):
    roster: ExchangeRoster
    data: dict[PartyId, Amount]

    def __post_init__(self) -> None:
        self._check_job()
        require(set(self.data) == set(self.parties), "[data.*] must name both parties of the roster")

    @property
    def parties(self) -> tuple[PartyId, ...]:
        return (self.roster.first, self.roster.second)

    def role_of(self, party: PartyId) -> ExchangeRole:
        return ExchangeRole.FIRST if party == self.roster.first else ExchangeRole.SECOND

    def tables_of(self, party: PartyId) -> dict[str, TableUse]:
        return {"rows": TableUse(dataset=self.data[party].dataset, columns=(self.data[party].column,))}

    def steps_on(self, rows: int) -> int:
        return 1

    @property
    def checkpoints(self) -> int:
        return 0

    @property
    def disclosure(self) -> str:
        return "column_sums"


class ColumnSum(Message, frozen=True, tag=True):
    reveals = Reveals("the sum of one column", Grain.TABLE, "none")
    value: float


ROUTES = (
    Route(ExchangeRole.FIRST, ExchangeRole.SECOND, ColumnSum),
    Route(ExchangeRole.SECOND, ExchangeRole.FIRST, ColumnSum),
)


def role(setup: Setup[ExchangeSpec]) -> Flow[Outcome]:
    """Both roles are this page: (1) send one's own sum, (2) receive the peer's, (3) keep both."""
    (peer,), own = setup.spec.peers_of(setup.me), float(setup.table.columns.sum())
    yield from send(peer, ColumnSum(own))  # 1
    theirs = (yield from receive(ColumnSum, peer)).value  # 2
    if not np.isfinite(theirs):
        raise RemoteProtocolError(f"{peer} sent a sum that is no finite number")
    yield from report(StepDone(step=1, steps=1, epoch=0))
    return Outcome(save({"sums": np.array([own, theirs])}), metrics={"own_sum": own, "sum_of_peer": theirs})  # 3


class ExchangeKind(Kind[ExchangeSpec, Plan]):
    specification = ExchangeSpec

    def routes(self, spec: ExchangeSpec) -> tuple[Route, ...]:
        return ROUTES

    def roles(self, spec: ExchangeSpec) -> Roles:
        return {ExchangeRole.FIRST: role, ExchangeRole.SECOND: role}

    def largest_messages(self, spec: ExchangeSpec, rows: int) -> dict[str, int]:
        return {}

    def plan(self, spec: ExchangeSpec, me: PartyId, rows: int) -> Plan:
        players = {spec.role_of(party): party for party in spec.parties}
        return Plan(
            rows=rows,
            training_rows=rows,
            test_rows=0,
            steps=1,
            reveals=tuple(RevealLine.of(route, players, values=1) for route in ROUTES),
        )

    def work(self, spec: ExchangeSpec, rows: TableRows, clock: Clock) -> Iterator[Turn]:
        yield Turn("start", 1, {party: {START: 1} for party in spec.parties})
        for party in spec.parties:
            yield Turn("steps", 1, sends(party, 1, SUM_BYTES))

    def memory_bytes(self, spec: ExchangeSpec, party: PartyId, rows: int) -> int:
        return 8 * rows

    def model_bytes(self, spec: ExchangeSpec, party: PartyId) -> int:
        return 2 * 8

    def unprotected(self, spec: ExchangeSpec, plan: Mapping[str, Any]) -> Iterator[str]:
        yield "Each party read the exact sum of the other's column."


KIND = ExchangeKind()
