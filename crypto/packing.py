"""How released values share ciphertexts: groups of power-of-two width, chosen alike by both sides from their number.

A group of width m costs one key switch per occupied node of a binary tree and one ciphertext; its values stand at the
coefficients that are multiples of N/m (Chen, Dai, Kim and Song, "Efficient homomorphic conversion between (ring) LWE
ciphertexts", ACNS 2021).
"""

import functools
from typing import NamedTuple

CIPHERTEXT_COST = 3
"""Cost of one more ciphertext (Enc(0), transport) in key switches; measured at N = 8192."""

LARGEST_WIDTH = 1024


class Group(NamedTuple):
    """`values` released numbers in a ciphertext with room for `width`."""

    values: int
    width: int


@functools.cache
def groups_for(count: int) -> tuple[Group, ...]:
    """The cheapest grouping of `count` values: either one group, or a full one and a grouping of the rest."""
    if count > LARGEST_WIDTH:
        return (Group(LARGEST_WIDTH, LARGEST_WIDTH), *groups_for(count - LARGEST_WIDTH))
    single = Group(count, 1 << (count - 1).bit_length())
    if count == single.width:
        return (single,)
    split = (Group(single.width // 2, single.width // 2), *groups_for(count - single.width // 2))
    return min((single,), split, key=_cost)


def _cost(groups: tuple[Group, ...]) -> int:
    return sum(_switches(group.values, group.width) + CIPHERTEXT_COST for group in groups)


def _switches(values: int, width: int) -> int:
    """Occupied inner nodes of the tree: a node whose leaves are all empty needs no key switch."""
    if width == 1 or values == 0:
        return 0
    return 1 + _switches((values + 1) // 2, width // 2) + _switches(values // 2, width // 2)
