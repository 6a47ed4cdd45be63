"""The process that counts and measures for an estimate, as the server sees it: started for one, and waited for."""

import subprocess
import sys
from pathlib import Path

from parties.errors import WorkerVanished
from parties.processes import computing_environment
from parties.worker.frames import Failed, Frame, FrameReader, FrameWriter
from vfl.errors import ImpossibleJob
from vfl.planning.work import Turn
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId


class AskedWork(Frame, frozen=True):
    """To the process, once."""

    spec: bytes
    rows: dict[PartyId, dict[str, int]]
    costs: dict[str, float]
    """Those that are known."""
    folder: str


class Counted(Frame, frozen=True):
    """From the process."""

    turns: tuple[Turn, ...]
    costs: dict[str, float]
    """Those that were not."""


def counted(spec: JobSpec, rows: dict[PartyId, dict[str, int]], costs: dict[str, float], folder: Path) -> Counted:
    """Raises ImpossibleJob, WorkerVanished."""
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "parties.estimates.main"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=computing_environment(),
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        raise WorkerVanished(f"no process that estimates can be started: {error.strerror}") from error
    assert process.stdin is not None  # noqa: S101 - Popen was given PIPE
    assert process.stdout is not None  # noqa: S101
    reader: FrameReader[Counted | Failed] = FrameReader(process.stdout.fileno(), Counted | Failed)
    with process:
        try:
            FrameWriter(process.stdin.fileno()).write(AskedWork(spec.encoded(), rows, costs, str(folder)))
            answer = reader.read()
        except OSError:
            answer = None
        finally:
            process.kill()
    match answer:
        case Counted():
            return answer
        case Failed(code, message, safe, fix) if code:
            raise ImpossibleJob(message, safe=safe, fix=fix)
    raise WorkerVanished(
        "the process that estimates has ended without an answer",
        safe="Nothing was stored or sent.",
        fix="See the server's log.",
    )
