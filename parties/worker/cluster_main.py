"""`python -m parties.worker.cluster_main`: keeps a worker's connection to a Dask cluster, and ends with the worker.

The only place that knows Dask. It holds pieces of work, and no key of the job. The connection is TLS with certificates
on both sides, as the cluster's own security settings ask for.
"""

import os
import threading
from queue import SimpleQueue
from typing import Any

from parties.processes import PARENT_ENDED, close_memory, exit_at_hang_up
from parties.worker.child import Task
from parties.worker.cluster import (
    LARGEST_PAYLOAD,
    Answers,
    Connect,
    Connected,
    Lost,
    ToCluster,
    Together,
    code_here,
    same,
    work_on,
)
from parties.worker.frames import ClusterTerms, FrameReader, FrameWriter, take_pipe

CONNECT_SECONDS = 10


def main() -> None:
    close_memory()
    incoming, outgoing = take_pipe()
    exit_at_hang_up(incoming)
    reader: FrameReader[ToCluster] = FrameReader(incoming, ToCluster)
    writer = FrameWriter(outgoing)
    start = reader.read()
    if not isinstance(start, Connect):
        os._exit(PARENT_ENDED)
    try:
        client = _connected(start.terms)
        writer.write(Connected(_workers(client)))
        futures: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=_submit, args=(client, reader, futures), daemon=True).start()
        while True:
            writer.write(Answers(_checked(futures.get().result())))
    except BrokenPipeError:
        pass
    except Exception as error:  # noqa: BLE001 - whatever Dask raises is told, and ends the work
        writer.write(Lost(f"{type(error).__name__}: {error}"))
    os._exit(PARENT_ENDED)


def _connected(terms: ClusterTerms) -> Any:
    import distributed  # noqa: PLC0415 - of the extra `cluster`

    dask: Any = distributed  # it is typed in part
    security = dask.Security(
        tls_ca_file=terms.ca, tls_client_cert=terms.certificate, tls_client_key=terms.key, require_encryption=True
    )
    return dask.Client(terms.scheduler, security=security, timeout=CONNECT_SECONDS, set_as_default=False)


def _workers(client: Any) -> int:
    """Their number. Raises ValueError where there is none, or one runs another release of this software."""
    codes = client.run(code_here)
    if not codes:
        raise ValueError("the cluster has no workers")
    if set(codes.values()) != {code_here()}:
        raise ValueError("its workers run another release of this software")
    return len(codes)


def _submit(client: Any, reader: FrameReader[ToCluster], futures: "SimpleQueue[Any]") -> None:
    task, shared = Task("", "", b"", keeps=False), None
    while (frame := reader.read()) is not None:
        match frame:
            case Task():
                task, shared = frame, client.submit(same, _checked(frame.shared), pure=False)
            case Together(pieces):
                bodies = [_checked(bytes(piece)) for piece in pieces]
                futures.put(client.submit(work_on, task.module, task.function, shared, bodies, task.keeps, pure=False))
            case Connect():
                break
    os._exit(PARENT_ENDED)


def _checked(payload: object) -> bytes:
    """Payloads are byte strings of a bounded size."""
    if not isinstance(payload, bytes) or len(payload) > LARGEST_PAYLOAD:
        raise ValueError(f"a payload is no byte string of at most {LARGEST_PAYLOAD} bytes")
    return payload


if __name__ == "__main__":
    main()
