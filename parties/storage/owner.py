"""Whose database it is, and whether it was put back from a backup: what others have signed since is not in it then.

Two parties in one database would mix their audit logs and their counters.
"""

import sqlalchemy as sql

from parties.database_errors import DatabaseOfAnother
from parties.storage.engine import METADATA, NUMBER, Database
from parties.storage.passed import AUDIT_LOG
from parties.trust.leaves import Event
from vfl.spec.sections import PartyId

_OWNER = sql.Table(
    "owner",
    METADATA,
    sql.Column("name", sql.String, primary_key=True),
    sql.Column("restored", NUMBER),
)


def claim(database: Database, party: PartyId) -> None:
    """It is this party's from now on. Raises DatabaseOfAnother, StorageFailed."""
    with database.reading() as connection:
        owner = connection.execute(sql.select(_OWNER.c.name)).scalar()
    if owner is None:
        with database.writing() as connection:
            connection.execute(_OWNER.insert().values(name=party))
    elif owner != party:
        raise DatabaseOfAnother(f"{database.name} belongs to {owner}, and this party is {party}")


def owner_of(connection: sql.Connection) -> str:
    """Empty where no server has used it."""
    return connection.execute(sql.select(_OWNER.c.name)).scalar() or ""


def note_restored(connection: sql.Connection) -> None:
    """In the same commit as what was put back."""
    leaves = AUDIT_LOG.size(connection)
    connection.execute(_OWNER.update().values(restored=leaves))
    AUDIT_LOG.tell(connection, Event.RESTORED, leaves=leaves)


def restored_leaves(connection: sql.Connection) -> int | None:
    """How many leaves the audit log had when it was put back last; None where it never was."""
    leaves = connection.execute(sql.select(_OWNER.c.restored)).scalar()
    return None if leaves is None else int(leaves)
