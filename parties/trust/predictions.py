"""How often a peer may have a row scored in a day: each score is one more number that it reads of the row's columns.

A row is known by its id, in whichever data set or version of a file it stands. What is kept of a prediction, for one
day, is a mark of each row: a hash under a key of this party, from which no id follows without that key.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from parties.errors import PolicyRefused
from parties.trust.request import Request

DAY_SECONDS: Final = 86_400
USUAL: Final = 10
DIGEST_BYTES, MARK_BYTES = 16, 8
Marks = NDArray[np.uint64]


def row_digests(columns: Sequence[str], ids: Iterable[str]) -> bytes:
    """Of each row its id in these columns, as it is written."""
    named = hashlib.blake2b("\0".join(columns).encode(), digest_size=DIGEST_BYTES)
    digests = []
    for text in ids:
        digest = named.copy()
        digest.update(b"\0\0" + text.encode())
        digests.append(digest.digest())
    return b"".join(digests)


def marks_of(digests: bytes, key: bytes) -> Marks:
    """One number a row, in ascending order, which is not that of the rows."""
    rows = (digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES))
    marks = b"".join(hashlib.blake2b(row, digest_size=MARK_BYTES, key=key).digest() for row in rows)
    return np.sort(np.frombuffer(marks, "<u8"))


def check_predictions(request: Request, marks: Marks, earlier: Iterable[Marks], per_day: int) -> None:
    """`earlier` are of the predictions for the same peer within a day. Raises PolicyRefused; a peer reads which rule it
    is, and no number."""
    times = np.zeros(len(marks), np.int64)
    for before in earlier:
        places = np.searchsorted(before, marks)
        times += before[np.minimum(places, len(before) - 1)] == marks
    often = int((times >= per_day).sum())
    if often:
        raise PolicyRefused(
            f"{request.me} refuses by acceptance.predictions_per_day: {request.spec.coordinator} has had {often:,} of "
            f"these {len(marks):,} rows scored {times.max()} times within a day, and {per_day} are the most for a row",
            fix=f"acceptance.predictions_per_day in {request.me}'s party.toml: wait, score other rows, or raise it.",
        )
