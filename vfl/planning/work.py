"""The work of a job, counted before it runs: what each party does, how often, and what at the same time.

A count names an operation whose cost is measured on the machine at hand (`parties/estimates`): `ckks/plain product@2`
is a product on ciphertexts of two primes. What stands before the stroke says which calibration measures it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import msgspec

from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

Clock: TypeAlias = Callable[[], float]
"""Processor seconds of the process that asks, for whoever may have one."""
TableRows: TypeAlias = Mapping[PartyId, Mapping[str, int]]
"""Rows of each table that a party brings, by its use."""
Counts: TypeAlias = dict[str, float]

SECONDS = "seconds"
"""An operation that takes one: of work that was rehearsed and timed, not counted."""
MESSAGE, BYTE, REPORT = "server/message", "server/byte", "server/report"
"""A message from one worker to another through both servers, each byte of it, and a fact that a server stores."""
WAIT = "server/wait"
"""How long a message waits for the disks of both servers: nothing is computed meanwhile."""
START = "process/start"


class Turn(msgspec.Struct, frozen=True):
    """What parties do at the same time, each on its own machine; the turns of a job follow each other."""

    phase: str
    """start, steps, scores or end."""
    times: float
    work: dict[PartyId, Counts]
    is_shared: bool = False
    """Whether each party spreads it over the cores of its machine."""


def sends(party: PartyId, messages: float, payload_bytes: float) -> dict[PartyId, Counts]:
    return {party: {MESSAGE: messages, WAIT: messages, BYTE: payload_bytes}}


def bytes_sent(turns: Iterable[Turn]) -> dict[PartyId, int]:
    """By each party, over the whole job."""
    total: dict[PartyId, float] = {}
    for turn in turns:
        for party, counts in turn.work.items():
            total[party] = total.get(party, 0.0) + turn.times * counts.get(BYTE, 0.0)
    return {party: round(size) for party, size in total.items()}


def added(*all_counts: Mapping[str, float]) -> Counts:
    total: Counts = {}
    for counts in all_counts:
        for operation, count in counts.items():
            total[operation] = total.get(operation, 0.0) + count
    return total


def times(number: float, counts: Mapping[str, float]) -> Counts:
    return {operation: number * count for operation, count in counts.items()}


def operations(turns: Iterable[Turn]) -> Iterator[str]:
    """Each once."""
    yield from dict.fromkeys(operation for turn in turns for counts in turn.work.values() for operation in counts)


def least_rows(spec: JobSpec, rows: TableRows) -> int:
    """Of parties that bring the same rows."""
    return min(rows[party]["rows"] for party in spec.parties)
