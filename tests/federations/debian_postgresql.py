"""A PostgreSQL server of Debian's package, run as the user it makes; it listens on loopback alone."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

SECONDS = 60
USER = "postgres"


class DebianPostgresql:
    """Started at once; `stop` and `start` may follow each other."""

    def __init__(self, folder: Path, programs: Path, become: list[str]) -> None:
        self._folder, self._programs, self._become = folder, programs, become
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._schemas = 0
        self._run("initdb", "--auth=trust", "--username=reader", "--encoding=UTF8", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://reader:secret@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories={self._folder}"
        options += " -c fsync=off -c max_connections=200"
        self._run("pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """At once, as if its machine had gone."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def new_schema(self) -> str:
        """The address of a place of its own in the database."""
        self._schemas += 1
        name = f"party_{self._schemas}"
        self.execute(f"create schema {name}")
        return f"{self.url}?options={quote(f'-csearch_path={name}')}"

    def execute(self, *statements: str) -> None:
        import sqlalchemy as sql  # which most tests do without

        engine = sql.create_engine(self.url.replace("postgresql", "postgresql+psycopg", 1))
        with contextlib.closing(engine.connect()) as connection:
            for statement in statements:
                connection.execute(sql.text(statement))
            connection.commit()
        engine.dispose()

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._become, str(self._programs / program), "-D", str(self._folder / "data"), *arguments]
        done = subprocess.run(
            command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, check=False
        )
        assert done.returncode == 0, done.stdout.decode()


@contextlib.contextmanager
def running() -> Iterator[DebianPostgresql]:
    """Skips the test where the package is not installed."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg")
    become: list[str] = []
    if os.getuid() == 0:
        try:
            pwd.getpwnam(USER)
        except KeyError:
            pytest.skip(f"there is no user {USER} to run PostgreSQL, which refuses to be run by root")
        become = ["runuser", "-u", USER, "--"]
    folder = Path(tempfile.mkdtemp(prefix="vfl-postgres-"))  # the user may not enter a folder of pytest
    if become:
        shutil.chown(folder, USER)
    try:
        server = DebianPostgresql(folder, programs[-1].parent, become)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
