"""The hash tree of the audit log: append, root, inclusion, consistency (RFC 6962 and RFC 9162, section 2.1 of each).

A subtree of 2^level leaves that is complete never changes again. Its hash is stored once under (level, number from the
left); everything else is worked out from those: an append reads and writes few of them, a root or a proof reads
O(log size).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from typing import NamedTuple, TypeAlias

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()


class Place(NamedTuple):
    """Where a complete subtree stands: its first leaf is `number << level`, and it has `1 << level` of them."""

    level: int
    number: int


Lookup: TypeAlias = Callable[[Place], bytes]
"""The stored hash of a complete subtree."""


def leaf_hash(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def grow(size: int, leaf_hashes: Iterable[bytes], lookup: Lookup) -> dict[Place, bytes]:
    """The subtrees that are complete once these leaves stand behind the first `size`: what there is to store."""
    grown: dict[Place, bytes] = {}
    for index, leaf in enumerate(leaf_hashes, size):
        place, digest = Place(0, index), leaf
        grown[place] = digest
        while place.number % 2:
            left = Place(place.level, place.number - 1)
            digest = node_hash(grown[left] if left in grown else lookup(left), digest)
            place = Place(place.level + 1, place.number // 2)
            grown[place] = digest
    return grown


def root(size: int, lookup: Lookup) -> bytes:
    """Of the first `size` leaves; of none, the hash of nothing."""
    return _range_hash(0, size, lookup) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, lookup: Lookup) -> list[bytes]:
    """That the leaf of this index stands in the tree of this size; from the leaf's sibling up to below the root."""
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    start, end, path = 0, size, list[bytes]()
    while end - start > 1:
        middle = start + _left_leaves(end - start)
        if index < middle:
            path.append(_range_hash(middle, end, lookup))
            end = middle
        else:
            path.append(_range_hash(start, middle, lookup))
            start = middle
    return path[::-1]


def consistency_proof(old: int, new: int, lookup: Lookup) -> list[bytes]:
    """That the tree of size `new` begins with the leaves of the one of size `old`; may be empty."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves does not extend one of {old}")
    start, end, path = 0, new, list[bytes]()
    while 0 < old < end:
        middle = start + _left_leaves(end - start)
        if old <= middle:
            path.append(_range_hash(middle, end, lookup))
            end = middle
        else:
            path.append(_range_hash(start, middle, lookup))
            start = middle
    if start:  # the old tree's last subtree is no root that the reader knows already
        path.append(_range_hash(start, end, lookup))
    return path[::-1]


def is_included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root_hash: bytes) -> bool:
    """Whether `path` leads from the leaf's hash to the root (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size or (sides := _left_siblings(index, size - 1, len(path))) is None:
        return False
    digest = leaf
    for sibling, is_left in zip(path, sides, strict=True):
        digest = node_hash(sibling, digest) if is_left else node_hash(digest, sibling)
    return digest == root_hash


def is_consistent(old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Whether `path` shows that the new tree extends the old one (RFC 9162, section 2.1.4.2).

    Every tree extends the empty one and itself: then there is nothing to show, and the path is empty.
    """
    if not 0 <= old <= new:
        return False
    if old in {0, new}:
        return not path and old_root == (new_root if old else EMPTY_ROOT)
    # An old tree of 2^k leaves is a subtree of the new one, and its hash the reader knows.
    first, *rest = path if path and old & (old - 1) else (old_root, *path)
    level = _trailing_ones(old - 1)
    if (sides := _left_siblings((old - 1) >> level, (new - 1) >> level, len(rest))) is None:
        return False
    old_digest = new_digest = first
    for sibling, is_left in zip(rest, sides, strict=True):
        if is_left:
            old_digest, new_digest = node_hash(sibling, old_digest), node_hash(sibling, new_digest)
        else:
            new_digest = node_hash(new_digest, sibling)
    return (old_digest, new_digest) == (old_root, new_root)


def _left_siblings(node: int, last: int, steps: int) -> list[bool] | None:
    """For each step from a node to the root, whether its sibling stands on the left; None where the root is not met.

    `last` is the number of the last node on the same level.
    """
    sides: list[bool] = []
    for _ in range(steps):
        if not last:
            return None
        sides.append(bool(node % 2) or node == last)
        if node == last:
            while node and not node % 2:  # nothing stands right of it: it moves up as it is
                node, last = node // 2, last // 2
        node, last = node // 2, last // 2
    return None if last else sides


def _trailing_ones(number: int) -> int:
    return (~number & (number + 1)).bit_length() - 1


def _left_leaves(leaves: int) -> int:
    """How many of two or more leaves stand under the left child: the largest power of two below their number."""
    return 1 << (leaves - 1).bit_length() - 1


def _range_hash(start: int, end: int, lookup: Lookup) -> bytes:
    """Of one or more leaves that begin where a subtree of their size would."""
    subtrees = [lookup(place) for place in _complete_subtrees(start, end)]
    return reduce(lambda right, left: node_hash(left, right), reversed(subtrees))


def _complete_subtrees(start: int, end: int) -> Iterator[Place]:
    """Those that make up a range, the largest first."""
    while start < end:
        level = (end - start).bit_length() - 1
        yield Place(level, start >> level)
        start += 1 << level
