"""An estimate of one job: counted work times measured costs, with all that was assumed."""

import os
from collections.abc import Iterable, Mapping

import msgspec

from parties.estimates.costs import MEMORY, Costs, cost_of, group_of
from vfl.kinds import kind_of
from vfl.message import Grain
from vfl.planning.plan import Plan
from vfl.planning.work import BYTE, WAIT, TableRows, Turn, bytes_sent, operations
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

PHASES = frozenset({"start", "steps", "scores", "end"})
"""Of a job; what a session is asked comes on top of them."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a job will take, as this party foresees it."""

    seconds: float
    """From the start of the processes that compute to the end of the last one; of a session, until it is open."""
    phases: dict[str, float]
    """The same by phase: start, steps, scores, end; of a session also what one request of one row takes."""
    rows_per_second: float
    """Rows that are learned from, in all passes over them, or that are scored or compared, in these seconds."""
    processor_seconds: dict[PartyId, float]
    """Of the worker and the server of each party; what it takes to receive bytes is counted at their sender."""
    bytes_sent: dict[PartyId, int]
    """Payload of messages; what TLS and HTTP add is not counted."""
    memory_bytes: dict[PartyId, int]
    """Of the process that computes."""
    opened_values: dict[PartyId, int]
    """What each party can read of others at most, in what `counted` says."""
    counted: str
    security_bits: int
    """0 where values are read in clear."""
    assumed: tuple[str, ...]
    """What the estimate takes for granted, in whole sentences."""


def estimated(
    spec: JobSpec,
    plan: Plan,
    rows: TableRows,
    turns: tuple[Turn, ...],
    costs: Costs,
    assumed: Iterable[str],
    *,
    together: bool,
) -> Estimate:
    kind = kind_of(spec)
    phases: dict[str, float] = {}
    spent = dict.fromkeys(spec.parties, 0.0)
    for turn in turns:
        each = {party: turn.times * _seconds(counts, costs) for party, counts in turn.work.items()}
        phases[turn.phase] = phases.get(turn.phase, 0.0) + _lasts(turn, each, together=together)
        for party, counts in turn.work.items():
            of_receivers = counts.get(BYTE, 0.0) * costs.get(BYTE, 0.0)  # while the sender still sends
            spent[party] += each[party] + turn.times * (of_receivers - counts.get(WAIT, 0.0) * costs.get(WAIT, 0.0))
    seconds = sum(lasting for phase, lasting in phases.items() if phase in PHASES)
    all_rows = max((size for own in rows.values() for size in own.values()), default=0)
    learned = (plan.training_rows or all_rows) * max(1, spec.checkpoints)
    computing = phases.get("steps", 0.0) or phases.get("scores", 0.0) or seconds
    largest = max((costs.get(f"{group_of(each)}/{MEMORY}", 0.0) for each in operations(turns)), default=0.0)
    return Estimate(
        seconds=seconds,
        phases=phases,
        rows_per_second=learned / computing if computing else 0.0,
        processor_seconds=spent,
        bytes_sent=dict.fromkeys(spec.parties, 0) | bytes_sent(turns),
        memory_bytes={
            party: round(largest) + kind.memory_bytes(spec, party, max(own.values(), default=0))
            for party, own in rows.items()
        },
        opened_values=_opened(plan),
        counted=kind.counted,
        security_bits=kind.security_bits(spec),
        assumed=tuple(assumed),
    )


def _seconds(counts: Mapping[str, float], costs: Costs) -> float:
    return sum(count * cost_of(operation, costs) for operation, count in counts.items())


def _lasts(turn: Turn, seconds: Mapping[PartyId, float], *, together: bool) -> float:
    """Each party has a machine of its own, or all have this one; what is shared is spread over its cores."""
    longest, on_all = max(seconds.values(), default=0.0), sum(seconds.values()) / cores()
    if turn.is_shared:
        return on_all if together else longest / cores()
    return max(longest, on_all) if together else longest


def _opened(plan: Plan) -> dict[PartyId, int]:
    opened: dict[PartyId, int] = {}
    for line in plan.reveals:
        if line.grain != Grain.NOTHING.value:
            opened[line.receiver] = opened.get(line.receiver, 0) + line.values
    return opened


def cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
