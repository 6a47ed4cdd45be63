"""How often a peer may compare ids with one data set, and how unlike the ids must be from one time to the next.

Two runs on nearly the same ids tell what has changed between them: which few people came or went. So ids must be equal
to those of every earlier run, or differ in many. Each side looks at its own ids alone: what the peer brings is hidden
by a fresh scalar in each run. What is kept of the ids of a run is a sketch, from which no id follows.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from parties.errors import PolicyRefused
from vfl.spec.sections import PartyId

DAY_SECONDS: Final = 86_400
BUCKETS: Final = 1 << 12


class RunLimits(NamedTuple):
    """Of `[acceptance]`."""

    per_day: int = 3
    changed_ids: int = 50


USUAL: Final = RunLimits()


class IdRun(NamedTuple):
    """One comparison of the ids of a data set with those of a peer."""

    peer: PartyId
    dataset: str
    time: int
    """Unix seconds."""
    sketch: bytes


def sketch(hashes: NDArray[np.uint8]) -> bytes:
    """Of ids x 64: sums of words of the hashes, each in the bucket that other words of it name.

    An id that is there in one set alone changes one bucket, so that sets which differ in few ids differ in as few
    buckets at most.
    """
    words = np.ascontiguousarray(hashes).view("<u8")
    sums = np.zeros(BUCKETS, "<u8")
    np.add.at(sums, (words[:, 0] % np.uint64(BUCKETS)).astype(np.intp), words[:, 1])
    return sums.tobytes()


def changed(first: bytes, second: bytes) -> int:
    """In how many buckets two sketches differ: never in more than the sets do in ids, and hardly in fewer."""
    return int((np.frombuffer(first, "<u8") != np.frombuffer(second, "<u8")).sum())


def check_runs(me: PartyId, asked: Iterable[IdRun], earlier: Iterable[IdRun], limits: RunLimits) -> None:
    """Raises PolicyRefused; a peer reads which rule it is, and nothing of the numbers."""
    before = list(earlier)
    for run in asked:
        alike = [one for one in before if (one.peer, one.dataset) == (run.peer, run.dataset)]
        today = sorted(one.time for one in alike if one.time > run.time - DAY_SECONDS)
        if len(today) >= limits.per_day:
            again = datetime.fromtimestamp(today[-limits.per_day] + DAY_SECONDS, UTC).isoformat(timespec="minutes")
            raise PolicyRefused(
                f"{me} refuses by acceptance.alignments_per_day: {run.peer} has compared ids with {run.dataset!r} "
                f"{len(today)} times within a day, and {limits.per_day} are the most; the next time is at {again}",
                fix=f"acceptance.alignments_per_day in {me}'s party.toml: wait, or raise it.",
            )
        few = [count for one in alike if 0 < (count := changed(one.sketch, run.sketch)) < limits.changed_ids]
        if few:
            raise PolicyRefused(
                f"{me} refuses by acceptance.minimum_changed_ids: the ids of {run.dataset!r} differ from those of an "
                f"earlier run with {run.peer} in about {min(few)}, fewer than {limits.changed_ids}",
                fix=f"acceptance.minimum_changed_ids in {me}'s party.toml: bring the same ids as before, or wait until "
                "more have changed, or lower it.",
            )
