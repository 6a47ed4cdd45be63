"""What a job would do, refuse or warn about, told from its specification alone: no peer, no server, no table.

What cannot work is refused when the specification is read, with the same error as between servers. This module says
what a job that can work means for each side.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from parties.errors import PolicyRefused
from parties.limits import check_steps
from parties.policy import FLOOR, check_model, check_plan
from parties.settings import Acceptance
from vfl.messages import Grain
from vfl.notices import Notice
from vfl.planning import planner
from vfl.planning.model_size import model_bytes
from vfl.planning.plan import Forecast, Plan
from vfl.routes import routes_of
from vfl.spec.job import JobSpec
from vfl.spec.rounds import RoundsSpec
from vfl.spec.sections import PartyId, Role

NOT_REHEARSED = Notice(
    "warning", "not_rehearsed", "the model is too large to rehearse its messages here: their bytes are not forecast"
)
REHEARSED_BYTES = 8 << 20
"""Of a model: messages of a larger one are not rehearsed, so their bytes are not forecast."""


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
    spec = planner.resolve(spec)
    check_steps(spec, rows or 0)
    # How often a message of rounds is sent does not depend on rows.
    plans = _plans(spec, rows or 0) if rows or isinstance(spec, RoundsSpec) else {}
    forecast = _forecast(spec) if isinstance(spec, RoundsSpec) and is_rehearsed(spec) else None
    plan = next(iter(plans.values()), None)
    rounds = spec if isinstance(spec, RoundsSpec) else None
    return JobCheck(
        name=spec.job.name,
        protocol=spec.job.protocol,
        task=spec.job.task,
        digest=spec.digest().hex(),
        rows=rows,
        sides=_sides(spec),
        learned=_learned(spec, plan),
        steps=rounds.rounds.rounds if rounds else plan.steps if plan else None,
        cohort=rounds.cohort if rounds else None,
        parts=rounds.rounds.parts if rounds else (),
        forecast=forecast,
        payload_bytes=plan.payload_bytes if plan and not rounds else None,
        must_accept=tuple(_must_accept(spec, plans)),
        waived=rounds.rounds.allow if rounds else (),
        warnings=(
            *planner.warnings(spec, plan, forecast),
            *(() if rounds is None or forecast else (NOT_REHEARSED,)),
        ),
    )


def is_rehearsed(spec: RoundsSpec) -> bool:
    """Whether the network is small enough to run two made-up rounds of four parties for a forecast of bytes."""
    return model_bytes(spec, spec.roster.aggregator) <= REHEARSED_BYTES


def _plans(spec: JobSpec, rows: int) -> dict[PartyId, Plan]:
    """One per role: parties of one role plan alike."""
    asked = (party for party in _one_of_each_role(spec) if spec.role_of(party) is not Role.AGGREGATOR)
    return {party: planner.plan(spec, party, rows) for party in asked}


def _one_of_each_role(spec: JobSpec) -> tuple[PartyId, ...]:
    return tuple({spec.role_of(party): party for party in reversed(spec.parties)}.values())


def _sides(spec: JobSpec) -> tuple[Side, ...]:
    roles = dict.fromkeys(spec.role_of(party) for party in spec.parties)
    return tuple(
        Side(
            role=role.value,
            parties=(of_role := tuple(party for party in spec.parties if spec.role_of(party) is role)),
            brings=tuple(spec.tables_of(of_role[0])),
            sends=tuple(dict.fromkeys(r.message.kind() for r in routes_of(spec) if r.sender is role)),
        )
        for role in roles
    )


def _learned(spec: JobSpec, plan: Plan | None) -> tuple[Learned, ...]:
    values = {line.message: line.values for line in plan.reveals} if plan else {}
    found = []
    for route in routes_of(spec):
        reveals, kind = route.message.reveals, route.message.kind()
        if reveals.grain is not Grain.NOTHING:
            ends = (route.sender.value, route.receiver.value)
            found.append(
                Learned(kind, *ends, reveals.learns, reveals.grain.value, reveals.protection, values.get(kind))
            )
    return tuple(found)


def _forecast(spec: RoundsSpec) -> Forecast:
    from vfl.rehearsal import parameters_in, rehearse, without_parts  # noqa: PLC0415 - torch, for rounds only

    sizes = rehearse(spec)
    plain = rehearse(without_parts(spec)) if spec.rounds.parts or spec.rounds.secure_sum else sizes
    tasks, clients = spec.cohort * spec.rounds.rounds, len(spec.roster.clients)
    once = min(tasks, clients)
    return Forecast(
        parameters=parameters_in(spec),
        **msgspec.structs.asdict(sizes),
        without_parts={"down": plain.down, "up": plain.up},
        total_down=tasks * sizes.down + once * sizes.once_down + clients * sizes.published,
        total_up=tasks * sizes.up + once * sizes.once_up,
    )


def _must_accept(spec: JobSpec, plans: dict[PartyId, Plan]) -> Any:
    if spec.disclosure not in FLOOR.schemes:
        yield f'acceptance.schemes of every party: "{spec.disclosure}"'
    if isinstance(spec.job.seed, int):
        yield f"acceptance.fixed_seed of every party: true, as job.seed is {spec.job.seed}"
    for party in spec.parties:
        for brought in spec.tables_of(party).values():
            if brought.leaves:
                yield f'acceptance.handed_out of {party}: "{brought.dataset}", as its rows go to every peer'
    rules: list[Callable[[Acceptance], object]] = [
        partial(check_model, spec, party) for party in _one_of_each_role(spec)
    ]
    rules += [partial(check_plan, plan, party) for party, plan in plans.items()]
    for rule in rules:
        try:
            rule(FLOOR)
        except PolicyRefused as refusal:
            yield f"{refusal.fix.rstrip('.')} ({str(refusal).partition(': ')[2]})"
