"""A party's server as a process of its own, forked from one that has imported the libraries of servers.

The tests start hundreds of servers, and imports would be most of what each costs. How a server starts from nothing, as
an operator starts it, is what `command_line.serving` and the demonstrations show.
"""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from forked_workers import ForkedWorker, nursery

LINUX = sys.platform == "linux"
FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(["api.server"])
_PR_CAPBSET_DROP = 24
_CAPABILITIES_VERSION = 0x20080522


class ServerProcess:
    """Started at once; its standard error goes to server.log of the folder."""

    def __init__(self, folder: Path) -> None:
        reader, writer = FORKING.Pipe(duplex=False)
        with reader, writer:
            self._process = FORKING.Process(
                target=_serve, args=(folder, writer, nursery() if LINUX else ""), daemon=True
            )
            self._process.start()
            self._output = os.fdopen(os.dup(reader.fileno()), encoding="utf-8")
        self.first_line = self._output.readline()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.exitcode is None

    def send_signal(self, number: int) -> None:
        if self.runs:
            os.kill(self.pid, number)

    def wait(self, timeout_seconds: float) -> int:
        """Its exit code, as subprocess tells it."""
        self._process.join(timeout_seconds)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(f"server {self.pid}", timeout_seconds)
        self._output.close()
        return self._process.exitcode


def _serve(folder: Path, writer: Connection, workers: str) -> None:
    with writer, (folder / "server.log").open("a") as log:
        os.dup2(writer.fileno(), sys.stdout.fileno())
        os.dup2(log.fileno(), sys.stderr.fileno())
    become_ordinary()
    hours_ahead = folder / "hours_ahead"
    if hours_ahead.exists():  # a test moves the clock of this server by what it writes there
        time_of_machine = time.time
        time.time = lambda: time_of_machine() + 3600 * float(hours_ahead.read_text())

    def tell_what_is_loaded(*_: object) -> None:
        (folder / "maps.part").write_text(Path("/proc/self/maps").read_text())
        (folder / "maps.part").rename(folder / "maps")

    signal.signal(signal.SIGUSR1, tell_what_is_loaded)
    from api.server import serve
    from parties.worker import process

    if workers:
        setattr(process, "_spawn", partial(ForkedWorker, workers))  # noqa: B010 - it is no subprocess.Popen
    serve(folder)


def become_ordinary() -> None:
    """Give up root's powers for good, also where the tests are run by root."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "capset"):
        for capability in range(64):
            libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        assert libc.capset((ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0), (ctypes.c_uint32 * 6)()) == 0
