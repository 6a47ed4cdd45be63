"""Jobs as a list shows them: in pages, newest first."""

from typing import Any

import msgspec
import sqlalchemy as sql

RUNNING = ("proposed", "running")
"""The states of a job that is not over."""


class JobLine(msgspec.Struct, frozen=True):
    """A job in a list: nothing in it grows with its specification."""

    id: str
    name: str
    state: str
    role: str
    party: str
    attempt: int
    created_at: str
    started_at: str | None
    finished_at: str | None
    step: int
    steps: int
    epoch: int
    epochs: int
    error_code: str | None


def page_of(jobs: sql.Table, limit: int, after: str) -> sql.Select[Any]:
    """The lines that come after the named job; from the newest where none is named."""
    columns = [jobs.c[name] for name in JobLine.__struct_fields__ if name in jobs.c]
    query = sql.select(*columns, jobs.c.error["code"].as_string().label("error_code"))
    if after:
        since = sql.select(jobs.c.created_at).where(jobs.c.id == after).scalar_subquery()
        query = query.where(sql.or_(jobs.c.created_at < since, sql.and_(jobs.c.created_at == since, jobs.c.id > after)))
    return query.order_by(jobs.c.created_at.desc(), jobs.c.id).limit(limit)
