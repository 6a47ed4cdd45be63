"""Rows scored by the label party's own columns alone, in a process that its server starts for them and waits for.

The process is `own_scores_main.py`: it has no job, no peer and no network.
"""

import subprocess
import sys

from parties.errors import WorkerVanished
from parties.processes import computing_environment
from parties.worker.frames import Failed, Finished, Frame, FrameReader, FrameWriter, RawTable
from vfl.errors import ModelUnfit
from vfl.reports import Outcome
from vfl.spec.sections import PartyId


class OwnRows(Frame, frozen=True):
    """To the process, once."""

    spec: bytes
    me: PartyId
    table: RawTable
    model: bytes


def own_scores(asked: OwnRows) -> Outcome:
    """Raises ModelUnfit, WorkerVanished."""
    files = [asked.table.columns] if isinstance(asked.table.columns, int) else []
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "parties.worker.own_scores_main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=computing_environment(),
            pass_fds=files,
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        raise WorkerVanished(f"no process that scores can be started: {error.strerror}") from error
    assert process.stdin is not None  # noqa: S101 - Popen was given PIPE
    assert process.stdout is not None  # noqa: S101
    reader: FrameReader[Finished | Failed] = FrameReader(process.stdout.fileno(), Finished | Failed)
    with process:
        try:
            FrameWriter(process.stdin.fileno()).write(asked)
            answer = reader.read()
        except OSError:
            answer = None
        finally:
            process.kill()
    match answer:
        case Finished(outcome):
            return outcome
        case Failed(code, message, safe, fix) if code == ModelUnfit.code:
            raise ModelUnfit(message, safe=safe, fix=fix)
    raise WorkerVanished(
        "the process that scores has ended without an answer",
        safe="Nothing was stored or sent.",
        fix="See the server's log; with many rows look at the memory of the machine.",
    )
