"""What went each way between this party and a peer of a job, counted by kind, in the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import sqlalchemy as sql

from parties.storage.engine import NUMBER, insert


class Traffic(msgspec.Struct, frozen=True):
    direction: str
    peer: str
    kind: str
    messages: int
    payload_bytes: int


class TrafficKey(NamedTuple):
    """What is counted together."""

    job: str
    direction: str
    peer: str
    kind: str


@dataclass
class Count:
    messages: int = 0
    payload_bytes: int = 0
    last: bytes = b""
    """The digest of the envelope that came last."""

    def add(self, other: "Count") -> None:
        """What was counted after this."""
        self.messages += other.messages
        self.payload_bytes += other.payload_bytes
        self.last = other.last


Counts = Mapping[TrafficKey, Count]


def traffic_table(metadata: sql.MetaData) -> sql.Table:
    return sql.Table(
        "traffic",
        metadata,
        sql.Column("job", sql.ForeignKey("jobs.id"), primary_key=True),
        sql.Column("direction", sql.String, primary_key=True),
        sql.Column("peer", sql.String, primary_key=True),
        sql.Column("kind", sql.String, primary_key=True),
        sql.Column("messages", NUMBER, nullable=False),
        sql.Column("payload_bytes", NUMBER, nullable=False),
        sql.Column("last", sql.LargeBinary, nullable=False),
    )


def add(connection: sql.Connection, table: sql.Table, jobs: sql.Table, counts: Counts) -> None:
    """To what is stored; a job that has been dropped meanwhile is left out."""
    if not counts:
        return
    jobs_stored = sql.select(jobs.c.id).where(jobs.c.id.in_({line.job for line in counts}))
    stored = set(connection.execute(jobs_stored).scalars())
    rows = [line._asdict() | vars(count) for line, count in counts.items() if line.job in stored]
    if rows:
        new = insert(connection, table)
        sums = {name: table.c[name] + new.excluded[name] for name in ("messages", "payload_bytes")}
        same, changed = table.primary_key.columns, sums | {"last": new.excluded.last}
        connection.execute(new.on_conflict_do_update(index_elements=same, set_=changed), rows)


def of_job(connection: sql.Connection, table: sql.Table, job: str) -> list[Traffic]:
    columns = [table.c[name] for name in Traffic.__struct_fields__]
    query = sql.select(*columns).where(table.c.job == job).order_by(*columns)
    return [Traffic(*row) for row in connection.execute(query)]


def last_of(connection: sql.Connection, table: sql.Table, line: TrafficKey) -> bytes:
    """The digest of the envelope of this line that came last; empty where none has come."""
    same = [table.c[name] == value for name, value in line._asdict().items()]
    return connection.execute(sql.select(table.c.last).where(*same)).scalar() or b""
