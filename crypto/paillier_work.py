"""How many multiplications a product of powers takes, before it is computed and when it is; loads no library."""

from typing import Final

WIDEST_WINDOW: Final = 12


def window_of(bases: int, longest: int) -> tuple[int, int]:
    """(bits of a window, multiplications) by Pippenger's buckets, with exponents of up to so many bits."""
    costs = {width: -(-longest // width) * (bases + (2 << width) + width) for width in range(1, WIDEST_WINDOW + 1)}
    width = min(costs, key=costs.__getitem__)
    return width, costs[width]


def multiplications(bases: int, bits: int) -> float:
    """Of a product of powers whose exponents are as often negative as not: each half is a product of its own."""
    half = max(1, bases // 2)
    return 2.0 * min(window_of(half, bits)[1], half * bits)
