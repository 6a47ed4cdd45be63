"""An id as bytes, and as the hash from which its point is made: the same at every party, whatever wrote the table.

An id has one component for each of its columns. Each component says whether it is text or a whole number and how long
it is, so that 7 and "7" are two ids, and no two lists of components make the same bytes.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Id: TypeAlias = Sequence[str | int]
HASH_BYTES: Final = 64
_DOMAIN: Final = b"vfl alignment, id, version 1\0"


@dataclass(frozen=True)
class HashedIds:
    """The ids of a table."""

    hashes: NDArray[np.uint8] = field(repr=False)
    """ids x 64."""
    rows: NDArray[np.int64] = field(repr=False)
    """Of each id, the number of its row in the file, from 1."""


def id_hash(components: Id) -> bytes:
    """SHA-512 of the encoded id, apart from every other use of it."""
    return hashlib.sha512(_DOMAIN + encoded_id(components)).digest()


def id_hashes(ids: Iterable[Id]) -> NDArray[np.uint8]:
    """ids x 64."""
    return np.frombuffer(b"".join(map(id_hash, ids)), np.uint8).reshape(-1, HASH_BYTES)


def encoded_id(components: Id) -> bytes:
    """The number of components, then of each its type, its length and its letters or digits."""
    return b"".join([len(components).to_bytes(2, "big"), *map(_encoded, components)])


def _encoded(component: str | int) -> bytes:
    text = str(component).encode()
    return (b"i" if isinstance(component, int) else b"t") + len(text).to_bytes(4, "big") + text
