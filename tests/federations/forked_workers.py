"""Workers of the servers of tests, forked from a process that has imported what a worker imports.

A worker is the process that it always is, with its own pipe, log and session. What it saves are the imports: half a
processor second, and three where its job needs torch. How a server starts one from nothing is what
`tests/parties/worker` and the demonstrations show.
"""

import atexit
import contextlib
import fcntl
import functools
import importlib
import os
import pkgutil
import resource
import secrets
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import msgspec

from parties.processes import computing_environment

END_SECONDS = 10
HIGH = 200
"""Above the numbers under which a worker expects its files."""
LOADED = ("parties.worker.main", "torch", "tenseal", "safetensors.numpy", "vfl.protocols")


class Wish(msgspec.Struct, frozen=True):
    """What a server says of the worker it wants; the files come beside it."""

    numbers: list[int]
    """Under which the worker has each of the files."""
    largest_file: tuple[int, int]
    """The server's own limit, which a worker inherits."""


class ForkedWorker:
    """As much of subprocess.Popen as a server uses."""

    def __init__(self, address: str, log: IO[bytes], files: Sequence[int]) -> None:
        (incoming, to_worker), (from_worker, outgoing) = os.pipe(), os.pipe()
        wish = Wish([0, 1, 2, *files], resource.getrlimit(resource.RLIMIT_FSIZE))
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(address)
        socket.send_fds(self._line, [msgspec.json.encode(wish)], [incoming, outgoing, log.fileno(), *files])
        os.close(incoming)
        os.close(outgoing)
        self.pid = int(self._line.recv(32))
        self._handle = os.pidfd_open(self.pid)
        self.stdin = os.fdopen(to_worker, "wb", buffering=0)
        self.stdout = os.fdopen(from_worker, "rb", buffering=0)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def wait(self) -> int:
        return int(self._line.recv(32))


@functools.cache
def nursery() -> str:
    """Where servers ask for workers; the process ends with this one."""
    address = f"\0workers of {os.getpid()} {secrets.token_hex(8)}"  # a name of Linux, which leaves no file behind
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(listener.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            env=computing_environment(),
        )

    atexit.register(process.communicate, timeout=END_SECONDS)
    return address


def fork_on_demand(listener: socket.socket) -> None:
    """Until standard input ends. In one thread: a fork would have none of the others."""
    waiting = select.poll()
    waiting.register(listener, select.POLLIN)
    waiting.register(0, select.POLLIN)
    workers: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for descriptor, _ in waiting.poll():
            if descriptor == 0:
                return
            if descriptor == listener.fileno():
                line, _ = listener.accept()
                pid = fork_worker(line)
                handle = os.pidfd_open(pid)
                workers[handle] = pid, line
                waiting.register(handle, select.POLLIN)
                continue
            waiting.unregister(descriptor)
            os.close(descriptor)
            pid, line = workers.pop(descriptor)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with line, contextlib.suppress(OSError):
                line.sendall(str(status).encode())


def fork_worker(line: socket.socket) -> int:
    encoded, files, _, _ = socket.recv_fds(line, 1 << 12, 64)
    wish = msgspec.json.decode(encoded, type=Wish)
    pid = os.fork()
    if pid == 0:
        work(wish, files)
    for each in files:
        os.close(each)
    line.sendall(str(pid).encode())
    return pid


def work(wish: Wish, files: Sequence[int]) -> None:
    from forked_servers import become_ordinary

    code = 1
    try:
        os.setsid()
        assert max(files) < HIGH
        high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, HIGH) for each in files]
        os.closerange(0, HIGH)
        for number, each in zip(wish.numbers, high, strict=True):
            os.dup2(each, number, inheritable=number <= 2)
            os.close(each)
        resource.setrlimit(resource.RLIMIT_FSIZE, wish.largest_file)
        become_ordinary()
        from parties.worker.main import main

        main()
        code = 0
    except BaseException:  # noqa: BLE001 - as at the top of a program
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def load() -> None:
    for name in LOADED:
        importlib.import_module(name)
    import vfl.protocols

    for module in pkgutil.walk_packages(vfl.protocols.__path__, "vfl.protocols."):
        with contextlib.suppress(ImportError):  # Paillier's, where its extra is missing
            importlib.import_module(module.name)


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parent))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the tests, which end this process
    load()
    fork_on_demand(socket.socket(fileno=int(sys.argv[1])))
