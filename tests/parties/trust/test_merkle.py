"""The tree against public vectors, and against a second implementation of the RFC's own definitions."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parties.trust.merkle import (
    EMPTY_ROOT,
    Place,
    consistency_proof,
    grow,
    inclusion_proof,
    is_consistent,
    is_included,
    leaf_hash,
    root,
)

# The sample tree of Certificate Transparency: cpp/merkletree/merkle_tree_test.cc of google/certificate-transparency.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): INCLUSION[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
SIZES = st.integers(1, 130)


# The tree as section 2.1 of RFC 6962 defines it: recursion over the list of leaves. Not a line of it is shared.


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """MTH, section 2.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = split(len(leaves))
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:k]) + tree_hash(leaves[k:])).digest()


def audit_path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH, section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*audit_path(m, leaves[:k]), tree_hash(leaves[k:])]
    return [*audit_path(m - k, leaves[k:]), tree_hash(leaves[:k])]


def consistency(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PROOF, section 2.1.2, for 0 < m."""
    return subproof(m, leaves, known=True)


def subproof(m: int, leaves: Sequence[bytes], *, known: bool) -> list[bytes]:
    """SUBPROOF, section 2.1.2; `known` is its b."""
    if m == len(leaves):
        return [] if known else [tree_hash(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], known=known), tree_hash(leaves[k:])]
    return [*subproof(m - k, leaves[k:], known=False), tree_hash(leaves[:k])]


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while 2 * k < n:
        k *= 2
    return k


# --


class Subtrees(dict[Place, bytes]):
    """Stored hashes that count how often they are read."""

    reads = 0

    def __call__(self, place: Place) -> bytes:
        self.reads += 1
        return self[place]


def tree_of(leaves: list[bytes], at_once: int = 7) -> Subtrees:
    stored = Subtrees()
    for start in range(0, len(leaves), at_once):
        stored |= grow(start, map(leaf_hash, leaves[start : start + at_once]), stored)
    return stored


def some_leaves(size: int) -> list[bytes]:
    return [b"leaf %d" % number for number in range(size)]


def test_roots_are_those_of_certificate_transparency() -> None:
    tree = tree_of(LEAVES)
    assert [root(size, tree).hex() for size in range(1, 9)] == ROOTS
    assert root(0, tree) == EMPTY_ROOT == hashlib.sha256(b"").digest()


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_an_inclusion_proof_is_that_of_certificate_transparency(index: int, size: int) -> None:
    path = inclusion_proof(index, size, tree_of(LEAVES))
    assert [digest.hex() for digest in path] == INCLUSION[index, size]
    assert is_included(leaf_hash(LEAVES[index]), index, size, path, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(("old", "new"), CONSISTENCY)
def test_a_consistency_proof_is_that_of_certificate_transparency(old: int, new: int) -> None:
    path = consistency_proof(old, new, tree_of(LEAVES))
    assert [digest.hex() for digest in path] == CONSISTENCY[old, new]
    assert is_consistent(old, new, path, bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1]))


@given(SIZES, st.integers(1, 40), st.data())
def test_roots_and_proofs_are_those_of_the_definition(size: int, at_once: int, data: st.DataObject) -> None:
    leaves = some_leaves(size)
    tree, index, old = tree_of(leaves, at_once), data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    assert root(size, tree) == tree_hash(leaves)
    assert inclusion_proof(index, size, tree) == audit_path(index, leaves)
    assert consistency_proof(old, size, tree) == consistency(old, leaves)


@given(SIZES, st.data())
def test_a_proof_of_the_definition_is_believed(size: int, data: st.DataObject) -> None:
    leaves = some_leaves(size)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    head, old_head = tree_hash(leaves), tree_hash(leaves[:old])
    assert is_included(leaf_hash(leaves[index]), index, size, audit_path(index, leaves), head)
    assert is_consistent(old, size, consistency(old, leaves), old_head, head)
    assert is_consistent(0, size, [], EMPTY_ROOT, head)


@given(SIZES, st.data())
def test_a_proof_shows_one_leaf_at_one_index_of_one_size(size: int, data: st.DataObject) -> None:
    leaves = some_leaves(size)
    index = data.draw(st.integers(0, size - 1))
    path, head = audit_path(index, leaves), tree_hash(leaves)
    for other in set(range(-1, size + 1)) - {index}:
        assert not is_included(leaf_hash(leaves[index]), other, size, path, head)
    assert not is_included(leaf_hash(b"another"), index, size, path, head)
    assert not is_included(leaf_hash(leaves[index]), index, size, [*path, head], head)
    assert not path or not is_included(leaf_hash(leaves[index]), index, size, path[:-1], head)
    for number in range(len(path)):
        assert not is_included(
            leaf_hash(leaves[index]), index, size, [*path[:number], bytes(32), *path[number + 1 :]], head
        )


@given(st.integers(2, 130), st.data())
def test_a_tree_that_changes_an_old_leaf_extends_nothing(size: int, data: st.DataObject) -> None:
    leaves = some_leaves(size)
    old = data.draw(st.integers(1, size - 1))
    other = list(leaves)
    other[data.draw(st.integers(0, old - 1))] = b"another"
    forged = tree_hash(other)
    old_head, head = tree_hash(leaves[:old]), tree_hash(leaves)
    path = consistency(old, leaves)
    for tried in (path, consistency(old, other), []):
        assert not is_consistent(old, size, tried, old_head, forged)
    for tried in ([], path[:-1], [*path, head], [head, *path]):
        assert not is_consistent(old, size, tried, old_head, head)
    assert not is_consistent(size, old, path, head, old_head)
    assert not is_consistent(size, size, [], forged, head)
    assert not is_consistent(0, size, [], old_head, head)


def test_what_is_not_in_the_tree_has_no_proof() -> None:
    tree = tree_of(LEAVES)
    for index, size in [(8, 8), (-1, 8), (0, 0)]:
        with pytest.raises(ValueError, match="no leaf"):
            inclusion_proof(index, size, tree)
    with pytest.raises(ValueError, match="does not extend"):
        consistency_proof(8, 7, tree)


def test_an_append_and_a_proof_read_few_stored_hashes() -> None:
    size = 5000
    tree = tree_of(some_leaves(size), at_once=1)
    assert len(tree) < 2 * size
    assert tree.reads < 2 * size
    for index, old in [(0, 1), (4095, 4096), (4999, 4097), (2500, 2501)]:
        tree.reads = 0
        inclusion_proof(index, size, tree)
        assert tree.reads <= 2 * size.bit_length()
        tree.reads = 0
        consistency_proof(old, size, tree)
        assert tree.reads <= 2 * size.bit_length()
        tree.reads = 0
        root(size, tree)
        assert tree.reads <= size.bit_length()
