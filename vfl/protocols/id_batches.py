"""What alignments of two and of more parties share: ids as batches of points, and what is refused of a peer's."""

import hashlib
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from crypto.blinding import POINT_BYTES
from vfl.errors import LocalProtocolError, RemoteProtocolError
from vfl.flow import Flow, receive, report
from vfl.ids import HashedIds
from vfl.message import Message
from vfl.notices import Notice
from vfl.planning.alignment import STEPS
from vfl.reports import StepDone
from vfl.setup import Setup
from vfl.spec.alignment import AlignmentSpec
from vfl.spec.sections import IdRules, PartyId

Points = NDArray[np.bytes_]
"""As numpy compares them: byte by byte."""

Batch = TypeVar("Batch", bound=Message)


def ids_of(setup: Setup[AlignmentSpec]) -> HashedIds:
    if setup.table.ids is None:
        raise LocalProtocolError(f"{setup.me} brought no ids")
    return setup.table.ids


def check_count(peer: PartyId, ids: int, rules: IdRules) -> None:
    """Raises RemoteProtocolError where a party brings fewer or more ids than was agreed."""
    if not rules.minimum_ids <= ids <= rules.maximum_ids:
        raise RemoteProtocolError(
            f"{peer} brings {ids} ids; the specification asks for {rules.minimum_ids} to {rules.maximum_ids}"
        )


def due(kind: type[Batch], peer: PartyId, batch: int) -> Flow[Batch]:
    """The peer's batch of this number. Raises RemoteProtocolError for any other message, and for another batch."""
    message = yield from receive(kind, peer)
    number = getattr(message, "batch", None)
    if number != batch:
        raise RemoteProtocolError(f"{peer} sent batch {number} of {kind.__name__} where batch {batch} was due")
    return message


def size_of_batch(ids: int, batches: int, batch: int) -> int:
    """As many as this part of `np.array_split` has."""
    least, more = divmod(ids, batches)
    return least + (batch < more)


def check_points_due(peer: PartyId, points: bytes, count: int) -> None:
    """Raises RemoteProtocolError."""
    if len(points) != count * POINT_BYTES:
        raise RemoteProtocolError(f"{peer} sent {len(points)} bytes where {count} points of {POINT_BYTES} were due")


def as_array(points: bytes) -> Points:
    return np.frombuffer(points, f"S{POINT_BYTES}")


def digest_of(common: Points) -> bytes:
    """By which a later job names the result."""
    return hashlib.sha256(b"vfl common points\0" + common.tobytes()).digest()


def notices_of(common_ids: int) -> list[Notice]:
    """For this party's operator."""
    if common_ids:
        return []
    text = (
        "no id is common to all parties: either they know no one in common, or they write their ids in different ways; "
        "the notices about ids say how this party's look"
    )
    return [Notice("warning", "no_common_ids", text)]


def tell_progress(step: int, steps: int) -> Flow[None]:
    """In hundredths, when another one is over."""
    if STEPS * step // steps > STEPS * (step - 1) // steps:
        yield from report(StepDone(STEPS * step // steps, STEPS, 0))
