"""`python -m parties.worker.child`: a process that does pieces of work for the one that started it, and ends with it.

It is spawned, never forked: an encryption library of the parent hangs after a fork. It is joined to its parent by one
pipe each way, and ends when the pipe does, however the parent ended. It runs functions of a few packages that it is
told by name, and knows nothing else of the job. Pieces and results are bytes; nothing is unpickled.
"""

import importlib
import os
import threading
import traceback
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias

import crypto.errors
from crypto.pieces import KeepingWork, Work
from parties.processes import PARENT_ENDED, close_memory, exit_at_hang_up
from parties.worker.frames import Frame, FrameReader, FrameWriter, take_pipe
from parties.worker.spawned import Spawned, pump

ROOMS = ("crypto.", "vfl.protocols.", "parties.simulation.")
"""Where the functions stand that a child runs."""
BUG = 1
"""Exit code."""


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
        self._process: Spawned[FromChild] = Spawned("parties.worker.child", FromChild, name)
        self.pid = self._process.pid
        self._owed = 0

    def begin(self, work: Work | KeepingWork, shared: bytes, *, keeps: bool = False) -> None:
        """What is still owed of earlier work is dropped: an error has ended it."""
        while self._owed:
            self._process.next_frame()
            self._owed -= 1
        self._process.write(Task(work.__module__, work.__name__, shared, keeps))

    def give(self, piece: bytes) -> None:
        self._owed += 1
        self._process.write(Piece(memoryview(piece)))

    def result(self) -> bytes:
        """Of the first piece whose result has not been taken. Raises what the function raised of `crypto.errors`."""
        self._owed -= 1
        return body_of(self._process.next_frame())

    def close(self) -> None:
        self._process.close()


def body_of(answer: FromChild) -> bytes:
    """Raises what the function raised of `crypto.errors`."""
    match answer:
        case Result(body):
            return body
        case Refused(error, text):
            raise getattr(crypto.errors, error)(text)


def main() -> None:
    close_memory()  # it will hold what its parent holds
    incoming, outgoing = take_pipe()
    exit_at_hang_up(incoming)
    frames: SimpleQueue[ToChild | None] = SimpleQueue()
    reader: FrameReader[ToChild] = FrameReader(incoming, ToChild)
    threading.Thread(target=pump, args=(reader, frames), daemon=True).start()
    writer = FrameWriter(outgoing)
    work: Callable[[bytes], bytes] = _nothing_to_do
    try:
        while (frame := frames.get()) is not None:
            match frame:
                case Task():
                    work = work_of(frame)
                case Piece(body):
                    writer.write(done(work, bytes(body)))
    except BrokenPipeError:
        pass  # whoever wanted the results is gone
    except Exception:  # noqa: BLE001 - a bug stands in the log, and ends this process whatever its threads do
        traceback.print_exc()
        os._exit(BUG)
    os._exit(PARENT_ENDED)


def _nothing_to_do(_: bytes) -> bytes:
    raise ValueError("a piece came before its task")


def work_of(task: Task) -> Callable[[bytes], bytes]:
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


def done(work: Callable[[bytes], bytes], body: bytes) -> FromChild:
    try:
        return Result(work(body))
    except crypto.errors.CryptoError as error:
        return Refused(type(error).__name__, str(error))


if __name__ == "__main__":
    main()
