"""The one interface of every codec (R3.8), and what a received body may hold."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vfl.errors import Diverged

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Body = bytes | memoryview

LARGEST = 1e30
"""No honest parameter comes near it, and below it no step of any decoder overflows."""


class InvalidBody(Exception):
    """A received body is not what its sender agreed to send. The text says what is wrong with it."""


class Encode(Protocol):
    def __call__(self, values: Floats, bits: int, seed: bytes, *, unbiased: bool) -> bytes: ...


@dataclass(frozen=True)
class Codec:
    """Plain functions on one float32 vector. All randomness follows from `seed`, which both sides know."""

    encode: Encode
    """`unbiased`: the mean of many decodes is the input; otherwise the squared error of one is least.
    Raises Diverged if a value is not finite or beyond LARGEST."""
    decode: Callable[[Body, int, int, bytes], Floats]
    """(body, count, bits, seed) -> `count` values. Raises InvalidBody, and allocates by `count` and `bits` alone."""
    body_bytes: Callable[[int, int], int]
    """(count, bits) -> the exact length of a body."""
    stated_error: Callable[[int, bool], float | None]
    """(bits, unbiased) -> expected |decoded - input|^2 / |input|^2; None where it depends on the input."""
    widths: range
    """The `bits` it takes."""


def sendable(values: Floats) -> Floats:
    """The values, or Diverged."""
    if not _largest(values) <= LARGEST:
        raise Diverged("the parameters to send are not finite")
    return values


def received(values: NDArray[Any], what: str) -> NDArray[Any]:
    """The values, or InvalidBody."""
    if not _largest(values) <= LARGEST:
        raise InvalidBody(f"the {what} of the body are not finite")
    return values


def _largest(values: NDArray[Any]) -> float:
    """The largest magnitude, or NaN if there is one; without an array of magnitudes."""
    return max(float(values.max(initial=0)), -float(values.min(initial=0)))


def exactly(body: Body, expected: int) -> Bytes:
    """The body as an array of bytes, without a copy; InvalidBody if its length is another."""
    if len(body) != expected:
        raise InvalidBody(f"the body has {len(body)} bytes, and {expected} are due")
    return np.frombuffer(body, np.uint8)
