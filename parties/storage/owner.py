"""Whose database it is: two parties in one would mix their audit logs and their counters."""

import sqlalchemy as sql

from parties.database_errors import DatabaseOfAnother
from parties.storage.engine import METADATA, Database
from vfl.spec.sections import PartyId

_OWNER = sql.Table("owner", METADATA, sql.Column("name", sql.String, primary_key=True))


def claim(database: Database, party: PartyId) -> None:
    """It is this party's from now on. Raises DatabaseOfAnother, StorageFailed."""
    with database.reading() as connection:
        owner = connection.execute(sql.select(_OWNER.c.name)).scalar()
    if owner is None:
        with database.writing() as connection:
            connection.execute(_OWNER.insert().values(name=party))
    elif owner != party:
        raise DatabaseOfAnother(f"{database.name} belongs to {owner}, and this party is {party}")
