"""Shamir's secret sharing (1979) of 32-byte keys: any `threshold` shares give it, fewer fit every key equally well.

The key is the value at 0 of a polynomial of degree threshold - 1 modulo the least prime above 2^256, its other
coefficients uniform, from the operating system; the share with index x is the value at x. Python's integers do not run
in constant time: a share is worked on only where it is made or, to open a sum, put together.
"""

import secrets
from collections.abc import Mapping
from functools import lru_cache

from crypto.errors import InvalidShare

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33


def shares_of(secret: bytes, holders: int, threshold: int) -> list[bytes]:
    """One share for each of the indices 1 to `holders`. Raises ValueError unless 1 <= threshold <= holders."""
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= holders:
        raise ValueError(f"{len(secret)} bytes cannot be shared among {holders} with threshold {threshold}")
    coefficients = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    coefficients.append(int.from_bytes(secret, "little"))  # of x^0, last: Horner goes from the highest
    shares = []
    for index in range(1, holders + 1):
        value = 0
        for coefficient in coefficients:
            value = (value * index + coefficient) % PRIME
        shares.append(value.to_bytes(SHARE_BYTES, "little"))
    return shares


def secret_of(shares: Mapping[int, bytes]) -> bytes:
    """The key, from threshold shares by index; with fewer, or a wrong one, an unrelated value.

    Raises InvalidShare for what no share can be, and where the shares give no key of 32 bytes.
    """
    if not shares or any(index < 1 for index in shares):
        raise InvalidShare("the key cannot be computed: no shares came, or a share has an index below 1")
    indices = tuple(sorted(shares))
    weights = zip(indices, _weights_at_zero(indices), strict=True)
    value = sum(weight * _value(shares[index]) for index, weight in weights) % PRIME
    if value >> 8 * SECRET_BYTES:
        raise InvalidShare("the shares do not belong together")
    return value.to_bytes(SECRET_BYTES, "little")


def _value(share: bytes) -> int:
    value = int.from_bytes(share, "little")
    if len(share) != SHARE_BYTES or value >= PRIME:
        raise InvalidShare(f"a share is not a number below the prime in {SHARE_BYTES} bytes")
    return value


@lru_cache(maxsize=8)  # the same holders open every secret of a sum
def _weights_at_zero(indices: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's: the value at 0 is the sum of weight x value."""
    weights = []
    for index in indices:
        above, below = 1, 1
        for other in indices:
            if other != index:
                above = above * other % PRIME
                below = below * (other - index) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(weights)
