"""What each peer has read of each column over the life of a file, added up from what every job has spent.

A job's budget is stored when the job is approved, and stays. What a message reveals is spent in the transaction that
stores the message's leaves, after which it leaves: nothing leaves uncounted, and no counter ever goes back. Every
function works in the transaction of its caller.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
import sqlalchemy as sql

from parties.storage.engine import METADATA, NUMBER
from parties.storage.job_list import RUNNING
from parties.trust.budget import Account, BudgetLine, Charge, check_lifetime, with_steps_again
from parties.trust.errors import BudgetSpent
from parties.trust.id_runs import IdRun
from vfl.spec.sections import PartyId

_BUDGETS = sql.Table(
    "budgets",
    METADATA,
    sql.Column("job", sql.String, primary_key=True),
    sql.Column("peer", sql.String, primary_key=True),
    sql.Column("message", sql.String, primary_key=True),
    sql.Column("line", sql.LargeBinary, nullable=False),
    sql.Column("spent", NUMBER, nullable=False),  # messages
    sql.Column("opened", NUMBER, nullable=False),  # the same for all of a job, and greater than of any before
)
_ID_RUNS = sql.Table(
    "id_runs",
    METADATA,
    sql.Column("job", sql.String, primary_key=True),
    sql.Column("peer", sql.String, primary_key=True),
    sql.Column("dataset", sql.String, primary_key=True),
    sql.Column("time", NUMBER, nullable=False),
    sql.Column("sketch", sql.LargeBinary, nullable=False),
)
_SCORED_ROWS = sql.Table(
    "scored_rows",
    METADATA,
    sql.Column("job", sql.String, primary_key=True),
    sql.Column("peer", sql.String, nullable=False),
    sql.Column("time", NUMBER, nullable=False),
    sql.Column("marks", sql.LargeBinary, nullable=False),
)
_JOBS = sql.table("jobs", sql.column("id"), sql.column("state"))


class BudgetKey(NamedTuple):
    """One kind of message of a job, to one peer."""

    job: str
    peer: PartyId
    message: str


class Balance(NamedTuple):
    """How its budget stands."""

    line: BudgetLine
    spent: int
    """Messages."""

    def after(self, payload_bytes: int) -> "Balance":
        """One more message of so many bytes. Raises BudgetSpent: then it may not leave."""
        line = self.line
        if self.spent >= line.messages:
            raise BudgetSpent(
                f"{line.message} may reveal {line.values} {line.counted} to {line.peer} in this job, in "
                f"{line.messages} messages; all have left, and one more would have"
            )
        if payload_bytes > line.largest_bytes:
            raise BudgetSpent(
                f"a message {line.message} to {line.peer} has {payload_bytes} bytes; {line.largest_bytes} are the most "
                "that it can have with the values that it may reveal"
            )
        return self._replace(spent=self.spent + 1)


class LedgerLine(msgspec.Struct, frozen=True, kw_only=True):
    """How one account stands."""

    peer: PartyId
    dataset: str
    """As it was called in the newest job."""
    digest: str
    column: str
    counted: str
    values: int
    """That the peer has read."""
    rho: float
    open_values: int
    """That open jobs may still reveal."""
    open_rho: float


def open_budget(
    connection: sql.Connection, job: str, me: PartyId, lines: Sequence[BudgetLine], maximum_rho: float
) -> tuple[BudgetLine, ...]:
    """Of a job that is approved in this transaction, as it was opened. Raises PolicyRefused where it would pass the cap
    of a column."""
    before = used(connection)
    check_lifetime(me, lines, before, maximum_rho)
    last = connection.execute(sql.select(sql.func.max(_BUDGETS.c.opened))).scalar() or 0
    opened, new = tuple(with_steps_again(lines, before, maximum_rho)), {"job": job, "spent": 0, "opened": last + 1}
    rows = [new | {"peer": line.peer, "message": line.message, "line": msgspec.msgpack.encode(line)} for line in opened]
    if rows:
        connection.execute(_BUDGETS.insert(), rows)
    return opened


def open_id_runs(connection: sql.Connection, job: str, runs: Sequence[IdRun]) -> None:
    """Of a job that is approved in this transaction, and compares ids."""
    if runs:
        connection.execute(_ID_RUNS.insert(), [{"job": job} | run._asdict() for run in runs])


def id_runs(connection: sql.Connection) -> list[IdRun]:
    """Of every job that has revealed something, or may still do."""
    query = sql.select(_ID_RUNS.c.peer, _ID_RUNS.c.dataset, _ID_RUNS.c.time, _ID_RUNS.c.sketch)
    return [IdRun(*row) for row in connection.execute(query.where(_counts(_ID_RUNS.c.job)))]


def open_scored_rows(
    connection: sql.Connection, job: str, peer: PartyId, time: int, marks: bytes, forgotten: int
) -> None:
    """Of a prediction that is approved in this transaction; those of the time `forgotten` and before are deleted."""
    connection.execute(_SCORED_ROWS.delete().where(_SCORED_ROWS.c.time <= forgotten))
    connection.execute(_SCORED_ROWS.insert().values(job=job, peer=peer, time=time, marks=marks))


def scored_rows(connection: sql.Connection, peer: PartyId, since: int) -> Iterator[bytes]:
    """Of every prediction for this peer after that time which has revealed something, or may still do."""
    later = (_SCORED_ROWS.c.peer == peer) & (_SCORED_ROWS.c.time > since) & _counts(_SCORED_ROWS.c.job)
    yield from connection.execute(sql.select(_SCORED_ROWS.c.marks).where(later)).scalars()


def balance(connection: sql.Connection, key: BudgetKey) -> Balance:
    """Raises BudgetSpent for a message that the job has no budget for."""
    row = connection.execute(sql.select(_BUDGETS.c.line, _BUDGETS.c.spent).where(_is(key))).first()
    if row is None:
        raise BudgetSpent(f"the job may reveal nothing to {key.peer} in a message {key.message}")
    return Balance(msgspec.msgpack.decode(row.line, type=BudgetLine), row.spent)


def spend(connection: sql.Connection, messages: Mapping[BudgetKey, int]) -> None:
    """So many have left."""
    for key, count in messages.items():
        connection.execute(_BUDGETS.update().where(_is(key)).values(spent=_BUDGETS.c.spent + count))


def forget(connection: sql.Connection, jobs: Sequence[str]) -> list[str]:
    """Drop the budgets of jobs that are deleted; answers those that have revealed nothing, the others stay for ever."""
    spent = sql.select(_BUDGETS.c.job).where(_BUDGETS.c.job.in_(jobs), _BUDGETS.c.spent > 0)
    counted = set(connection.execute(spent).scalars())
    forgotten = [job for job in jobs if job not in counted]
    for table in (_BUDGETS, _ID_RUNS, _SCORED_ROWS):
        connection.execute(table.delete().where(table.c.job.in_(forgotten)))
    return forgotten


def used(connection: sql.Connection) -> dict[Account, Charge]:
    """What counts against the caps: what has left, and what open jobs may still reveal."""
    return {
        Account(line.peer, line.digest, line.column, line.counted): Charge(
            line.values + line.open_values, line.rho + line.open_rho
        )
        for line in accounts(connection)
    }


def accounts(connection: sql.Connection) -> list[LedgerLine]:
    """Every account on which something stands, by peer, data set and column."""
    spent, still_open = defaultdict[Account, Charge](Charge), defaultdict[Account, Charge](Charge)
    datasets: dict[str, str] = {}
    for line, messages, is_open in _budgets(connection):
        datasets |= {column.digest: column.dataset for column in line.columns}
        for account in line.accounts:
            spent[account] = spent[account].plus(line.charge(messages))
            if is_open:
                still_open[account] = still_open[account].plus(line.rest(messages))
    lines = [
        LedgerLine(
            peer=account.peer,
            dataset=datasets[account.digest],
            digest=account.digest,
            column=account.column,
            counted=account.counted,
            values=charge.values,
            rho=charge.rho,
            open_values=still_open[account].values,
            open_rho=still_open[account].rho,
        )
        for account, charge in spent.items()
        if charge.values or still_open[account].values
    ]
    return sorted(lines, key=lambda line: (line.peer, line.dataset, line.digest, line.column))


def _budgets(connection: sql.Connection) -> Iterator[tuple[BudgetLine, int, bool]]:
    """Every budget, how many of its messages have left, and whether its job is open; the oldest first."""
    is_open = _JOBS.c.state.in_(RUNNING)
    query = sql.select(_BUDGETS.c.line, _BUDGETS.c.spent, is_open.label("is_open"))
    query = query.select_from(_BUDGETS.outerjoin(_JOBS, _JOBS.c.id == _BUDGETS.c.job))
    query = query.order_by(_BUDGETS.c.opened, _BUDGETS.c.peer, _BUDGETS.c.message)
    for row in connection.execute(query):
        yield msgspec.msgpack.decode(row.line, type=BudgetLine), row.spent, bool(row.is_open)


def _counts(job: sql.ColumnElement[str]) -> sql.ColumnElement[bool]:
    """Whether the job has revealed something, or may still do."""
    spent = sql.select(_BUDGETS.c.job).where(_BUDGETS.c.spent > 0)
    return job.in_(spent) | job.in_(sql.select(_JOBS.c.id).where(_JOBS.c.state.in_(RUNNING)))


def _is(key: BudgetKey) -> sql.ColumnElement[bool]:
    return (_BUDGETS.c.job == key.job) & (_BUDGETS.c.peer == key.peer) & (_BUDGETS.c.message == key.message)
