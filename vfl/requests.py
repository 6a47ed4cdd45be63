"""What the operator of a party asks of a role while its job stays open; neither question nor answer leaves the party.

The answer is a fact that the role reports (`vfl/reports.py`).
"""

import msgspec
import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 1000
"""Of one request."""


class ScoreRequest(msgspec.Struct, frozen=True):
    """Rows to be scored now."""

    number: int
    """Counts the requests of a job."""
    rows: bytes
    """int64, places of rows in the job's table, from 0; a place may come twice."""
    own: bytes | None = None
    """float64, rows x columns: what this party puts in the place of its own columns. None takes them from the table."""
    words: dict[int, tuple[str, ...]] = {}
    """Of `own`, what the codes of a column of categories stand for, by its position."""

    @property
    def places(self) -> NDArray[np.int64]:
        return np.frombuffer(self.rows, np.int64)

    def own_columns(self, width: int) -> NDArray[np.float64] | None:
        return None if self.own is None else np.frombuffer(self.own, np.float64).reshape(len(self.places), width)
