"""All that one database holds, into another one that is empty: of the same kind or of the other one."""

import sqlalchemy as sql

# All rooms that have tables, whoever else has imported them.
from parties.storage import cosigned_heads, database, datasets, grants, owner, peer_store  # noqa: F401
from parties.storage.engine import LAST_CHANGE, METADATA

ROWS_AT_ONCE = 1000


def copy_all(reading: sql.Connection, writing: sql.Connection) -> None:
    """From one moment of a database, in one commit of the other."""
    for table in METADATA.sorted_tables:
        if table is LAST_CHANGE:  # of that database alone
            continue
        rows = reading.execution_options(yield_per=ROWS_AT_ONCE).execute(table.select()).mappings()
        for page in rows.partitions():
            writing.execute(table.insert(), [dict(row) for row in page])
        _number_on(writing, table)


def _number_on(connection: sql.Connection, table: sql.Table) -> None:
    """New rows follow those that were copied; SQLite does that by itself."""
    counted = table.autoincrement_column
    if counted is None or connection.dialect.name != "postgresql":
        return
    sequence = sql.func.pg_get_serial_sequence(table.name, counted.name)
    following = sql.select(sql.func.coalesce(sql.func.max(counted), 0) + 1).scalar_subquery()
    connection.execute(sql.select(sql.func.setval(sequence, following, False)))
