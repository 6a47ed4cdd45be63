"""A database in a file: SQLite, for one server process, with a log of changes beside it (WAL)."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy import event

from parties.errors import StorageFailed


class SqliteFile:
    """Safe for several threads. Raises StorageFailed where the file cannot be made."""

    def __init__(self, path: Path, busy_seconds: float) -> None:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            path.chmod(0o600)
        except OSError as error:
            raise StorageFailed(f"{path} cannot be written: {error.strerror}") from error
        self.name = path.name
        self.busy = f"another program kept {path.name} locked for {busy_seconds:g} s"
        self._log = path.with_name(f"{path.name}-wal")
        self._engine = sql.create_engine(f"sqlite:///{path}", connect_args={"timeout": busy_seconds})
        event.listen(self._engine, "connect", _prepare)

    def connected(self) -> contextlib.AbstractContextManager[sql.Connection]:
        return self._engine.connect()

    def transaction(self) -> contextlib.AbstractContextManager[sql.Connection]:
        return self._engine.begin()

    def begin_at_once(self, connection: sql.Connection) -> None:
        """The driver would begin with the first row that changes, and tables are made before."""
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sql.Connection]:
        with self._engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection

    def was_locked(self, error: sql.exc.DatabaseError) -> bool:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        return code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

    def hold(self) -> contextlib.AbstractContextManager[object]:
        """The lock on the party's folder does that."""
        return contextlib.nullcontext()

    def sync(self) -> None:
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
