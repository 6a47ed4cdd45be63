"""A PostgreSQL server may go away at any moment: who wants to write waits for it, and a commit counts once or not."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sql
from debian_postgresql import DebianPostgresql

from parties.database_errors import DatabaseBusy, DatabaseUnreachable
from parties.errors import PartyInUse, StorageFailed
from parties.storage import passed
from parties.storage.engine import Database
from parties.storage.passed import AUDIT_LOG

LONG_SECONDS, SHORT_SECONDS = 30.0, 0.5


def leaves(database: Database) -> list[bytes]:
    with database.reading() as connection:
        return list(AUDIT_LOG.leaves(connection))


def append(database: Database, leaf: bytes) -> None:
    with database.writing() as connection:
        passed.AUDIT_LOG.append(connection, [leaf])


class Line:
    """Between a party and its PostgreSQL server; it breaks once at a COMMIT, before it or behind it."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.breaks = ""
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens to the server when it has broken."""
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def to(self, url: str) -> str:
        return url.replace(f":{self._server_port}/", f":{self._listener.getsockname()[1]}/")

    def take_no_more(self) -> None:
        """Connections that are open stay open."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        self.take_no_more()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._ends.append(client)
                try:
                    server = socket.create_connection(("127.0.0.1", self._server_port))
                except ConnectionRefusedError:  # it is not there just now
                    client.close()
                    continue
                self._ends.append(server)
                broken = threading.Event()
                for ends in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._pass_on,
                        args=ends,
                        kwargs={"is_from_party": ends[0] is client, "broken": broken},
                        daemon=True,
                    ).start()

    def _pass_on(
        self, source: socket.socket, sink: socket.socket, *, is_from_party: bool, broken: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if is_from_party and b"COMMIT" in data and self.breaks:
                    where, self.breaks = self.breaks, ""
                    broken.set()
                    if where == "behind":
                        sink.sendall(data)
                        continue
                    self.meanwhile()
                    break
                if not is_from_party and broken.is_set():  # the answer to COMMIT
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def line(postgresql: DebianPostgresql) -> Iterator[Line]:
    line = Line(postgresql.port)
    yield line
    line.close()


def test_a_write_waits_while_the_server_is_started_again(postgresql: DebianPostgresql, tmp_path: Path) -> None:
    with closing(Database(tmp_path, LONG_SECONDS, url=postgresql.new_schema())) as database:
        append(database, b"before")
        postgresql.stop()
        starting = threading.Timer(SHORT_SECONDS, postgresql.start)
        starting.start()
        append(database, b"after")
        starting.join()
        assert leaves(database) == [b"before", b"after"]


def test_a_server_that_stays_away_is_named_without_its_password(postgresql: DebianPostgresql, tmp_path: Path) -> None:
    with closing(Database(tmp_path, SHORT_SECONDS, url=postgresql.new_schema())) as database:
        postgresql.stop()
        try:
            with pytest.raises(DatabaseUnreachable, match=r"the database postgres of 127\.0\.0\.1 could not") as raised:
                append(database, b"leaf")
            assert "secret" not in str(raised.value)
            with pytest.raises(DatabaseUnreachable):
                leaves(database)
        finally:
            postgresql.start()
        append(database, b"leaf")
        assert leaves(database) == [b"leaf"]


@pytest.mark.parametrize("place", ["before", "behind"])
def test_where_the_line_breaks_at_a_commit_it_counts_once_or_not_at_all(
    postgresql: DebianPostgresql, line: Line, tmp_path: Path, place: str
) -> None:
    with closing(Database(tmp_path, LONG_SECONDS, url=line.to(postgresql.new_schema()))) as database:
        line.breaks = place
        if place == "behind":
            append(database, b"leaf")  # the server says that it holds it
        else:
            with pytest.raises(StorageFailed, match="cannot be written"):
                append(database, b"leaf")
            append(database, b"leaf")
        assert leaves(database) == [b"leaf"]


def test_where_the_server_ends_at_a_commit_and_numbers_changes_anew_nothing_is_taken_for_written(
    postgresql: DebianPostgresql, line: Line, tmp_path: Path
) -> None:
    """What a server that ended at once has not written down it forgets, and the number of the change with it."""

    forgotten = threading.Event()

    def forget() -> None:
        postgresql.stop()
        postgresql.start()
        for _ in range(10):
            postgresql.execute("create table other (number int)", "drop table other")
        forgotten.set()

    with closing(Database(tmp_path, LONG_SECONDS, url=line.to(postgresql.new_schema()))) as database:
        line.breaks, line.meanwhile = "before", forget
        with pytest.raises(StorageFailed, match="cannot be written"):
            append(database, b"leaf")
        assert forgotten.wait(LONG_SECONDS)
        append(database, b"next")
        assert leaves(database) == [b"next"]


def test_where_a_commit_stays_unclear_nothing_more_is_written_before_the_next_start(
    postgresql: DebianPostgresql, line: Line, tmp_path: Path
) -> None:
    url = line.to(postgresql.new_schema())
    with closing(Database(tmp_path, SHORT_SECONDS, url=url)) as database:
        line.breaks = "behind"
        line.take_no_more()
        with pytest.raises(DatabaseUnreachable):
            append(database, b"leaf")
        with pytest.raises(StorageFailed, match="in the middle of a change") as raised:
            append(database, b"next")
        assert "Start this party's server again" in raised.value.fix


def test_one_server_uses_a_database_at_a_time(postgresql: DebianPostgresql, tmp_path: Path) -> None:
    url = postgresql.new_schema()
    with closing(Database(tmp_path, url=url)) as first, closing(Database(tmp_path, url=url)) as second:
        with first.hold(), pytest.raises(PartyInUse, match="another server uses the database"), second.hold():
            pass
        with closing(Database(tmp_path, url=postgresql.new_schema())) as other, first.hold(), other.hold():
            pass
        with second.hold():
            pass


def test_a_server_holds_its_database_again_after_postgresql_was_started_again(
    postgresql: DebianPostgresql, tmp_path: Path
) -> None:
    url = postgresql.new_schema()
    with closing(Database(tmp_path, LONG_SECONDS, url=url)) as first, first.hold():
        postgresql.stop()
        postgresql.start()
        append(first, b"leaf")
        with closing(Database(tmp_path, url=url)) as second:
            with pytest.raises(PartyInUse), second.hold():
                pass
            postgresql.stop()
            postgresql.start()
            with second.hold(), pytest.raises(StorageFailed, match="another server uses"):  # it was faster
                append(first, b"next")
        append(first, b"next")
        assert leaves(first) == [b"leaf", b"next"]


def test_a_table_that_another_program_has_locked_is_waited_for_and_then_named(
    postgresql: DebianPostgresql, tmp_path: Path
) -> None:
    url = postgresql.new_schema()
    other = sql.create_engine(sql.make_url(url).set(drivername="postgresql+psycopg"))
    with closing(Database(tmp_path, SHORT_SECONDS, url=url)) as database:
        with other.begin() as connection:
            connection.exec_driver_sql("LOCK TABLE audit_leaves IN SHARE MODE")
            with pytest.raises(DatabaseBusy, match="another program kept a table of the database"):
                append(database, b"leaf")
            assert leaves(database) == []  # whoever reads does not wait
        append(database, b"leaf")
    other.dispose()
