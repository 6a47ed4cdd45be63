"""Work on a Dask cluster of this party's own: the worker's end, and what a Dask worker runs.

The connection is kept by a process of its own (parties.worker.cluster_main), which ends with the worker. So neither the
network nor what Dask deserialises comes near rows and keys that a worker holds: that process is given pieces of work
and nothing else. A secret is never among them (crypto.pieces). What the pieces share travels as a task, so that it is
made again where a Dask worker that held it is gone.
"""

import hashlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

import crypto
import vfl
from crypto.pieces import KeepingWork, Place, Work
from parties.errors import ClusterUnreachable
from parties.worker.child import FromChild, Refused, Task, body_of, done, work_of
from parties.worker.frames import ClusterTerms, Frame
from parties.worker.spawned import Spawned
from vfl.errors import JobError

PIECES_AHEAD = 2
LARGEST_PAYLOAD = 1 << 29
"""Bytes of what is sent to a Dask worker, or comes from it, at once."""
_ONE_AT_A_TIME = threading.Lock()
"""In a Dask worker: files in memory and keys are of a process, and not of its threads."""


class Connect(Frame, frozen=True):
    """To the process, first and once."""

    terms: ClusterTerms


class Together(Frame, frozen=True):
    """To the process: pieces for one Dask worker, which does them in their order."""

    pieces: list[memoryview]


class Connected(Frame, frozen=True):
    """From the process: how many Dask workers there are."""

    workers: int


class Answers(Frame, frozen=True):
    """From the process, for each Together in their order."""

    answers: bytes


class Lost(Frame, frozen=True):
    """From the process: there is no cluster, or none any more."""

    why: str


ToCluster: TypeAlias = Connect | Task | Together
FromCluster: TypeAlias = Connected | Answers | Lost

_ANSWERS: msgspec.msgpack.Decoder[list[FromChild]] = msgspec.msgpack.Decoder(list[FromChild])


class Cluster:
    """Raises ClusterUnreachable, and WorkerVanished where its process has ended."""

    def __init__(self, terms: ClusterTerms) -> None:
        self._process: Spawned[FromCluster] = Spawned(
            "parties.worker.cluster_main", FromCluster, "the process that keeps the connection to the Dask cluster"
        )
        self._owed = 0
        try:
            self._process.write(Connect(terms))
            connected = self._next()
        except JobError:
            self.close()
            raise
        self.workers = connected.workers if isinstance(connected, Connected) else 1

    def map(self, work: Work, shared: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
        self._begin(work, shared, keeps=False)
        for piece in pieces:
            self.give([piece])
            if self._owed > PIECES_AHEAD * self.workers:
                yield from self.results()
        while self._owed:
            yield from self.results()

    def places(self, work: KeepingWork, shared: bytes) -> Sequence[Place]:
        """As many as there are Dask workers. Pieces wait here until the first place is left."""
        self._begin(work, shared, keeps=True)
        places: list[_PlaceOnCluster] = []
        places += [_PlaceOnCluster(self, places) for _ in range(self.workers)]
        return places

    def results(self) -> list[bytes]:
        """Of the first pieces whose results have not been taken. Raises what the work raised of `crypto.errors`."""
        answers = self._next()
        self._owed -= 1
        return [body_of(each) for each in _ANSWERS.decode(answers.answers)] if isinstance(answers, Answers) else []

    def close(self) -> None:
        self._process.close()

    def _begin(self, work: Work | KeepingWork, shared: bytes, *, keeps: bool) -> None:
        while self._owed:  # of work that an error has ended
            self._next()
            self._owed -= 1
        self._process.write(Task(work.__module__, work.__name__, shared, keeps))

    def give(self, pieces: list[bytes]) -> None:
        """To one Dask worker."""
        self._owed += 1
        self._process.write(Together([memoryview(piece) for piece in pieces]))

    def _next(self) -> FromCluster:
        frame = self._process.next_frame()
        if isinstance(frame, Lost):
            raise ClusterUnreachable(frame.why)
        return frame


class _PlaceOnCluster:
    def __init__(self, cluster: Cluster, places: "list[_PlaceOnCluster]") -> None:
        self._cluster, self._places = cluster, places
        self._pieces: list[bytes] = []

    def give(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def results(self) -> list[bytes]:
        """The first that is left starts all, as they are left in their order."""
        for place in self._places:
            if place._pieces:  # noqa: SLF001 - of the same class
                self._cluster.give(place._pieces)  # noqa: SLF001
        self._places.clear()
        return self._cluster.results()


def code_here() -> str:
    """A digest of the code that a Dask worker would run."""
    digest = hashlib.sha256()
    for package in (crypto, vfl):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def same(shared: bytes) -> bytes:
    """What pieces share, as the result of a task."""
    return shared


def work_on(module: str, function: str, shared: bytes, pieces: list[bytes], keeps: bool) -> bytes:  # noqa: FBT001 - by position, through Dask
    """In a Dask worker: the answers to these pieces, up to one that is refused."""
    answers: list[FromChild] = []
    with _ONE_AT_A_TIME:
        work = work_of(Task(module, function, shared, keeps))
        for piece in pieces:
            answers.append(done(work, piece))
            if isinstance(answers[-1], Refused):
                break
    return msgspec.msgpack.encode(answers)
