"""The words about a job that has not begun: kept as they travelled, so that a server that was away goes on with it.

They are stored in the commit in which they count as said or received, and go when the job begins or ends.
"""

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sql

from parties.storage.engine import NUMBER

PROPOSED = "proposed"
"""The state of a job that has not begun."""


class Negotiated(NamedTuple):
    job: str
    direction: str
    """sent or received."""
    peer: str
    envelope: bytes


def negotiated_table(metadata: sql.MetaData) -> sql.Table:
    return sql.Table(
        "negotiated",
        metadata,
        sql.Column("number", NUMBER, primary_key=True),
        sql.Column("job", sql.ForeignKey("jobs.id"), nullable=False, index=True),
        sql.Column("direction", sql.String, nullable=False),
        sql.Column("peer", sql.String, nullable=False),
        sql.Column("envelope", sql.LargeBinary, nullable=False),
    )


def add(connection: sql.Connection, table: sql.Table, jobs: sql.Table, words: Sequence[Negotiated]) -> None:
    """Those of jobs that have not begun."""
    if not words:
        return
    named = jobs.c.id.in_({word.job for word in words})
    proposed = set(connection.execute(sql.select(jobs.c.id).where(named, jobs.c.state == PROPOSED)).scalars())
    if rows := [word._asdict() for word in words if word.job in proposed]:
        connection.execute(table.insert(), rows)


def of_job(connection: sql.Connection, table: sql.Table, job: str) -> list[Negotiated]:
    """In the order in which they were said."""
    columns = [table.c[name] for name in Negotiated._fields]
    query = sql.select(*columns).where(table.c.job == job).order_by(table.c.number)
    return [Negotiated(*row) for row in connection.execute(query)]


def forget(connection: sql.Connection, table: sql.Table, job: str) -> None:
    connection.execute(table.delete().where(table.c.job == job))
