"""A party's own database, or a witness's: SQLite through SQLAlchemy, written by one thread at a time.

Each room's tables register with `METADATA`; what must change together is written in one block of `writing`.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy import event as sql_event

from parties.errors import DatabaseBusy, StorageFailed

DATABASE_FILE = "party.db"
METADATA = sql.MetaData()


class Database:
    """Safe for several threads. Raises StorageFailed where the file cannot be made."""

    def __init__(self, folder: Path, busy_seconds: float = 5.0, file: str = DATABASE_FILE) -> None:
        """A write waits so long for another program that has the database locked."""
        path, self._file = folder / file, file
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            path.chmod(0o600)
        except OSError as error:
            raise StorageFailed(f"{path} cannot be written: {error.strerror}") from error
        self._log = path.with_name(f"{file}-wal")
        self._engine = sql.create_engine(f"sqlite:///{path}", connect_args={"timeout": busy_seconds})
        sql_event.listen(self._engine, "connect", _prepare)
        self._writes = threading.Lock()
        self._busy = f"another program kept {file} locked for {busy_seconds:g} s"
        self._waited_in_vain = 0
        """How many writes have given up; those that queued behind one of them give up too."""
        self.written = threading.Condition()
        """Notified after every commit."""
        with self.writing() as connection:
            METADATA.create_all(connection)

    @contextlib.contextmanager
    def writing(self) -> Iterator[sql.Connection]:
        """One commit. Raises StorageFailed. Whoever only reads does not wait for it."""
        waited_in_vain = self._waited_in_vain
        try:
            with self._writes:
                if self._waited_in_vain > waited_in_vain:  # as long as this one would have waited
                    raise DatabaseBusy(self._busy)
                with self._engine.begin() as connection:
                    yield connection
            with self.written:
                self.written.notify_all()
        except sql.exc.IntegrityError:
            raise
        except sql.exc.DatabaseError as error:
            if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                self._waited_in_vain += 1
                raise DatabaseBusy(self._busy) from error
            raise StorageFailed(f"{self._file} cannot be written: {error.orig}") from error

    def reading(self) -> contextlib.AbstractContextManager[sql.Connection]:
        return self._engine.connect()

    def sync(self) -> None:
        """What was committed before survives a loss of power from here on."""
        with contextlib.suppress(FileNotFoundError):  # then all of it stands in the database itself
            descriptor = os.open(self._log, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def close(self) -> None:
        self._engine.dispose()


def _prepare(connection: Any, _record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
