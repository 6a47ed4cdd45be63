"""What a job would do, refuse or warn about, told from its specification alone: no peer, no server, no table.

What cannot work is refused when the specification is read, with the same error as between servers. This module says
what a job that can work means for each side.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import msgspec

from parties.errors import PolicyRefused
from parties.limits import check_steps
from parties.policy import DEFAULTS, PLAN_RULES, check_ids, check_model
from parties.settings import Acceptance
from vfl.kind import one_of_each_role
from vfl.kinds import kind_of
from vfl.message import Grain
from vfl.notices import Notice
from vfl.planning.plan import Forecast, Plan
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

NOT_REHEARSED = Notice(
    "warning", "not_rehearsed", "the model is too large to rehearse its messages here: their bytes are not forecast"
)
REHEARSED_BYTES = 8 << 20
"""Of a model: messages of a larger one are not rehearsed, so their bytes are not forecast."""
NAMED = 8
"""Of parties that must accept the same, and of what they must accept, so many are named."""


class Side(msgspec.Struct, frozen=True):
    """What the parties of one role bring and send."""

    role: str
    parties: tuple[PartyId, ...]
    brings: tuple[str, ...]
    """Uses of its tables."""
    sends: tuple[str, ...]
    """Kinds of messages."""


class Learned(msgspec.Struct, frozen=True):
    """One kind of message, and what its receiver can read out of it."""

    message: str
    sender: str
    """A role."""
    receiver: str
    learns: str
    grain: str
    protection: str
    values: int | None = None
    """How many a pair of parties exchanges in the whole job: of rounds messages, else numbers, which need rows."""


class JobCheck(msgspec.Struct, frozen=True):
    """The answer of `vfl job check`."""

    name: str
    protocol: str
    task: str
    digest: str
    rows: int | None
    sides: tuple[Side, ...]
    learned: tuple[Learned, ...]
    steps: int | None
    """Batches of the whole training, or rounds."""
    cohort: int | None
    parts: tuple[str, ...]
    forecast: Forecast | None
    """Of rounds."""
    payload_bytes: dict[str, int] | None
    """Of a training whose number of rows is known, by kind of message."""
    must_accept: tuple[str, ...]
    """What a party's [acceptance] has to say, beyond its defaults, for the job to begin."""
    waived: tuple[str, ...]
    warnings: tuple[Notice, ...]


def check(spec: JobSpec, rows: int | None = None) -> JobCheck:
    """`rows` are what the feature and label party share, or what each client has. Raises ImpossibleJob."""
    kind = kind_of(spec)
    spec = kind.resolve(spec)
    check_steps(spec, rows or 0)
    plans = _plans(spec, rows or 0) if rows or kind.plans_without_rows else {}
    forecast = kind.rehearse(spec) if is_rehearsed(spec) else None
    plan = next(iter(plans.values()), None)
    return JobCheck(
        name=spec.job.name,
        protocol=spec.job.protocol,
        task=spec.job.task,
        digest=spec.digest().hex(),
        rows=rows,
        sides=_sides(spec),
        learned=_learned(spec, plan),
        steps=plan.steps if plan else None,
        cohort=spec.cohort,
        parts=spec.parts,
        forecast=forecast,
        payload_bytes=(plan.payload_bytes or None) if plan else None,
        must_accept=tuple(_must_accept(spec, plans)),
        waived=spec.waived,
        warnings=(
            *kind.warnings(spec, plan, forecast),
            *kind.advice(spec, plan),
            *((NOT_REHEARSED,) if kind.can_rehearse and forecast is None else ()),
        ),
    )


def is_rehearsed(spec: JobSpec) -> bool:
    """Whether the model is small enough to run the job's roles on made-up rows for a forecast of bytes."""
    kind = kind_of(spec)
    return kind.can_rehearse and kind.model_bytes(spec, spec.coordinator) <= REHEARSED_BYTES


def _plans(spec: JobSpec, rows: int) -> dict[PartyId, Plan]:
    """Of one party of each role that brings rows."""
    asked = (party for party in one_of_each_role(spec).values() if "rows" in spec.tables_of(party))
    return {party: kind_of(spec).plan(spec, party, rows) for party in asked}


def _sides(spec: JobSpec) -> tuple[Side, ...]:
    roles = dict.fromkeys(spec.role_of(party) for party in spec.parties)
    return tuple(
        Side(
            role=role.value,
            parties=(of_role := tuple(party for party in spec.parties if spec.role_of(party) is role)),
            brings=tuple(spec.tables_of(of_role[0])),
            sends=tuple(dict.fromkeys(r.message.kind() for r in kind_of(spec).routes(spec) if r.sender is role)),
        )
        for role in roles
    )


def _learned(spec: JobSpec, plan: Plan | None) -> tuple[Learned, ...]:
    values = {line.message: line.values for line in plan.reveals} if plan else {}
    learned = []
    for route in kind_of(spec).routes(spec):
        reveals, kind = route.message.reveals, route.message.kind()
        if reveals.grain is not Grain.NOTHING:
            ends = (route.sender.value, route.receiver.value)
            learned.append(
                Learned(kind, *ends, reveals.learns, reveals.grain.value, reveals.protection, values.get(kind))
            )
    return tuple(learned)


def _who_with_what(spec: JobSpec) -> Iterator[str]:
    """Peers and data sets, which no party accepts by default; parties that accept the same are named together."""
    alike: dict[tuple[str, tuple[str, ...]], list[PartyId]] = {}
    for party in spec.parties:
        tables = tuple(dict.fromkeys(use.dataset for use in spec.tables_of(party).values()))
        for rule, names in (("peers", spec.peers_of(party)), ("datasets", tables)):
            if names:
                alike.setdefault((rule, names), []).append(party)
    for (rule, names), parties in alike.items():
        yield f"acceptance.{rule} of {_listed(parties)}: {_listed([json.dumps(name) for name in names])}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def _must_accept(spec: JobSpec, plans: dict[PartyId, Plan]) -> Iterator[str]:
    yield from _who_with_what(spec)
    if spec.disclosure not in DEFAULTS.schemes:
        yield f'acceptance.schemes of every party: "{spec.disclosure}"'
    if isinstance(spec.job.seed, int):
        yield f"acceptance.fixed_seed of every party: true, as job.seed is {spec.job.seed}"
    for party in spec.parties:
        for use in spec.tables_of(party).values():
            if use.leaves:
                yield f'acceptance.handed_out of {party}: "{use.dataset}", as its rows go to every peer'
    rules: list[Callable[[Acceptance], object]] = [
        partial(check_model, spec, party) for party in one_of_each_role(spec).values()
    ]
    rules += [partial(check_ids, use, party) for party in spec.parties for use in spec.tables_of(party).values()]
    rules += [partial(rule, plan, party) for party, plan in plans.items() for rule in PLAN_RULES]
    for rule in rules:
        try:
            rule(DEFAULTS)
        except PolicyRefused as refusal:
            yield f"{refusal.fix.rstrip('.')} ({str(refusal).partition(': ')[2]})"
