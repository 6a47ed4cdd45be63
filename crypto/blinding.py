"""Hashes as points of ristretto255 (RFC 9496), multiplied by a secret scalar: a point that two parties have blinded is
the same whoever came first, and nobody who lacks a scalar can tell it from a random one.

Private set intersection after Huberman, Franklin and Hogg (1999) rests on this. Points come from a peer, so each is
decoded canonically, and the identity, which libsodium takes for a valid point, is refused. All functions that work on
many points take and give them as one string of 32 bytes each: they run in other processes too.
"""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from typing import Final, NoReturn

import numpy as np
import rbcl
from numpy.typing import NDArray
from rbcl._sodium import lib_path

from crypto.errors import InvalidPoint
from crypto.pieces import SecretBytes

POINT_BYTES: Final = 32
HASH_BYTES: Final = 64
"""Of a hash from which a point is made: as many uniform bytes as RFC 9496, section 4.3.4, asks for."""
CONTROL_SHARE: Final = 64
"""One of so many points of a batch enters its control point, and of a small batch so many as below."""
CONTROL_POINTS: Final = 32
_IDENTITY: Final = bytes(POINT_BYTES)

with contextlib.suppress(OSError):
    os.unlink(lib_path)  # noqa: PTH108 - no files in this package; rbcl writes libsodium to a file, loads it, and would leave the file for ever


class BlindingKey:
    """A scalar drawn from the operating system, for one run. It neither prints nor pickles."""

    __slots__ = ("_scalar",)

    def __init__(self) -> None:
        self._scalar: bytes = rbcl.crypto_core_ristretto255_scalar_random()

    def scalar(self) -> SecretBytes:
        """For the functions below, also in child processes of the one that drew it."""
        return SecretBytes(self._scalar)

    def multiple_of(self, point: bytes) -> bytes:
        """Raises RuntimeError or TypeError where libsodium knows none."""
        multiple: bytes = rbcl.crypto_scalarmult_ristretto255(self._scalar, point)
        return multiple

    def __reduce__(self) -> NoReturn:
        raise TypeError("a blinding key stays in its process")


def points_of_hashes(scalar: bytes, hashes: bytes) -> bytes:
    """The blinded point of each hash of 64 bytes."""
    pieces = (hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES))
    multiply, to_point = rbcl.crypto_scalarmult_ristretto255, rbcl.crypto_core_ristretto255_from_hash
    return b"".join(multiply(scalar, to_point(piece)) for piece in pieces)


def blind_points(scalar: bytes, points: bytes) -> bytes:
    """A peer's points, each multiplied. Raises InvalidPoint."""
    multiply = rbcl.crypto_scalarmult_ristretto255
    try:
        return b"".join(multiply(scalar, point) for point in split(points))
    except (RuntimeError, TypeError) as error:  # what it cannot decode, and the identity
        check_points(b"", points)
        raise InvalidPoint("a point cannot be multiplied") from error


def check_points(_: bytes, points: bytes) -> bytes:
    """The same points. Raises InvalidPoint for one that is no canonical encoding, or the identity."""
    is_valid = rbcl.crypto_core_ristretto255_is_valid_point
    for number, point in enumerate(split(points), 1):
        if point == _IDENTITY:
            raise InvalidPoint(f"point {number} of the batch is the identity")
        if not is_valid(point):
            raise InvalidPoint(f"point {number} of the batch is not the canonical encoding of a point")
    return points


def check_encodings(points: bytes) -> None:
    """Much faster: raises InvalidPoint for the identity, a negative number and one beyond the field, and decodes none.

    Enough for points that are only compared with points of one's own.
    """
    rows = np.frombuffer(points, np.uint8).reshape(-1, POINT_BYTES)
    beyond = (rows[:, 1:31] == 0xFF).all(1) & (rows[:, 31] == 0x7F) & (rows[:, 0] >= 0xED)
    wrong = ~rows.any(1) | (rows[:, 0] & 1).astype(bool) | (rows[:, 31] >> 7).astype(bool) | beyond
    if wrong.any():
        check_points(b"", points[POINT_BYTES * int(wrong.argmax()) :][:POINT_BYTES])


def split(points: bytes) -> list[bytes]:
    """Raises InvalidPoint where they are not a whole number of points."""
    if len(points) % POINT_BYTES:
        raise InvalidPoint(f"{len(points)} bytes are not a whole number of points")
    return [points[at : at + POINT_BYTES] for at in range(0, len(points), POINT_BYTES)]


def seal(points: bytes) -> bytes:
    """A digest that fixes a batch before it is shown. Points are too random to be guessed from it."""
    return hashlib.sha256(b"vfl sealed batch\0" + points).digest()


def fresh_order(count: int) -> NDArray[np.int64]:
    """A permutation from the operating system's entropy."""
    words = np.frombuffer(os.urandom(8 * count), "<u8")
    return np.argsort(words, kind="stable").astype(np.int64)


class ControlPoint:
    """One more point in a batch, by which its sender sees whether each point was multiplied in its place.

    It is a secret multiple of the sum of a few secret points of the batch, at a secret place. What a peer makes of it
    must be the same multiple of the same sum of what it makes of those points; a peer that answers in another order, or
    with other points, does not know which they are.
    """

    def __init__(self, points: bytes) -> None:
        whole = split(points)
        order = fresh_order(len(whole))
        self._summed = [int(at) for at in order[: max(CONTROL_POINTS, len(whole) // CONTROL_SHARE)]]
        self._place = int.from_bytes(os.urandom(8), "little") % (len(whole) + 1)
        self._key = BlindingKey()
        whole.insert(self._place, self._multiple_of_sum(whole))
        self.batch = b"".join(whole)
        """The points with the control point among them."""

    def checked(self, answers: bytes) -> bytes:
        """The answers without the control point's. Raises InvalidPoint where they do not fit together."""
        whole = split(answers)
        control = whole.pop(self._place)
        check_points(b"", b"".join(whole[at] for at in self._summed))
        if self._multiple_of_sum(whole) != control:
            raise InvalidPoint("its points were not all multiplied by one scalar, each in its place")
        return b"".join(whole)

    def _multiple_of_sum(self, whole: Sequence[bytes]) -> bytes:
        total = whole[self._summed[0]]
        for at in self._summed[1:]:
            total = rbcl.crypto_core_ristretto255_add(total, whole[at])
        try:
            return self._key.multiple_of(total)
        except (RuntimeError, TypeError) as error:
            raise InvalidPoint("its points add up to the identity") from error
