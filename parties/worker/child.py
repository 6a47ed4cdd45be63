"""`python -m parties.worker.child`: a process that does pieces of work for the one that started it, and ends with it.

It is spawned, never forked: an encryption library of the parent hangs after a fork. It is joined to its parent by one
pipe each way, and ends when the pipe does, however the parent ended. It runs functions of a few packages that it is
told by name, and knows nothing else of the job. Pieces and results are bytes; nothing is unpickled. Both ends empty
their pipe into a queue, so that neither ever waits for the other to read.
"""

import contextlib
import importlib
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

import msgspec

import crypto.errors
from crypto.pieces import KeepingWork, Work
from parties.errors import WorkerVanished
from parties.processes import PARENT_ENDED, close_memory, computing_environment, exit_at_hang_up
from parties.worker.frames import Frame, FrameReader, FrameWriter, take_pipe

ROOMS = ("crypto.", "vfl.protocols.", "parties.simulation.")
"""Where the functions stand that a child runs."""
END_SECONDS = 10.0
BUG = 1
"""Exit code."""

F = TypeVar("F")


class Task(Frame, frozen=True):
    """To the child: what it does with the pieces that follow."""

    module: str
    function: str
    shared: bytes
    keeps: bool
    """Whether the function is KeepingWork."""


class Piece(Frame, frozen=True):
    """To the child."""

    body: memoryview


class Result(Frame, frozen=True):
    """From the child, for each piece."""

    body: bytes


class Refused(Frame, frozen=True):
    """From the child: the function raised an error of `crypto`."""

    error: str
    text: str


ToChild: TypeAlias = Task | Piece
FromChild: TypeAlias = Result | Refused


class Child:
    """Raises WorkerVanished where the system starts no further process, and where this one has ended."""

    def __init__(self, name: str = "a child process of the worker") -> None:
        """`name` is what errors call it."""
        self._name = name
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "parties.worker.child"],
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
        self._owed = 0
        self._writer = FrameWriter(self._process.stdin.fileno())
        self._frames: SimpleQueue[FromChild | None] = SimpleQueue()
        reader: FrameReader[FromChild] = FrameReader(self._process.stdout.fileno(), FromChild)
        self._pump = threading.Thread(target=_pump, args=(reader, self._frames), name=f"from {self.pid}", daemon=True)
        self._pump.start()

    def begin(self, work: Work | KeepingWork, shared: bytes, *, keeps: bool = False) -> None:
        """What is still owed of earlier work is dropped: an error has ended it."""
        while self._owed:
            if self._frames.get() is None:
                self._frames.put(None)  # it has ended, as whoever asks for a result is told
                break
            self._owed -= 1
        self._owed = 0
        self._write(Task(work.__module__, work.__name__, shared, keeps))

    def give(self, piece: bytes) -> None:
        self._owed += 1
        self._write(Piece(memoryview(piece)))

    def result(self) -> bytes:
        """Of the first piece whose result has not been taken. Raises what the function raised of `crypto.errors`."""
        frame = self._frames.get()
        self._owed -= 1
        match frame:
            case Result(body):
                return body
            case Refused(error, text):
                raise getattr(crypto.errors, error)(text)
        self._frames.put(None)  # whoever asks again
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

    def _write(self, frame: Frame) -> None:
        with contextlib.suppress(BrokenPipeError):  # its end is seen when its result is asked for
            self._writer.write(frame)


def _pump(reader: FrameReader[F], into: "SimpleQueue[F | None]") -> None:
    """Empty a pipe into a queue; None comes last."""
    with contextlib.suppress(msgspec.DecodeError, OSError):  # an end that cannot be understood has ended
        while (frame := reader.read()) is not None:
            into.put(frame)
    into.put(None)


def main() -> None:
    close_memory()  # it will hold what its parent holds
    incoming, outgoing = take_pipe()
    exit_at_hang_up(incoming)
    frames: SimpleQueue[ToChild | None] = SimpleQueue()
    reader: FrameReader[ToChild] = FrameReader(incoming, ToChild)
    threading.Thread(target=_pump, args=(reader, frames), daemon=True).start()
    writer = FrameWriter(outgoing)
    work: Callable[[bytes], bytes] = _nothing_to_do
    try:
        while (frame := frames.get()) is not None:
            match frame:
                case Task():
                    work = _work(frame)
                case Piece(body):
                    writer.write(_done(work, bytes(body)))
    except BrokenPipeError:
        pass  # whoever wanted the results is gone
    except Exception:  # noqa: BLE001 - a bug stands in the log, and ends this process whatever its threads do
        traceback.print_exc()
        os._exit(BUG)
    os._exit(PARENT_ENDED)


def _nothing_to_do(_: bytes) -> bytes:
    raise ValueError("a piece came before its task")


def _work(task: Task) -> Callable[[bytes], bytes]:
    """What cannot be prepared fails with the first piece: there is no other answer to a task."""
    try:
        function = _function(task.module, task.function)
        return function(task.shared) if task.keeps else partial(function, task.shared)
    except Exception as error:  # noqa: BLE001 - raised again below
        return partial(_raise, error)


def _raise(error: Exception, _: bytes) -> bytes:
    raise error


def _function(module: str, name: str) -> Any:
    if not module.startswith(ROOMS):
        raise ValueError(f"{module} is in none of {', '.join(ROOMS)}")
    return getattr(importlib.import_module(module), name)


def _done(work: Callable[[bytes], bytes], body: bytes) -> FromChild:
    try:
        return Result(work(body))
    except crypto.errors.CryptoError as error:
        return Refused(type(error).__name__, str(error))


if __name__ == "__main__":
    main()
