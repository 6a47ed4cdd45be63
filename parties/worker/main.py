"""The worker process of one job: `python -m parties.worker`, spawned by the supervisor, joined to it by one pipe.

It has rows and tensors and the job's secret key; it has no network, no database and no settings. When its pipe closes
it exits at once, wherever its role stands.
"""

import os
import queue
import runpy
import threading
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from parties.processes import PARENT_ENDED, close_memory, exit_at_hang_up, loading
from parties.worker.frames import (
    Delivered,
    Failed,
    Finished,
    FrameReader,
    FrameWriter,
    Left,
    NoMoreRequests,
    RawIds,
    RawTable,
    Requested,
    Returned,
    Start,
    ToWorker,
    take_pipe,
)
from parties.worker.mapped_rows import release
from parties.worker.pool import WorkPool
from parties.worker.runner import Inboxes, run
from parties.worker.transcripts import Transcripts
from vfl.errors import InvalidBottom, JobError, RemoteProtocolError
from vfl.ids import HASH_BYTES, HashedIds
from vfl.kinds import decode_spec, flow_of
from vfl.requests import ScoreRequest
from vfl.setup import Setup, Table


def main() -> None:
    os.umask(0o077)
    close_memory()  # it will hold rows and the secret key
    incoming, outgoing = take_pipe()
    exit_at_hang_up(incoming)
    reader: FrameReader[ToWorker] = FrameReader(incoming, ToWorker)
    writer = FrameWriter(outgoing)
    start = reader.read()
    if not isinstance(start, Start):
        os._exit(PARENT_ENDED)
    try:
        writer.write(_work(start, reader, writer))
    except OSError:
        os._exit(PARENT_ENDED)


def _work(start: Start, reader: FrameReader[ToWorker], writer: FrameWriter) -> Finished | Failed:
    pool = WorkPool(start.pool.processes, cluster=start.pool.cluster)
    try:
        spec = decode_spec(start.spec)
        tables = {use: table_of(raw) for use, raw in start.tables.items()}
        bottom = load_bottom(start.bottom) if start.bottom and spec.private_bottom else None
        setup: Setup[Any] = Setup(
            spec,
            start.me,
            tables,
            start.joint_seed,
            start.private_seed,
            bottom=bottom,
            model=start.model,
            pool=pool,
            saved=start.saved,
        )
        transcripts = Transcripts(start.me, spec.peers_of(start.me), start.transcripts) if spec.resumes else None
        inboxes = Inboxes(spec.peers_of(start.me), spec.required_parties, transcripts)
        requests: queue.SimpleQueue[ScoreRequest | None] = queue.SimpleQueue()
        threading.Thread(target=_receive, args=(reader, inboxes, requests), daemon=True).start()
        with loading():  # torch and SEAL come with the role that needs them
            flow = flow_of(setup)
        return Finished(run(flow, inboxes, writer, partial(_release_all, tables), requests, transcripts))
    except RemoteProtocolError as error:
        return Failed(error.code, str(error), error.safe, error.fix, error.peer)
    except JobError as error:
        return Failed(error.code, str(error), error.safe, error.fix)
    except BrokenPipeError:
        raise
    except Exception:  # noqa: BLE001 - whatever a role can raise ends as a named failure of its job
        traceback.print_exc()
        return Failed("", "", "", "")
    finally:
        pool.close()


def _release_all(tables: Mapping[str, Table]) -> None:
    for table in tables.values():
        table.release()


def table_of(raw: RawTable) -> Table:
    columns = raw.matrix
    return Table(
        ids_digest=raw.ids_digest,
        columns=columns,
        release=partial(release, columns),
        labels=None if raw.labels is None else np.frombuffer(raw.labels, np.float64),
        classes=raw.classes,
        ids=None if raw.ids is None else _hashed_ids(raw.ids),
        words=raw.words,
        split_keys=None if raw.split_keys is None else np.frombuffer(raw.split_keys, np.float64),
    )


def _hashed_ids(raw: RawIds) -> HashedIds:
    hashes = np.frombuffer(raw.hashes, np.uint8).reshape(-1, HASH_BYTES)
    return HashedIds(hashes, np.frombuffer(raw.rows, np.int64))


def load_bottom(module: str) -> Callable[[int, int], Any]:
    """The function `FILE.py:FUNCTION` names: this party's own code, run in this party's own worker.

    Raises InvalidBottom when the file cannot be run or has no such function.
    """
    path, _, name = module.rpartition(":")
    try:
        attribute = runpy.run_path(path)[name]
    except Exception as error:
        raise InvalidBottom(f"the bottom module {module} cannot be loaded: {type(error).__name__}: {error}") from error
    if not callable(attribute):
        raise InvalidBottom(f"the bottom module {module} cannot be loaded: {name} is not a function")
    function: Callable[[int, int], Any] = attribute
    return function


def _receive(
    reader: FrameReader[ToWorker], inboxes: Inboxes, requests: "queue.SimpleQueue[ScoreRequest | None]"
) -> None:
    while True:
        match reader.read():
            case Delivered() as delivered:
                inboxes.put(delivered)
            case Left(peer):
                inboxes.leave(peer)
            case Returned(peer):
                inboxes.start_afresh(peer)
            case Requested(request):
                requests.put(request)
            case NoMoreRequests():
                requests.put(None)
            case _:
                os._exit(PARENT_ENDED)
