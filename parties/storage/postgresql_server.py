"""A database of a PostgreSQL server, which may be on another machine and away for a while.

A connection that broke is made anew; whoever wants one waits for the server as long as for a lock. Where a connection
breaks while it commits, the server is asked what has become of the commit before anything goes on.
"""

import contextlib
import secrets
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sql
from sqlalchemy import event

from parties.database_errors import DatabaseUnreachable
from parties.errors import PartyInUse, SettingsError, StorageFailed

DRIVER = "postgresql+psycopg"
CONNECT_SECONDS, AGAIN_SECONDS = 5, 0.2
POOL_SIZE = 10
LOCK_NOT_AVAILABLE = "55P03"
_LOCK = "hashtext('vfl party'), hashtext(current_schema())"
PREPARATIONS = (
    # A server that lost its machine must not hold its lock for hours.
    "SET tcp_keepalives_idle = 20",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 4",
)


class PostgresqlServer:
    """Safe for several threads. Raises SettingsError where the driver is not installed."""

    def __init__(self, url: str, busy_seconds: float) -> None:
        address = sql.make_url(url).set(drivername=DRIVER)
        self.name = f"the database {address.database or address.username} of {address.host or 'PostgreSQL'}"
        self.busy = f"another program kept a table of {self.name} locked for {busy_seconds:g} s"
        self._busy_seconds = busy_seconds
        self._unclear = ""
        """Why it is not known what the database holds."""
        self._holder: sql.Connection | None = None
        self._is_held = self._is_connected_anew = False
        try:
            self._engine = sql.create_engine(
                address, pool_size=POOL_SIZE, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_SECONDS}
            )
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"storage.url names a PostgreSQL database, and its driver is not installed ({error.name})",
                fix="Install this software with its extra `postgres`.",
            ) from error
        event.listen(self._engine, "connect", self._prepare)

    @contextlib.contextmanager
    def connected(self) -> Iterator[sql.Connection]:
        """Raises DatabaseUnreachable."""
        with self._connect() as connection:
            yield connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sql.Connection]:
        """Raises DatabaseUnreachable, StorageFailed."""
        if self._unclear:
            raise StorageFailed(self._unclear, fix="Start this party's server again: it reads what the database holds.")
        self._hold_again()
        with self._connect() as connection:
            yield connection
            mark = ""
            if connection.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()").scalar():
                mark = secrets.token_hex(16)
                connection.execute(sql.text("UPDATE last_change SET mark = :mark"), {"mark": mark})
            try:
                connection.commit()
            except sql.exc.OperationalError:
                if not mark or not self._was_committed(mark):
                    raise

    def begin_at_once(self, connection: sql.Connection) -> None:
        """Two servers of one release do not make the same tables at once."""
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('vfl tables'), hashtext(current_schema()))")

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sql.Connection]:
        """Raises DatabaseUnreachable."""
        with self._connect() as connection:
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            yield connection.execution_options(**options)

    def was_locked(self, error: sql.exc.DatabaseError) -> bool:
        return getattr(error.orig, "sqlstate", "") == LOCK_NOT_AVAILABLE

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """By a lock that stays as long as one connection, which no other work uses. Raises PartyInUse."""
        self._holder, self._is_held = self._locked_connection(), True
        try:
            yield
        finally:
            self._is_held = False
            self._let_go()

    def sync(self) -> None:
        """PostgreSQL commits to the disk, unless it was told otherwise."""

    def close(self) -> None:
        self._engine.dispose()

    def _locked_connection(self) -> sql.Connection:
        connection = self._connect()
        is_free = connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_LOCK})").scalar()
        connection.commit()
        if is_free:
            return connection
        connection.close()
        raise PartyInUse(
            f"another server uses {self.name}",
            fix="Stop it first. Each party needs a database, or a schema, of its own.",
        )

    def _hold_again(self) -> None:
        """After the server was away, and with it the lock. Raises StorageFailed where another one was faster."""
        if not self._is_held or (self._holder is not None and not self._is_connected_anew):
            return
        try:
            if self._holder is not None:
                self._holder.exec_driver_sql("SELECT 1")
                self._holder.commit()
        except sql.exc.DBAPIError:
            self._let_go()
        if self._holder is None:
            try:
                self._holder = self._locked_connection()
            except PartyInUse as error:
                raise StorageFailed(str(error), fix=error.fix) from error
        self._is_connected_anew = False

    def _let_go(self) -> None:
        if self._holder is not None:
            with contextlib.suppress(sql.exc.SQLAlchemyError):
                self._holder.exec_driver_sql(f"SELECT pg_advisory_unlock({_LOCK})")
            self._holder.invalidate()  # without its server the lock goes with it, some time later
            self._holder.close()
            self._holder = None

    def _prepare(self, connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            for preparation in (*PREPARATIONS, f"SET lock_timeout = {round(1000 * self._busy_seconds)}"):
                cursor.execute(preparation)
        connection.commit()
        self._is_connected_anew = True

    def _connect(self) -> sql.Connection:
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                return self._engine.connect()
            except sql.exc.OperationalError as error:
                if time.monotonic() >= deadline:
                    waited = f"{self.name} could not be reached for {self._busy_seconds:g} s: {error.orig}"
                    raise DatabaseUnreachable(" ".join(waited.split())) from error
                time.sleep(AGAIN_SECONDS)

    def _was_committed(self, mark: str) -> bool:
        """The connection broke while this transaction committed. Raises DatabaseUnreachable.

        PostgreSQL's own number of a transaction would not do: a server that ended at once may give it to another one.
        """
        self._unclear = f"{self.name} went away in the middle of a change, and whether it holds it is not known"
        with self._connect() as connection:
            try:  # waits for a server process that still commits
                last = connection.exec_driver_sql("SELECT mark FROM last_change FOR UPDATE").scalar()
            except sql.exc.DBAPIError:
                return False
        self._unclear = ""
        return bool(last == mark)
