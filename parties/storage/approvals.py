"""What each job asked of this party, who decided about it, and its contract: the signatures of all its parties.

Every function works in the transaction of its caller. When a job is deleted that has revealed something, these stay.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import sqlalchemy as sql

from parties.storage.engine import METADATA, insert, replace
from parties.trust.budget import BudgetLine
from parties.trust.contract import Contract, Signed
from parties.trust.summary import Summary, Terms
from vfl.kinds import decode_spec
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

_ASKED = sql.Table(
    "asked",
    METADATA,
    sql.Column("job", sql.String, primary_key=True),
    sql.Column("parties", sql.String, nullable=False),
    sql.Column("asked", sql.LargeBinary, nullable=False),
)
_APPROVALS = sql.Table(
    "approvals",
    METADATA,
    sql.Column("job", sql.String, primary_key=True),
    sql.Column("decision", sql.String, nullable=False),
    sql.Column("by", sql.String, nullable=False),
    sql.Column("time", sql.String, nullable=False),
    sql.Column("grants", sql.JSON, nullable=False),
    sql.Column("reason", sql.String, nullable=False),
)
_CONTRACTS = sql.Table(
    "contracts",
    METADATA,
    sql.Column("job", sql.String, primary_key=True),
    sql.Column("party", sql.String, primary_key=True),
    sql.Column("key", sql.LargeBinary, nullable=False),
    sql.Column("signature", sql.LargeBinary, nullable=False),
)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a job asks of this party, as its operator is shown it and as its budget would be."""

    terms: Terms
    budget: tuple[BudgetLine, ...]
    summary: Summary


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about a job, once and for good."""

    decision: Literal["approved", "rejected"]
    by: Literal["operator", "grant", "submit"]
    """The operator by hand, grants of this party, or its operator by proposing the job."""
    time: str
    grants: tuple[str, ...] = ()
    """Ids of the grants that covered it."""
    reason: str = ""
    """In the operator's words."""


def ask(connection: sql.Connection, job: str, parties: tuple[PartyId, ...], asked: Asked) -> None:
    """In place of what the same job asked before a file changed."""
    row = {"job": job, "parties": _key(parties), "asked": msgspec.msgpack.encode(asked)}
    replace(connection, _ASKED, row)


def asked_by(connection: sql.Connection, job: str) -> Asked | None:
    encoded = connection.execute(sql.select(_ASKED.c.asked).where(_ASKED.c.job == job)).scalar()
    return None if encoded is None else msgspec.msgpack.decode(encoded, type=Asked)


def decide(connection: sql.Connection, job: str, approval: Approval) -> None:
    """Raises IntegrityError for a job that was decided about before."""
    connection.execute(_APPROVALS.insert().values(job=job, **msgspec.to_builtins(approval)))


def decision(connection: sql.Connection, job: str) -> Approval | None:
    """None while nobody has decided."""
    columns = [_APPROVALS.c[name] for name in Approval.__struct_fields__]
    row = connection.execute(sql.select(*columns).where(_APPROVALS.c.job == job)).mappings().first()
    return None if row is None else Approval(**{**row, "grants": tuple(row["grants"])})


def last_terms(connection: sql.Connection, parties: tuple[PartyId, ...], kind: type[JobSpec]) -> Terms | None:
    """Of the newest approved job of this kind with exactly these parties."""
    same = (_APPROVALS.c.job == _ASKED.c.job) & (_ASKED.c.parties == _key(parties))
    query = sql.select(_ASKED.c.asked).where(same, _APPROVALS.c.decision == "approved")
    approved = connection.execute(query.order_by(_APPROVALS.c.time.desc())).scalars()
    terms = (msgspec.msgpack.decode(encoded, type=Asked).terms for encoded in approved)
    return next((each for each in terms if isinstance(decode_spec(each.spec), kind)), None)


def keep_contract(connection: sql.Connection, job: str, signed: Mapping[PartyId, Signed]) -> None:
    """Of all parties that agreed; one that agrees later is added, and what is stored does not change."""
    rows = [{"job": job, "party": party} | msgspec.structs.asdict(each) for party, each in signed.items()]
    connection.execute(insert(connection, _CONTRACTS).on_conflict_do_nothing(), rows)


def contract(connection: sql.Connection, job: str) -> Contract | None:
    """None where no contract was closed."""
    rows = connection.execute(_CONTRACTS.select().where(_CONTRACTS.c.job == job)).all()
    asked = asked_by(connection, job)
    if asked is None or not rows:
        return None
    return Contract(asked.terms.spec, {row.party: Signed(row.key, row.signature) for row in rows})


def forget(connection: sql.Connection, jobs: Sequence[str]) -> None:
    """Of jobs that are deleted and have revealed nothing."""
    for table in (_ASKED, _APPROVALS, _CONTRACTS):
        connection.execute(table.delete().where(table.c.job.in_(jobs)))


def _key(parties: tuple[PartyId, ...]) -> str:
    """The same for every order of the parties."""
    return " ".join(sorted(parties))
