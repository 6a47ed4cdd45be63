"""Sample alignment of three or more parties: which rows have an id that all of them hold, and in which order.

P0 coordinates, and messages travel between it and each other party alone. Each party has a scalar of its own, fresh for
the job. Every list of points passes all parties in turn, so that in the end each point has been multiplied by all.

    0  all      IdCount -> P0; PartySizes <- P0: how many ids each party brings
    1  Pi       blinds its ids in a fresh order: BlindedList -> P0, which hands it on to P(i+1): ListToBlind
    2  P(i+1)   blinds the list again: BlindedList -> P0, and so on for n - 1 laps. P1 shuffles the list of P0 before
    3  P0       has every list as all parties have blinded it: the common ids are the points that stand in each list
    4  P0       CommonPlaces -> Pi: where in its own list they stand, in the order of the points
    5  P1       WhichPlaces <- P0: the same for the list of P0, whose order P1 alone knows; PlacesBefore -> P0

P0 cannot tell of which of its own ids a point is before P1 has answered for the common ones, and the others never see
two lists under the same scalars. So each learns of its own ids which ones all parties have, and nothing of an id that
some have. P0 also learns how many ids any group of parties shares. With `size-only` the steps 4 and 5 are left out, and
P0 tells all how many ids are common: CommonCount.

Who learns what, and what a party that deviates can do: docs/protocols/alignment_of_many.md.
"""

