"""What a job of any kind will do, worked out before it runs; loads neither torch nor an encryption library."""

from crypto.ckks_parameters import CkksPreset
from vfl.notices import Notice
from vfl.planning import rounds as rounds_plan
from vfl.planning import training as training_plan
from vfl.planning import warnings as job_warnings
from vfl.planning.plan import Forecast, Plan
from vfl.routes import routes_of
from vfl.spec.job import JobSpec
from vfl.spec.rounds import RoundsSpec
from vfl.spec.sections import PartyId

FRAMING, MARGIN = 64 << 10, 1.25
"""What a message may be larger than its contents: names and lengths, and what a forecast leaves out."""


def resolve(spec: JobSpec) -> JobSpec:
    """The specification with what it leaves open filled in, as it is proposed and digested. Raises ImpossibleJob."""
    return spec if isinstance(spec, RoundsSpec) else training_plan.resolve(spec)


def preset_of(spec: JobSpec) -> CkksPreset | None:
    """The CKKS preset of a resolved specification; None where nothing is encrypted."""
    return None if isinstance(spec, RoundsSpec) else training_plan.preset_of(spec)


def plan(spec: JobSpec, me: PartyId, rows: int) -> Plan:
    """What a resolved job does where `me` brings `rows` rows. Raises ImpossibleJob, naming the cause."""
    return rounds_plan.plan(spec, me, rows) if isinstance(spec, RoundsSpec) else training_plan.plan(spec, rows)


def warnings(
    spec: JobSpec, plan: Plan | None = None, forecast: Forecast | None = None, classes_held: int | None = None
) -> tuple[Notice, ...]:
    """What a job that can run should be warned of, told from its specification and what else is known of it."""
    return job_warnings.warnings(spec, plan, forecast, classes_held)


def largest_messages(spec: JobSpec, rows: int) -> dict[str, int]:
    """Bytes of one message of a resolved job at most, by kind, with room for its framing."""
    if isinstance(spec, RoundsSpec):
        found = rounds_plan.largest_messages(spec)
    else:
        found = training_plan.largest_messages(spec, rows)
    kinds = {route.message.kind() for route in routes_of(spec)}
    return {kind: FRAMING + int(MARGIN * found.get(kind, 0)) for kind in kinds}
