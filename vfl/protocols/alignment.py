"""Sample alignment of two parties: which rows have an id in common, and in which order both will take them.

Both parties play this page. Each has a scalar of its own, fresh for the job; H maps a hash to a point of ristretto255.

    0  both    IdCount: how many ids it brings
    1  both    blind their ids in a fresh order, batch by batch: a H(x); SealedBatch: the digest of each
    2  both    BlindedIds: the batches, each of which must be what was sealed
    3  both    blind the other's points: b a H(x); SealedBatch: the digest of each
    4  both    DoubleBlindedIds: these, each in its place; ShuffledDoubleBlindedIds where only the size is told
    5  both    common are the points that stand among both; their order is the order of their bytes
    6  both    CommonDigest: both hold the same points in the same order

Batches are sealed before any is shown, in step 1 and in step 3: a peer cannot send our own points, or what we have made
of its points, back as its own. Each batch of step 2 holds a control point (crypto/blinding.py), which finds a peer that
answers in another order. In `size-only` the points are shuffled between the steps 2 and 3 over the whole table, so that
nothing tells of which id a common point is; then there is no control.

Who learns what, and what a peer that deviates can do: docs/protocols/alignment.md.
"""

from collections import deque
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from crypto.blinding import (
    POINT_BYTES,
    BlindingKey,
    ControlPoint,
    blind_points,
    check_encodings,
    fresh_order,
    points_of_hashes,
    seal,
)
from crypto.errors import InvalidPoint
from vfl.alignment_messages import (
    BlindedIds,
    CommonDigest,
    DoubleBlindedIds,
    IdCount,
    SealedBatch,
    ShuffledDoubleBlindedIds,
)
from vfl.errors import RemoteProtocolError
from vfl.flow import Flow, receive, send
from vfl.planning.alignment import batches
from vfl.protocols.id_batches import (
    Points,
    as_array,
    check_count,
    check_points_due,
    digest_of,
    due,
    ids_of,
    notices_of,
    size_of_batch,
    tell_progress,
)
from vfl.reports import Outcome
from vfl.setup import Setup
from vfl.spec.alignment import AlignmentRole, AlignmentSpec
from vfl.spec.sections import PartyId

Answer: TypeAlias = DoubleBlindedIds | ShuffledDoubleBlindedIds


def align(setup: Setup[AlignmentSpec]) -> Flow[Outcome]:
    (peer,) = setup.spec.peers_of(setup.me)
    side = _Side(setup, peer, (yield from _exchange_counts(setup, peer)))
    for batch, points in enumerate(side.blinded()):  # 1
        yield from _seal(side, batch, points)
    for batch, points in enumerate(side.shown()):  # 2
        yield from send(peer, BlindedIds(batch, points))
        side.take((yield from due(BlindedIds, peer, batch)))
    side.check_distinct()
    for batch, points in enumerate(side.answers(), side.batches):  # 3
        yield from _seal(side, batch, points)
    answer: type[Answer] = DoubleBlindedIds if setup.spec.tells_rows else ShuffledDoubleBlindedIds
    for batch, points in enumerate(side.answered):  # 4
        yield from send(peer, answer(batch, points))
        side.take_answer((yield from due(answer, peer, batch)))
    rows, common = side.common()  # 5
    digest = digest_of(common)
    yield from send(peer, CommonDigest(digest))  # 6
    if (yield from receive(CommonDigest, peer)).digest != digest:
        raise RemoteProtocolError(f"{peer} found other common ids than {setup.me}, from the same points")
    counts = {"common_ids": float(len(common)), "own_ids": float(len(side.order)), "ids_of_peer": float(side.their_ids)}
    named = digest.hex() if setup.spec.tells_rows else ""
    return Outcome(save({"rows": rows}), counts, notices=notices_of(len(common)), result_digest=named)


def _exchange_counts(setup: Setup[AlignmentSpec], peer: PartyId) -> Flow[int]:
    """How many ids the peer brings."""
    yield from send(peer, IdCount(len(ids_of(setup).rows)))  # 0
    count = (yield from receive(IdCount, peer)).ids
    check_count(peer, count, setup.spec.align)
    return count


def _seal(side: "_Side", batch: int, points: bytes) -> Flow[None]:
    """Both sides seal a batch in every step, also one without points: each is heard of, however little it brings."""
    yield from send(side.peer, SealedBatch(batch, seal(points)))
    side.seals.append((yield from due(SealedBatch, side.peer, batch)).digest)
    yield from tell_progress(batch + 1, 2 * side.batches)


