"""How fast one peer may propose jobs: a bucket of so many, refilled at a steady rate.

Each proposal leaves a line in the database, so without it a peer could fill the disk with jobs that were all refused.
"""

import time
from collections.abc import Callable

PROPOSALS, PROPOSALS_PER_SECOND = 64, 1.0


class Quota:
    """One peer's. Used under its party's lock."""

    def __init__(
        self,
        burst: int = PROPOSALS,
        per_second: float = PROPOSALS_PER_SECOND,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst, self._per_second, self._clock = burst, per_second, clock
        self._left, self._filled_at = float(burst), clock()

    def take(self) -> bool:
        """Whether one more may come now; counts it if so."""
        at = self._clock()
        self._left = min(self._burst, self._left + (at - self._filled_at) * self._per_second)
        self._filled_at = at
        if self._left < 1:
            return False
        self._left -= 1
        return True