from collections import deque
from collections.abc import Iterator
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from crypto.blinding import BlindingKey, blind_points, check_points, fresh_order, points_of_hashes
from crypto.errors import InvalidPoint
from vfl.alignment_messages import (
    BlindedList,
    CommonCount,
    CommonPlaces,
    IdCount,
    ListToBlind,
    PartySizes,
    PlacesBefore,
    WhichPlaces,
)
from vfl.errors import RemoteProtocolError
from vfl.flow import Flow, gather, receive, send
from vfl.planning.alignment import batches
from vfl.protocols.id_batches import (
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

PLACE_BYTES = "<u4"
Places = NDArray[np.int64]


class _Lists:
    """The list of points that this party has now: its own first, then that of each party before it in turn."""

    def __init__(self, setup: Setup[AlignmentSpec], sizes: tuple[int, ...]) -> None:
        self._setup, self._sizes = setup, sizes
        self._ids, self._key = ids_of(setup), BlindingKey()
        self._index = setup.spec.parties.index(setup.me)
        self.order = fresh_order(len(self._ids.rows))
        self.order_of_first: Places = np.empty(0, np.int64)
        """At P1: where each point of the list of P0 stood before it was shuffled."""
        self.laps, self.batches = len(sizes), max(1, batches(max(sizes)))
        self._held = deque[bytes]()

    def take(self, sender: PartyId, lap: int, batch: int, points: bytes) -> None:
        """A batch of the list that is due in this lap. Raises RemoteProtocolError for another number of points."""
        check_points_due(sender, points, size_of_batch(self._sizes[self.of_lap(lap)], self.batches, batch))
        self._held.append(points)

    def of_lap(self, lap: int) -> int:
        """Whose list it has in this lap."""
        return (self._index - lap) % self.laps

    def blinded(self, lap: int, sender: PartyId) -> Iterator[bytes]:
        """Raises RemoteProtocolError, naming who handed it on, for what is no point or comes twice."""
        if lap == 0:
            hashes = (self._ids.hashes[rows].tobytes() for rows in np.array_split(self.order, self.batches))
            yield from self._setup.pool.map(points_of_hashes, self._key.scalar(), hashes)
            return
        points = as_array(b"".join(self._held))
        if len(np.unique(points)) < len(points):
            raise RemoteProtocolError(f"{sender} sent a point twice")
        if (self._index, self.of_lap(lap)) == (1, 0):
            self.order_of_first = fresh_order(len(points))
            points = points[self.order_of_first]
        self._held.clear()
        try:
            pieces = (part.tobytes() for part in np.array_split(points, self.batches))
            yield from self._setup.pool.map(blind_points, self._key.scalar(), pieces)
        except InvalidPoint as error:
            raise RemoteProtocolError(f"{sender} sent what is no id: {error}") from error

    def rows(self, places: Places) -> NDArray[np.int64]:
        """Of places in the own list as it was sent."""
        return self._ids.rows[self.order[places]]

    def outcome(self, common_ids: int, rows: Places, digest: bytes) -> Outcome:
        counts = {"common_ids": float(common_ids), "own_ids": float(len(self.order))}
        return Outcome(save({"rows": rows}), counts, notices=notices_of(common_ids), result_digest=digest.hex())


def coordinator(setup: Setup[AlignmentSpec]) -> Flow[Outcome]:
    others, rules = setup.spec.peers_of(setup.me), setup.spec.align
    answers = yield from gather(IdCount, others)  # 0
    for party, count in answers.items():
        check_count(party, count.ids, rules)
    sizes = (len(ids_of(setup).rows), *(answers[party].ids for party in others))
    for party in others:
        yield from send(party, PartySizes(sizes))
    lists = _Lists(setup, sizes)
    whole: list[list[bytes]] = [[] for _ in sizes]
    for lap in range(lists.laps):
        for batch, points in enumerate(lists.blinded(lap, others[-1])):
            made = [points]  # 1, 2
            for index, party in enumerate(others, 1):
                message = yield from due(BlindedList, party, batch)
                owner = (index - lap) % lists.laps
                made.append(_checked(setup, party, message, lap, size_of_batch(sizes[owner], lists.batches, batch)))
            if lap < lists.laps - 1:
                lists.take(others[-1], lap + 1, batch, made[-1])
                for party, handed_on in zip(others, made, strict=False):
                    yield from send(party, ListToBlind(lap + 1, batch, handed_on))
            else:
                for index, last in enumerate(made):
                    whole[(index - lap) % lists.laps].append(last)
            yield from tell_progress(lap * lists.batches + batch + 1, lists.laps * lists.batches)
    return (yield from _tell(setup, lists, [b"".join(pieces) for pieces in whole]))


def _tell(setup: Setup[AlignmentSpec], lists: _Lists, whole: list[bytes]) -> Flow[Outcome]:
    others, points = setup.spec.peers_of(setup.me), [as_array(one) for one in whole]
    common = reduce(np.intersect1d, points)  # 3
    if not setup.spec.tells_rows:
        for party in others:
            yield from send(party, CommonCount(len(common)))
        return lists.outcome(len(common), np.empty(0, np.int64), b"")
    digest = digest_of(common)
    places = []
    for one in points:
        by_value = np.argsort(one)
        places.append(by_value[np.searchsorted(one, common, sorter=by_value)].astype(PLACE_BYTES))
    for party, own_places in zip(others, places[1:], strict=True):
        yield from send(party, CommonPlaces(own_places.tobytes(), digest))  # 4
    yield from send(others[0], WhichPlaces(places[0].tobytes()))  # 5
    answer = yield from receive(PlacesBefore, others[0])
    own = _places(others[0], answer.places, len(common), len(lists.order))
    return lists.outcome(len(common), lists.rows(own), digest)


def participant(setup: Setup[AlignmentSpec]) -> Flow[Outcome]:
    first, rules = setup.spec.coordinator, setup.spec.align
    yield from send(first, IdCount(len(ids_of(setup).rows)))  # 0
    sizes = (yield from receive(PartySizes, first)).ids
    index = setup.spec.parties.index(setup.me)
    if len(sizes) != len(setup.spec.parties) or sizes[index] != len(ids_of(setup).rows):
        raise RemoteProtocolError(f"{first} tells another number of ids of {setup.me} than it brings")
    for party, count in zip(setup.spec.parties, sizes, strict=True):
        check_count(party, count, rules)
    lists = _Lists(setup, sizes)
    for lap in range(lists.laps):
        for batch, points in enumerate(lists.blinded(lap, first)):
            yield from send(first, BlindedList(lap, batch, points))  # 1, 2
            if lap < lists.laps - 1:
                message = yield from due(ListToBlind, first, batch)
                if message.lap != lap + 1:
                    raise RemoteProtocolError(f"{first} sent a list of lap {message.lap} in lap {lap + 1}")
                lists.take(first, lap + 1, batch, message.points)
            yield from tell_progress(lap * lists.batches + batch + 1, lists.laps * lists.batches)
    if not setup.spec.tells_rows:
        count = (yield from receive(CommonCount, first)).ids
        return lists.outcome(count, np.empty(0, np.int64), b"")
    answers = yield from receive(CommonPlaces, first)  # 4
    count = len(answers.places) // np.dtype(PLACE_BYTES).itemsize
    own = _places(first, answers.places, count, len(lists.order))
    if index == 1:
        asked = yield from receive(WhichPlaces, first)  # 5
        before = lists.order_of_first[_places(first, asked.places, count, len(lists.order_of_first))]
        yield from send(first, PlacesBefore(before.astype(PLACE_BYTES).tobytes()))
    return lists.outcome(count, lists.rows(own), answers.digest)


def _checked(setup: Setup[AlignmentSpec], party: PartyId, message: BlindedList, lap: int, count: int) -> bytes:
    """What a party has made of its list; it is looked at before it is handed on, so that nobody else is blamed."""
    if message.lap != lap:
        raise RemoteProtocolError(f"{party} sent a list of lap {message.lap} in lap {lap}")
    check_points_due(party, message.points, count)
    try:
        return b"".join(setup.pool.map(check_points, b"", [message.points]))
    except InvalidPoint as error:
        raise RemoteProtocolError(f"{party} sent what is no id: {error}") from error


def _places(peer: PartyId, data: bytes, count: int, size: int) -> Places:
    """Raises RemoteProtocolError unless they are so many different places of a list of this size."""
    width = np.dtype(PLACE_BYTES).itemsize
    places = np.frombuffer(data[: len(data) // width * width], PLACE_BYTES).astype(np.int64)
    if len(data) != count * width or len(np.unique(places)) < count or (places >= size).any():
        raise RemoteProtocolError(f"{peer} did not name {count} different places of a list of {size}")
    return places


ROLES = {AlignmentRole.COORDINATOR: coordinator, AlignmentRole.PARTICIPANT: participant}
