"""A party's own database, or a witness's, through SQLAlchemy: SQLite in a file, or PostgreSQL by its address.

Each room's tables register with `METADATA`; what must change together is written in one block of `writing`, by one
thread at a time.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite

from parties.database_errors import DatabaseBusy, DatabaseUnreachable
from parties.errors import StorageFailed
from parties.storage import schema
from parties.storage.postgresql_server import PostgresqlServer
from parties.storage.sqlite_file import SqliteFile

DATABASE_FILE = "party.db"
METADATA = sql.MetaData()
NUMBER = sql.BigInteger().with_variant(sql.Integer(), "sqlite")
"""Whole numbers of 64 bits: SQLite has them under this name, and numbers new rows by it alone."""

LAST_CHANGE = sql.Table("last_change", METADATA, sql.Column("mark", sql.String, nullable=False))
"""One row: what the last change of a PostgreSQL database is known by, where a connection breaks while it commits."""


def insert(connection: sql.Connection, table: sql.Table) -> "postgresql.Insert | sqlite.Insert":
    """One that can say what becomes of a row that is there already."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def replace(connection: sql.Connection, table: sql.Table, row: Mapping[str, Any]) -> None:
    """In place of the row of the same primary key, if there is one."""
    new, primary = insert(connection, table), table.primary_key.columns
    others = {name: new.excluded[name] for name in row if name not in primary}
    connection.execute(new.values(**row).on_conflict_do_update(index_elements=primary, set_=others))


class Database:
    """Safe for several threads. Raises SchemaDiffers, StorageFailed where it cannot be opened or made."""

    def __init__(
        self,
        folder: Path,
        busy_seconds: float = 5.0,
        file: str = DATABASE_FILE,
        url: str = "",
        *,
        upgrade: bool = False,
    ) -> None:
        """A write waits so long for another program that has the database locked.

        `url` is of a PostgreSQL database, in place of the file in the folder. `upgrade` brings the tables of an earlier
        release to the present form; without it no table of an earlier release is touched. Then it raises PartyInUse
        where a server uses them.
        """
        self._server = PostgresqlServer(url, busy_seconds) if url else SqliteFile(folder / file, busy_seconds)
        self._writes = threading.Lock()
        self._waited_in_vain = 0
        """How many writes have given up; those that queued behind one of them give up too."""
        self.written = threading.Condition()
        """Notified after every commit."""
        try:
            self._make_tables(upgrade=upgrade)
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """Without a password."""
        return self._server.name

    @contextlib.contextmanager
    def writing(self) -> Iterator[sql.Connection]:
        """One commit. Raises StorageFailed. Whoever only reads does not wait for it."""
        waited_in_vain = self._waited_in_vain
        try:
            with self._writes:
                if self._waited_in_vain > waited_in_vain:  # as long as this one would have waited
                    raise DatabaseBusy(self._server.busy)
                with self._server.transaction() as connection:
                    yield connection
            with self.written:
                self.written.notify_all()
        except sql.exc.IntegrityError:
            raise
        except DatabaseUnreachable:
            self._waited_in_vain += 1
            raise
        except sql.exc.DatabaseError as error:
            if self._server.was_locked(error):
                self._waited_in_vain += 1
                raise DatabaseBusy(self._server.busy) from error
            raise StorageFailed(f"{self.name} cannot be written: {error.orig}") from error

    def reading(self) -> contextlib.AbstractContextManager[sql.Connection]:
        return self._server.connected()

    def snapshot(self) -> contextlib.AbstractContextManager[sql.Connection]:
        """Everything that is read in this block is of one moment, while others write."""
        return self._server.snapshot()

    def hold(self) -> contextlib.AbstractContextManager[object]:
        """No other server uses this database until the block ends. Raises PartyInUse."""
        return self._server.hold()

    def sync(self) -> None:
        """What was committed before survives a loss of power from here on."""
        self._server.sync()

    def close(self) -> None:
        self._server.close()

    def _make_tables(self, *, upgrade: bool) -> None:
        try:
            with self._server.connected() as connection:
                before = schema.revision(connection)
        except sql.exc.DatabaseError as error:
            raise StorageFailed(f"{self.name} cannot be read: {error.orig}") from error
        if not schema.is_present(before, self.name, upgrade=upgrade):
            with self.hold() if before else contextlib.nullcontext(), self.writing() as connection:
                self._server.begin_at_once(connection)
                if schema.revision(connection) == before:  # and no other process was faster
                    schema.upgrade(connection)
