"""One worker process as its server sees it: spawned, fed from a mailbox, listened to, and gone in the end."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import msgspec

from parties.errors import StorageFailed, WorkerVanished
from parties.processes import computing_environment
from parties.worker.frames import FrameReader, FrameWriter, FromWorker, Start, WorkerInput
from parties.worker.mailbox import Mailbox


class WorkerProcess:
    """`on_frame` and `on_end` are called from one thread; the second comes last, with how the process ended.

    Raises StorageFailed when its log cannot be opened, WorkerVanished when the system starts no further process.
    """

    def __init__(
        self,
        start: Start,
        inbox: Mailbox[WorkerInput],
        log: Path,
        on_frame: Callable[[FromWorker], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._inbox, self._on_frame, self._on_end = inbox, on_frame, on_end
        with _open_log(log) as log_file:
            files = [raw.columns for raw in start.tables.values() if isinstance(raw.columns, int)]
            self._process = _spawn(log_file, files)
        self.pid = self._process.pid
        threading.Thread(target=self._feed, args=(start,), name=f"to worker {self.pid}", daemon=True).start()
        self._listener = threading.Thread(target=self._listen, name=f"from worker {self.pid}", daemon=True)
        self._listener.start()

    def kill(self) -> None:
        self._inbox.close()
        self._process.kill()

    def wait(self, timeout_seconds: float) -> None:
        if self._listener is not threading.current_thread():
            self._listener.join(timeout_seconds)

    def _feed(self, start: Start) -> None:
        assert self._process.stdin is not None  # noqa: S101 - Popen was given PIPE
        with self._process.stdin as stdin:
            writer = FrameWriter(stdin.fileno())
            try:
                writer.write(start)
                del start
                while (news := self._inbox.take()) is not None:
                    writer.write(news)
            except OSError:
                return  # the worker is gone; the listener says how

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - Popen was given PIPE
        with self._process.stdout as stdout:
            reader: FrameReader[FromWorker] = FrameReader(stdout.fileno(), FromWorker)
            try:
                while (frame := reader.read()) is not None:
                    self._on_frame(frame)
            except msgspec.DecodeError:
                self._process.kill()
        code = self._process.wait()
        self._inbox.close()
        self._on_end(f"was ended by signal {-code}" if code < 0 else f"exited with status {code}")


def _open_log(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(exist_ok=True, mode=0o700)
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    except OSError as error:
        raise StorageFailed(f"{path} cannot be written: {error.strerror}") from error


def _spawn(log: IO[bytes], files: Sequence[int]) -> subprocess.Popen[bytes]:
    """`files` are descriptors that it shares."""
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "parties.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=computing_environment(),
            pass_fds=files,
            start_new_session=True,  # Ctrl-C reaches the server, which ends its workers
            bufsize=0,
        )
    except OSError as error:
        raise WorkerVanished(f"no worker process can be started: {error.strerror}") from error
