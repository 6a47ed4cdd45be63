"""`python -m parties.worker.pool`: child processes of a worker, which share work that needs no other state.

A child is spawned, never forked, and joined to its worker by one pipe each way; it ends when the pipe does, however the
worker ended. It runs functions of `crypto` that it is told by name, on one piece at a time, and knows nothing else of
the job. Pieces and results are bytes; nothing is unpickled.
"""

import contextlib
import importlib
import itertools
import os
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import crypto.errors
from parties.errors import WorkerVanished
from parties.processes import PARENT_ENDED, close_memory, computing_environment, exit_at_hang_up
from parties.worker.frames import Frame, FrameReader, FrameWriter, take_pipe
from vfl.setup import Work

ROOM = "crypto."
"""Where the functions stand that a child runs."""


class Task(Frame, frozen=True):
    """To the child: what it does with the pieces that follow."""

    module: str
    function: str
    shared: bytes


class Piece(Frame, frozen=True):
    """To the child."""

    body: bytes


class Result(Frame, frozen=True):
    """From the child, for each piece."""

    body: bytes


class Refused(Frame, frozen=True):
    """From the child: the function raised an error of `crypto`; an empty name is a bug, and stands in the log."""

    error: str
    text: str


ToChild: TypeAlias = Task | Piece
FromChild: TypeAlias = Result | Refused


class WorkPool:
    """Started when it is first used. Not safe for several threads."""

    def __init__(self, size: int = 0) -> None:
        """`size` is the number of children; by default, as many as this process may use cores."""
        self._size = size or _cores()
        self._children: list[_Child] = []

    def map(self, work: Work, shared: bytes, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The results in the order of the pieces, each made while those before it are looked at.

        Raises what the function raised of `crypto.errors`, or WorkerVanished.
        """
        while len(self._children) < self._size:
            self._children.append(_Child())
        for child in self._children:
            child.give(Task(work.__module__, work.__name__, shared))
        busy: deque[_Child] = deque()
        # A child has one piece at a time: two could fill both of its pipes, and each end would wait for the other.
        for piece, child in zip(pieces, itertools.cycle(self._children), strict=False):
            result = busy.popleft().result() if len(busy) == self._size else None
            child.give(Piece(piece))
            busy.append(child)
            if result is not None:
                yield result
        while busy:
            yield busy.popleft().result()

    def close(self) -> None:
        for child in self._children:
            child.close()
        self._children.clear()


class _Child:
    def __init__(self) -> None:
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "parties.worker.pool"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=computing_environment(),
                bufsize=0,
            )
        except OSError as error:
            raise WorkerVanished(f"no child process of the worker can be started: {error.strerror}") from error
        assert self._process.stdin is not None  # noqa: S101 - Popen was given PIPE
        assert self._process.stdout is not None  # noqa: S101
        self._writer = FrameWriter(self._process.stdin.fileno())
        self._reader: FrameReader[FromChild] = FrameReader(self._process.stdout.fileno(), FromChild)

    def give(self, frame: Frame) -> None:
        with contextlib.suppress(BrokenPipeError):  # its end is seen when its result is asked for
            self._writer.write(frame)

    def result(self) -> bytes:
        match self._reader.read():
            case Result(body):
                return body
            case Refused(error, text) if error:
                raise getattr(crypto.errors, error)(text)
        raise WorkerVanished("a child process of the worker has ended")

    def close(self) -> None:
        with self._process:
            self._process.kill()


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def main() -> None:
    close_memory()  # it will hold what its worker holds
    incoming, outgoing = take_pipe()
    exit_at_hang_up(incoming)
    reader: FrameReader[ToChild] = FrameReader(incoming, ToChild)
    writer = FrameWriter(outgoing)
    work, shared = None, b""
    while (frame := reader.read()) is not None:
        match frame:
            case Task(module, function, shared):
                work = _function(module, function)
            case Piece(body):
                writer.write(_done(work, shared, body))
    os._exit(PARENT_ENDED)


def _function(module: str, name: str) -> Work:
    if not module.startswith(ROOM):
        raise ValueError(f"{module} is not a module of {ROOM}")
    function: Work = getattr(importlib.import_module(module), name)
    return function


def _done(work: Work | None, shared: bytes, body: bytes) -> FromChild:
    try:
        return Refused("", "") if work is None else Result(work(shared, body))
    except crypto.errors.CryptoError as error:
        return Refused(type(error).__name__, str(error))
    except Exception:  # noqa: BLE001 - a bug is told, and its traceback stands in the worker's log
        traceback.print_exc()
        return Refused("", "")


if __name__ == "__main__":
    main()
