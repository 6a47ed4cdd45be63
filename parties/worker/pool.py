"""The pool of a worker: heavy work is done in the worker until it has proved heavy, then by child processes.

Results do not depend on where a piece is done (crypto.pieces), so it may depend on time: a job of a second starts no
process, and one of an hour has all of them after a moment. Where party.toml names a Dask cluster, heavy work that needs
no secret is done there.
"""

import itertools
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from crypto.pieces import HERE, KeepingWork, Place, SecretBytes, Shared, Work, revealed
from parties.worker.child import Child
from parties.worker.cluster import Cluster
from parties.worker.frames import ClusterTerms

START_SECONDS = 2.0
"""Of work in this process, before children are started: about what starting them costs."""
PIECES_AHEAD = 2
"""What a child is given before its first result is taken, so that it need not wait for the next piece."""


class WorkPool:
    """Not safe for several threads."""

    def __init__(
        self, size: int = 0, start_seconds: float = START_SECONDS, cluster: ClusterTerms | None = None
    ) -> None:
        """`size` is the number of processes that work; by default, as many as this one may use cores."""
        self._size, self._terms = size or cores(), cluster
        self._cluster: Cluster | None = None
        self._start_seconds = start_seconds
        self._worked_seconds = 0.0
        self._children: list[Child] = []

    def map(self, work: Work, shared: Shared, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """As `Pool.map`. Raises what the work raised of `crypto.errors`, WorkerVanished or ClusterUnreachable."""
        rest = iter(pieces)
        while not self._is_heavy(shared):
            began = time.monotonic()
            result = list(HERE.map(work, shared, itertools.islice(rest, 1)))
            self._worked_seconds += time.monotonic() - began
            if not result:
                return
            yield from result
        if not self._may_leave(shared):
            yield from _mapped(self._started(), work, shared, rest)
        elif (first := next(rest, None)) is not None:
            yield from self._connected().map(work, revealed(shared), itertools.chain([first], rest))

    def places(self, work: KeepingWork, shared: Shared) -> Sequence[Place]:
        """As `Pool.places`. Raises what the work raised of `crypto.errors`, WorkerVanished or ClusterUnreachable."""
        if not self._is_heavy(shared):
            return [_TimedPlace(place, self) for place in HERE.places(work, shared)]
        if self._may_leave(shared):
            return self._connected().places(work, revealed(shared))
        for child in self._started():
            child.begin(work, revealed(shared), keeps=True)
        return [_PlaceOfChild(child) for child in self._children]

    @property
    def pids(self) -> list[int]:
        """Of the children that run."""
        return [child.pid for child in self._children]

    def worked(self, seconds: float) -> None:
        """In this process."""
        self._worked_seconds += seconds

    def close(self) -> None:
        for child in self._children:
            child.close()
        self._children.clear()
        if self._cluster is not None:
            self._cluster.close()
        self._cluster = None

    def _is_heavy(self, shared: Shared) -> bool:
        spreads = self._size > 1 or self._may_leave(shared)
        return spreads and self._worked_seconds >= self._start_seconds

    def _may_leave(self, shared: Shared) -> bool:
        """For the cluster: a secret stays on its machine."""
        return self._terms is not None and not isinstance(shared, SecretBytes)

    def _connected(self) -> Cluster:
        if self._cluster is None and self._terms is not None:
            self._cluster = Cluster(self._terms)
        assert self._cluster is not None  # noqa: S101 - only work that may leave comes here
        return self._cluster

    def _started(self) -> list[Child]:
        while len(self._children) < self._size:
            self._children.append(Child())
        return self._children


def _mapped(children: Sequence[Child], work: Work, shared: Shared, pieces: Iterator[bytes]) -> Iterator[bytes]:
    busy: deque[Child] = deque()
    asked: set[Child] = set()
    # In turn, so that results come in the order of the pieces.
    for piece, child in zip(pieces, itertools.cycle(children), strict=False):
        if child not in asked:
            asked.add(child)
            child.begin(work, revealed(shared))
        child.give(piece)
        busy.append(child)
        if len(busy) == PIECES_AHEAD * len(children):
            yield busy.popleft().result()
    while busy:
        yield busy.popleft().result()


class _TimedPlace:
    def __init__(self, place: Place, pool: WorkPool) -> None:
        self._place, self._pool = place, pool

    def give(self, piece: bytes) -> None:
        began = time.monotonic()
        self._place.give(piece)
        self._pool.worked(time.monotonic() - began)

    def results(self) -> list[bytes]:
        return self._place.results()


class _PlaceOfChild:
    def __init__(self, child: Child) -> None:
        self._child, self._owed = child, 0
        self._results: list[bytes] = []

    def give(self, piece: bytes) -> None:
        """Waits while the child has enough to do: it would hold whatever it is given."""
        self._child.give(piece)
        self._owed += 1
        while self._owed > PIECES_AHEAD:
            self._take()

    def results(self) -> list[bytes]:
        while self._owed:
            self._take()
        return self._results

    def _take(self) -> None:
        self._results.append(self._child.result())
        self._owed -= 1


def cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
