"""An id as the hash from which its point is made: the same at every party, whatever wrote the table.

An id has one component for each of its columns. It is encoded as MessagePack, which says of each component whether it
is text or a whole number and how long it is: 7 and "7" are two ids, and no two ids have the same bytes.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

Id: TypeAlias = Sequence[str | int]
HASH_BYTES: Final = 64
_DOMAIN: Final = b"vfl alignment, id, version 1\0"
encoded_id: Final = msgspec.msgpack.Encoder().encode
"""Canonical: each component in its shortest form."""


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
