"""What a peer's proposals leave in the database is bounded: the oldest that came to nothing go as new ones come."""

import json
from collections.abc import Sequence

import sqlalchemy as sql

MOST_PROPOSALS = 200
MOST_BYTES = 16 << 20
"""Of specifications, plans and reveal tables, of one peer."""
CAME_TO_NOTHING = ("failed", "cancelled")


def drop_old_proposals(
    connection: sql.Connection, jobs: sql.Table, about_jobs: Sequence[sql.Table], role: str, peers: list[str]
) -> list[str]:
    """Of jobs in which this party has this role for these peers, where they came to nothing; answers their ids."""
    size = sql.func.length(jobs.c.spec) + sum(
        sql.func.length(sql.cast(column, sql.String)) for column in (jobs.c.plan, jobs.c.reveals, jobs.c.notices)
    )
    of_peers = sql.cast(jobs.c.peers, sql.String) == json.dumps(peers)  # as the column is written
    newest = (jobs.c.created_at.desc(), jobs.c.id)
    ended = sql.select(
        jobs.c.id,
        sql.func.row_number().over(order_by=newest).label("place"),
        sql.func.sum(size).over(order_by=newest).label("bytes"),
    ).where(jobs.c.role == role, of_peers, jobs.c.state.in_(CAME_TO_NOTHING))
    ranked = ended.subquery()
    beyond = sql.select(ranked.c.id).where(sql.or_(ranked.c.place > MOST_PROPOSALS, ranked.c.bytes > MOST_BYTES))
    old = list(connection.execute(beyond).scalars())
    for table in about_jobs:
        connection.execute(table.delete().where(table.c.job.in_(old)))
    connection.execute(jobs.delete().where(jobs.c.id.in_(old)))
    return old
