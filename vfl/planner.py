"""What a job of any kind will do, worked out before it runs; loads neither torch nor an encryption library."""

from crypto.ckks_parameters import CkksPreset
from vfl import job_warnings, rounds_plan, training_plan
from vfl.job import JobSpec
from vfl.notices import Notice
from vfl.plan import Forecast, Plan
from vfl.rounds_spec import RoundsSpec
from vfl.terms import PartyId


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
