"""The two server processes of a demonstration, from start to end; none outlives it."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from api.client import Client, JsonObject, read_token
from api.demo.errors import ServerEnded
from api.demo.folder import PROCESSES, write_json
from parties.server_settings import LOOPBACK
from parties.settings import TOKEN_FILE

READY_SECONDS = 60.0
STOP_SECONDS = 10.0
LOOK_SECONDS = 0.1
TAIL_LINES = 12
LOG = "server.log"
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Servers:
    """One `vfl party serve` per party folder. Leaving the block ends them and their workers."""

    def __init__(self, folder: Path, ports: Mapping[str, tuple[int, int]], coordinator: str) -> None:
        """`ports` are (operator, peer) by party, as their settings say; all parties enrol each other."""
        self._folder, self._ports, self._coordinator = folder, ports, coordinator
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._clients: dict[str, Client] = {}
        self._written: list[dict[str, object]] = []

    def __enter__(self) -> Self:
        try:
            for party in self._ports:
                with _interrupts_later():
                    self._processes[party] = _start(self._folder / party)
            self.write_processes({})
            for party, (operator_port, _) in self._ports.items():
                token = read_token(self._folder / party / TOKEN_FILE)
                self._clients[party] = Client(f"http://{LOOPBACK}:{operator_port}", token)
            self._await_ready()
            for inviting, invited in itertools.combinations(self._ports, 2):
                self._enrol(inviting, invited)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def client(self, party: str) -> Client:
        return self._clients[party]

    def grant(self, specification: str) -> None:
        """What the operators of the other parties do before the coordinator proposes the job."""
        for party, client in self._clients.items():
            if party != self._coordinator:
                client.grant({"spec": specification})

    def check(self) -> None:
        """Raises ServerEnded, with the end of its log, when a server is gone."""
        for party, process in self._processes.items():
            if process.poll() is not None:
                raise ServerEnded(
                    f"the server of {party} ended with code {process.returncode}:\n{self._tail(party)}",
                    safe="Nothing is lost: both files and all logs are in the folder.",
                    fix=f"See {self._folder / party / LOG}.",
                )

    def write_processes(self, workers: Mapping[str, int | None]) -> None:
        """Keep processes.json: the servers, and the workers by party as far as they run."""
        lines: list[dict[str, object]] = [
            {"party": party, "kind": "server", "pid": process.pid} for party, process in self._processes.items()
        ]
        lines += [{"party": party, "kind": "worker", "pid": pid} for party, pid in workers.items() if pid]
        if lines != self._written:
            write_json(self._folder / PROCESSES, lines)
            self._written = lines

    def stop(self) -> None:
        """End both servers and all they started, whatever happens meanwhile."""
        with _interrupts_later():
            for client in self._clients.values():
                client.close()
            running = {party: process for party, process in self._processes.items() if process.poll() is None}
            for process in running.values():
                process.terminate()
            for process in running.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS)
            for process in self._processes.values():
                process.kill()  # one that is gone already is not harmed; its workers end with their pipe
                process.wait()
                if process.stdin is not None:
                    process.stdin.close()
            (self._folder / PROCESSES).unlink(missing_ok=True)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        for party, client in self._clients.items():
            while not client.healthy():
                self.check()
                if time.monotonic() > deadline:
                    raise ServerEnded(
                        f"the server of {party} was not ready after {READY_SECONDS:.0f} s:\n{self._tail(party)}",
                        fix=f"See {self._folder / party / LOG}.",
                    )
                time.sleep(LOOK_SECONDS)

    def _enrol(self, inviting: str, invited: str) -> None:
        """What two operators do with a line and a telephone, by the same calls."""
        line = self._clients[inviting].invite(invited, hours=1)["line"]
        words = self._clients[invited].accept(line)["words"]
        self._clients[inviting].confirm(invited, words)
        self._clients[invited].confirm(inviting, words)

    def _tail(self, party: str) -> str:
        with contextlib.suppress(OSError):
            text = (self._folder / party / LOG).read_text(encoding="utf-8", errors="replace")
            return "\n".join(text.splitlines()[-TAIL_LINES:])
        return "(no log)"


def workers(jobs: Mapping[str, JsonObject]) -> dict[str, int | None]:
    """Worker process ids by party."""
    return {party: job.get("worker_pid") for party, job in jobs.items()}


def free_ports(parties: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Two loopback ports per party that nobody listens on now: (operator, peer)."""
    with contextlib.ExitStack() as stack:

        def free() -> int:
            each = stack.enter_context(socket.socket())
            each.bind((LOOPBACK, 0))
            port: int = each.getsockname()[1]
            return port

        return {party: (free(), free()) for party in parties}


def _start(party_folder: Path) -> subprocess.Popen[bytes]:
    # A VFL_* setting of the user's shell is about the user's own party, not about these two.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VFL_")}
    environment["PYTHONUNBUFFERED"] = "1"
    with os.fdopen(os.open(party_folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own program and a folder we made
            [sys.executable, "-P", "-m", "api.cli.demo_server", str(party_folder)],
            stdin=subprocess.PIPE,  # held open as long as this process lives, and the server with it
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block is done: half-way a process could be missed, and left running."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {number: signal.signal(number, lambda number, _: received.append(number)) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt
