"""A process that a server starts for one question and waits for: no job, no peer and no network."""

import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

from parties.errors import WorkerVanished
from parties.processes import computing_environment
from parties.worker.frames import Failed, Frame, FrameReader, FrameWriter, take_pipe
from vfl.errors import JobError

Question = TypeVar("Question", bound=Frame)
Answer = TypeVar("Answer", bound=Frame)


def ask(module: str, question: Frame, kind: type[Answer], files: Sequence[int] = ()) -> Answer | Failed | None:
    """What `module` answers, which inherits these files; None where it has ended without an answer.

    Raises WorkerVanished where it cannot be started.
    """
    try:
        process = subprocess.Popen(  # noqa: S603 - a module that this package names
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=computing_environment(),
            pass_fds=files,
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        raise WorkerVanished(f"{module} cannot be started: {error.strerror}") from error
    assert process.stdin is not None  # noqa: S101 - Popen was given PIPE
    assert process.stdout is not None  # noqa: S101
    reader: FrameReader[Answer | Failed] = FrameReader(process.stdout.fileno(), kind | Failed)
    with process:
        try:
            FrameWriter(process.stdin.fileno()).write(question)
            return reader.read()
        except OSError:
            return None
        finally:
            process.kill()


def answer(kind: type[Question], compute: Callable[[Question], Frame]) -> None:
    """The process's own end: one question, its answer or why there is none, and the end."""
    incoming, outgoing = take_pipe()
    reader: FrameReader[Question] = FrameReader(incoming, kind)
    if (question := reader.read()) is not None:
        FrameWriter(outgoing).write(_answered(question, compute))


def _answered(question: Question, compute: Callable[[Question], Frame]) -> Frame:
    try:
        return compute(question)
    except JobError as error:
        return Failed(error.code, str(error), error.safe, error.fix)
    except Exception:  # noqa: BLE001 - a bug is told, and its traceback stands in the server's log
        traceback.print_exc()
        return Failed("", "", "", "")