class _Side:
    """This party's points and the peer's, as far as they have come: no list of points is held twice."""

    def __init__(self, setup: Setup[AlignmentSpec], peer: PartyId, their_ids: int) -> None:
        self._setup, self.peer, self.their_ids = setup, peer, their_ids
        self._ids, self._key, self._keeps_places = ids_of(setup), BlindingKey(), setup.spec.tells_rows
        self.order = fresh_order(len(self._ids.rows))
        self.batches = max(1, batches(max(len(self.order), their_ids)))
        self.seals: list[bytes] = []
        self._controls: deque[ControlPoint | None] = deque()
        self._own, self._theirs = deque[bytes](), deque[bytes]()
        self.answered: list[bytes] = []
        self._own_doubles: list[bytes] = []

    def blinded(self) -> Iterator[bytes]:
        """Step 1, as it is sealed and shown."""
        hashes = (self._ids.hashes[rows].tobytes() for rows in np.array_split(self.order, self.batches))
        for points in self._setup.pool.map(points_of_hashes, self._key.scalar(), hashes):
            control = ControlPoint(points) if self._keeps_places and points else None
            self._controls.append(control)
            self._own.append(control.batch if control else points)
            yield self._own[-1]

    def shown(self) -> Iterator[bytes]:
        """Step 2: what is shown is not needed any more."""
        while self._own:
            yield self._own.popleft()

    def take(self, message: BlindedIds) -> None:
        """Raises RemoteProtocolError for points that were not sealed, or are not as many as they must be."""
        ids = size_of_batch(self.their_ids, self.batches, message.batch)
        self._check(message.batch, message.points, ids + (1 if self._keeps_places and ids else 0))
        self._theirs.append(message.points)

    def check_distinct(self) -> None:
        """Raises RemoteProtocolError for a peer that shows a point twice: it would learn of that id twice."""
        points = as_array(b"".join(self._theirs))
        if len(np.unique(points)) < len(points):
            raise RemoteProtocolError(f"{self.peer} sent a point twice")
        if not self._keeps_places:
            shuffled, sizes = points[fresh_order(len(points))], [len(batch) // POINT_BYTES for batch in self._theirs]
            self._theirs = deque(part.tobytes() for part in np.split(shuffled, np.cumsum(sizes)[:-1]))

    def answers(self) -> Iterator[bytes]:
        """Step 3. Raises RemoteProtocolError for what is no point."""
        asked = (self._theirs.popleft() for _ in range(len(self._theirs)))
        try:
            for points in self._setup.pool.map(blind_points, self._key.scalar(), asked):
                self.answered.append(points)
                yield points
        except InvalidPoint as error:
            raise RemoteProtocolError(f"{self.peer} sent what is no id: {error}") from error

    def take_answer(self, message: Answer) -> None:
        """Raises RemoteProtocolError for answers that were not sealed, or cannot be to what was asked."""
        control = self._controls.popleft()
        own = size_of_batch(len(self.order), self.batches, message.batch)
        self._check(self.batches + message.batch, message.points, own + (control is not None))
        try:
            check_encodings(message.points)
            points = control.checked(message.points) if control else message.points
        except InvalidPoint as error:
            raise RemoteProtocolError(f"{self.peer} answered wrongly: {error}") from error
        self._own_doubles.append(points)

    def common(self) -> tuple[NDArray[np.int64], Points]:
        """Step 5: the own rows of the common ids, and their points, both in the order of the points."""
        own, theirs = as_array(b"".join(self._own_doubles)), as_array(b"".join(self.answered))
        if len(np.unique(own)) < len(own):
            raise RemoteProtocolError(f"{self.peer} answered two ids with one point")
        common, places, _ = np.intersect1d(own, theirs, assume_unique=True, return_indices=True)
        rows = self._ids.rows[self.order[places]] if self._keeps_places else np.empty(0, np.int64)
        return rows, common

    def _check(self, sealed: int, points: bytes, count: int) -> None:
        check_points_due(self.peer, points, count)
        if seal(points) != self.seals[sealed]:
            raise RemoteProtocolError(f"{self.peer} sent other points than it had sealed")


ROLES = {AlignmentRole.COORDINATOR: align, AlignmentRole.PARTICIPANT: align}
