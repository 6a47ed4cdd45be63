"""A process that this one has spawned to work for it, joined to it by one pipe each way.

Both ends empty their pipe into a queue, so that neither ever waits for the other to read.
"""

import contextlib
import subprocess
import sys
import threading
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import msgspec

from parties.errors import WorkerVanished
from parties.processes import computing_environment
from parties.worker.frames import Frame, FrameReader, FrameWriter

END_SECONDS = 10.0

F = TypeVar("F")


class Spawned(Generic[F]):
    """Raises WorkerVanished where the system starts no further process, and where this one has ended."""

    def __init__(self, module: str, kinds: Any, name: str) -> None:
        """Of frames of these kinds, which it answers with; `name` is what errors call it."""
        self._name = name
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a module of ours
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=computing_environment(),
                start_new_session=True,  # Ctrl-C reaches the parent, which ends its children
                bufsize=0,
            )
        except OSError as error:
            raise WorkerVanished(f"{name} cannot be started: {error.strerror}") from error
        assert self._process.stdin is not None  # noqa: S101 - Popen was given PIPE
        assert self._process.stdout is not None  # noqa: S101
        self.pid = self._process.pid
        self._writer = FrameWriter(self._process.stdin.fileno())
        self._frames: SimpleQueue[F | None] = SimpleQueue()
        reader: FrameReader[F] = FrameReader(self._process.stdout.fileno(), kinds)
        self._pump = threading.Thread(target=pump, args=(reader, self._frames), name=f"from {self.pid}", daemon=True)
        self._pump.start()

    def write(self, frame: Frame) -> None:
        with contextlib.suppress(BrokenPipeError):  # its end is seen when an answer is asked for
            self._writer.write(frame)

    def next_frame(self) -> F:
        frame = self._frames.get()
        if frame is not None:
            return frame
        self._frames.put(None)  # for whoever asks again
        code = self._process.wait(END_SECONDS)
        how = f"was ended by signal {-code}" if code < 0 else f"exited with status {code}"
        raise WorkerVanished(f"{self._name} {how}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._pump.join(END_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def pump(reader: FrameReader[F], into: "SimpleQueue[F | None]") -> None:
    """Empty a pipe into a queue; None comes last."""
    with contextlib.suppress(msgspec.DecodeError, OSError):  # an end that cannot be understood has ended
        while (frame := reader.read()) is not None:
            into.put(frame)
    into.put(None)
