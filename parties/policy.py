"""What this party agrees to without asking (party_settings.md): a refusal names its rule, the number and the limit."""

from parties.errors import PolicyRefused
from parties.settings import Acceptance
from vfl.kinds import kind_of
from vfl.planning.plan import Plan
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId, TableUse

DEFAULTS = Acceptance()


def check_agreement(spec: JobSpec, me: PartyId, acceptance: Acceptance) -> None:
    """The rules that need no table. Raises PolicyRefused; a peer reads it, so it lists nobody and nothing else."""
    # Others of the roster learn nothing from us that such a peer could not hand on to anybody.
    for peer in spec.peers_of(me):
        if peer not in acceptance.peers:
            _refuse(me, "peers", f"{peer!r} is not in it", f'add "{peer}" to it')
    for use in spec.tables_of(me).values():
        _check_table(use, me, acceptance)
    scheme = spec.disclosure
    if scheme not in acceptance.schemes:
        _refuse(me, "schemes", f"{scheme!r} is not in it", f'add "{scheme}" to it')
    if isinstance(spec.job.seed, int) and not acceptance.fixed_seed:
        _refuse(
            me, "fixed_seed", f"job.seed is {spec.job.seed}, chosen by one side", "set it to true, or use seed = joint"
        )
    check_model(spec, me, acceptance)


def check_model(spec: JobSpec, me: PartyId, acceptance: Acceptance) -> None:
    """The rule about the model's size, counted without building it. Raises PolicyRefused."""
    size, most = kind_of(spec).model_bytes(spec, me), acceptance.maximum_model_bytes
    if size > most:
        text = f"its part of the model would have {size} bytes, more than {most}"
        _refuse(me, "maximum_model_bytes", text, "propose fewer or narrower layers, or raise it")


def _check_table(use: TableUse, me: PartyId, acceptance: Acceptance) -> None:
    if use.dataset not in acceptance.datasets:
        _refuse(me, "datasets", f"{use.dataset!r} is not in it", f'add "{use.dataset}" to it if `vfl data list` has it')
    if use.leaves and use.dataset not in acceptance.handed_out:
        text = f"the job hands the rows of {use.dataset!r} to its peers"
        _refuse(me, "handed_out", text, f'add "{use.dataset}" to it, or propose another rule')
    if acceptance.columns and use.every_column:
        _refuse(me, "columns", "the job takes every column", "name the columns in model.columns, or empty it")
    check_ids(use, me, acceptance)
    for column in use.columns:
        if acceptance.columns and column not in acceptance.columns:
            _refuse(me, "columns", f"{column!r} is not in it", f'add "{column}" to it')


def check_ids(use: TableUse, me: PartyId, acceptance: Acceptance) -> None:
    """The rule about how many ids every party must bring, where ids are compared. Raises PolicyRefused."""
    if use.ids is not None and use.ids.minimum_ids < acceptance.minimum_rows:
        text = f"a party may bring as few as {use.ids.minimum_ids} ids, fewer than {acceptance.minimum_rows}"
        _refuse(me, "minimum_rows", text, "raise align.minimum_ids, or lower it")


def check_plan(plan: Plan, me: PartyId, acceptance: Acceptance) -> list[str]:
    """The rules about numbers; answers the limits this party has relaxed for the job. Raises PolicyRefused."""
    return [relaxed for rule in PLAN_RULES if (relaxed := rule(plan, me, acceptance))]


def _check_rows(plan: Plan, me: PartyId, acceptance: Acceptance) -> str:
    if not plan.rows or plan.tells_of_each_row:  # an aggregator brings no rows of its own
        return ""
    if plan.rows < acceptance.minimum_rows:
        text = f"its table has {plan.rows} rows, fewer than {acceptance.minimum_rows}"
        _refuse(me, "minimum_rows", text, "lower it")
    if plan.rows < DEFAULTS.minimum_rows:
        return f"minimum_rows {DEFAULTS.minimum_rows} -> {acceptance.minimum_rows}: {me} brings {plan.rows} rows"
    return ""


def _check_batches(plan: Plan, me: PartyId, acceptance: Acceptance) -> str:
    if not plan.smallest_batch:
        return ""
    smallest, minimum = plan.smallest_batch, acceptance.minimum_batch_rows or plan.minimum_batch
    if smallest < minimum:
        why = (
            "" if acceptance.minimum_batch_rows else f": at least 64, and four for each of {plan.opened_per_step} sums"
        )
        text = f"the smallest batch has {smallest} rows, fewer than {minimum}{why}"
        _refuse(me, "minimum_batch_rows", text, "raise train.batch_rows, or lower minimum_batch_rows")
    if smallest < plan.minimum_batch:
        return f"minimum_batch_rows {plan.minimum_batch} -> {minimum}: the smallest batch has {smallest} rows"
    return ""


def _check_rho(plan: Plan, me: PartyId, acceptance: Acceptance) -> str:
    if not plan.rows:
        return ""
    if plan.rho > acceptance.maximum_rho:
        text = f"rho is {plan.rho:.3g} (opened sums per column over training rows), above {acceptance.maximum_rho:g}"
        _refuse(me, "maximum_rho", text, "take fewer epochs or larger batches, or raise it")
    if plan.rho > DEFAULTS.maximum_rho:
        return f"maximum_rho {DEFAULTS.maximum_rho:g} -> {acceptance.maximum_rho:g}: rho is {plan.rho:.3g}"
    return ""


PLAN_RULES = (_check_rows, _check_batches, _check_rho)
"""Each answers how far this party has relaxed its limit for the job, if it has. Raises PolicyRefused."""


def _refuse(me: PartyId, rule: str, text: str, fix: str) -> None:
    """`fix` goes to a peer that asks, `text` does not: only the second may hold a number of a table."""
    raise PolicyRefused(
        f"{me} refuses by acceptance.{rule}: {text}", fix=f"acceptance.{rule} in {me}'s party.toml: {fix}."
    )
