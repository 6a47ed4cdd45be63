"""Last words in the database: the bytes to send again until a peer has received them, also after a restart."""

import time
from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sql

from parties.wire.last_words import MOST_WORDS

Words = Mapping[str, bytes | None]
"""By peer, the envelope it is owed; None where it need not hear any more."""


class KeptWord(NamedTuple):
    job: str
    peer: str
    envelope: bytes
    since: float
    """Unix seconds."""


def words_table(metadata: sql.MetaData) -> sql.Table:
    return sql.Table(
        "words",
        metadata,
        sql.Column("job", sql.ForeignKey("jobs.id"), primary_key=True),
        sql.Column("peer", sql.String, primary_key=True),
        sql.Column("envelope", sql.LargeBinary, nullable=False),
        sql.Column("since", sql.Float, nullable=False),
    )


def keep(connection: sql.Connection, table: sql.Table, job: str, words: Words) -> None:
    """The newest `MOST_WORDS` of each peer stay."""
    for peer, envelope in words.items():
        connection.execute(table.delete().where(table.c.job == job, table.c.peer == peer))
        if envelope is None:
            continue
        connection.execute(table.insert().values(job=job, peer=peer, envelope=envelope, since=time.time()))
        newest = sql.select(table.c.since).where(table.c.peer == peer).order_by(table.c.since.desc())
        oldest = newest.offset(MOST_WORDS - 1).limit(1).scalar_subquery()
        connection.execute(table.delete().where(table.c.peer == peer, table.c.since < oldest))


def kept(connection: sql.Connection, table: sql.Table) -> list[KeptWord]:
    """The oldest first."""
    return [KeptWord(*row) for row in connection.execute(table.select().order_by(table.c.since))]
