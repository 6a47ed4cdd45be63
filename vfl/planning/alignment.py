"""What an alignment will do, worked out from its specification before it runs; loads no cryptography."""

from typing import Final

from vfl.alignment_messages import (
    BlindedIds,
    BlindedList,
    CommonPlaces,
    DoubleBlindedIds,
    ListToBlind,
    PlacesBefore,
    ShuffledDoubleBlindedIds,
    WhichPlaces,
)
from vfl.errors import ImpossibleJob
from vfl.message import Grain, Message
from vfl.planning.plan import Plan, RevealLine
from vfl.routes import routes_of_alignment
from vfl.spec.alignment import BATCH_IDS, AlignmentSpec
from vfl.spec.sections import PartyId

POINT_BYTES, PLACE_BYTES, HASH_BYTES = 32, 4, 64
SECURITY_BITS: Final = 125
"""Of ristretto255: half the bits of its order, which is what a discrete logarithm in it takes."""
STEPS: Final = 100
"""Progress is told in hundredths: how many batches there are depends on the peer's ids too."""


def plan(spec: AlignmentSpec, me: PartyId, rows: int) -> Plan:
    """`rows` are the ids of `me`. Raises ImpossibleJob."""
    rules = spec.align
    if rows > rules.maximum_ids:
        raise ImpossibleJob(
            f"{me} brings {rows} ids, more than align.maximum_ids = {rules.maximum_ids}",
            fix="Raise align.maximum_ids; every party then learns of as many ids of its own whether another has them.",
        )
    lines = []
    for route in routes_of_alignment(spec):
        revealed = _told(spec, route.message)
        peers = spec.parties[1:2] if route.message in {WhichPlaces, PlacesBefore} else spec.parties[1:]
        for peer in peers:
            players = {spec.role_of(party): party for party in (spec.coordinator, peer)}
            lines.append(RevealLine.of(route, players, *revealed))
    return Plan(rows=rows, training_rows=rows, test_rows=0, steps=STEPS, reveals=tuple(lines))


def _told(spec: AlignmentSpec, message: type[Message]) -> tuple[int, int]:
    """How many values of this kind, and in how many messages."""
    most = spec.align.maximum_ids
    in_batches = {
        DoubleBlindedIds: batches(most),
        ShuffledDoubleBlindedIds: batches(most),
        BlindedList: batches(most) * len(spec.parties),
    }
    match message.reveals.grain:
        case Grain.NOTHING:
            return 0, 0
        case Grain.ROW:
            return most, in_batches.get(message, 1)
        case _:
            return 1, in_batches.get(message, 1)


def largest_messages(spec: AlignmentSpec) -> dict[str, int]:
    """Payload bytes of one message at most, by kind."""
    of_points = (BlindedIds, DoubleBlindedIds, ShuffledDoubleBlindedIds, BlindedList, ListToBlind)
    of_places = (CommonPlaces, WhichPlaces, PlacesBefore)
    points = dict.fromkeys((message.kind() for message in of_points), POINT_BYTES * (BATCH_IDS + 1))
    return points | dict.fromkeys((message.kind() for message in of_places), PLACE_BYTES * spec.align.maximum_ids)


def memory_bytes(spec: AlignmentSpec, ids: int) -> int:
    """Hashes, and the points of every list: once as they came and once as they were multiplied."""
    return ids * (HASH_BYTES + 2 * POINT_BYTES * (len(spec.parties) + 1))


def batches(ids: int) -> int:
    """In how many messages the points of so many ids travel."""
    return -(-ids // BATCH_IDS)
