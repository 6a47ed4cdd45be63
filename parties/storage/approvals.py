"""Who decided about each job, on what terms, and its contract: the specification and all parties' signatures.

Every function works in the transaction of its caller. Rows stay when the job itself is deleted.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec
import sqlalchemy as sql

from parties.storage.engine import METADATA
from parties.trust.summary import Terms
from vfl.spec.sections import PartyId

_APPROVALS = sql.Table(
    "approvals",
    METADATA,
    sql.Column("job", sql.String, primary_key=True),
    sql.Column("decision", sql.String, nullable=False),
    sql.Column("by", sql.String, nullable=False),
    sql.Column("time", sql.String, nullable=False),
    sql.Column("grants", sql.JSON, nullable=False),
    sql.Column("reason", sql.String, nullable=False),
    sql.Column("parties", sql.String, nullable=False),
    sql.Column("terms", sql.LargeBinary, nullable=False),
)
_CONTRACTS = sql.Table(
    "contracts",
    METADATA,
    sql.Column("job", sql.String, primary_key=True),
    sql.Column("party", sql.String, primary_key=True),
    sql.Column("signature", sql.LargeBinary, nullable=False),
)


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about a job, once and for good."""

    job: str
    decision: Literal["approved", "rejected"]
    by: Literal["operator", "grant", "submit"]
    """The operator by hand, grants of this party, or its operator by proposing the job."""
    time: str
    grants: tuple[str, ...] = ()
    """Ids of the grants that covered it."""
    reason: str = ""
    """In the operator's words."""


def decide(connection: sql.Connection, approval: Approval, parties: tuple[PartyId, ...], terms: Terms) -> None:
    """Raises IntegrityError for a job that was decided about before."""
    row = msgspec.to_builtins(approval) | {"parties": _key(parties), "terms": msgspec.msgpack.encode(terms)}
    connection.execute(_APPROVALS.insert().values(**row))


def decision(connection: sql.Connection, job: str) -> Approval | None:
    """None while nobody has decided."""
    columns = [_APPROVALS.c[name] for name in Approval.__struct_fields__]
    row = connection.execute(sql.select(*columns).where(_APPROVALS.c.job == job)).mappings().first()
    return None if row is None else Approval(**{**row, "grants": tuple(row["grants"])})


def last_terms(connection: sql.Connection, parties: tuple[PartyId, ...]) -> Terms | None:
    """Of the newest approved job with exactly these parties."""
    approved = (_APPROVALS.c.parties == _key(parties)) & (_APPROVALS.c.decision == "approved")
    query = sql.select(_APPROVALS.c.terms).where(approved).order_by(_APPROVALS.c.time.desc()).limit(1)
    terms = connection.execute(query).scalar()
    return None if terms is None else msgspec.msgpack.decode(terms, type=Terms)


def keep_contract(connection: sql.Connection, job: str, signatures: Mapping[PartyId, bytes]) -> None:
    """Every party's signature over the digest of the specification, which the terms of the approval hold."""
    rows = [{"job": job, "party": party, "signature": signature} for party, signature in signatures.items()]
    connection.execute(_CONTRACTS.insert(), rows)


def contract(connection: sql.Connection, job: str) -> tuple[bytes, dict[PartyId, bytes]] | None:
    """The canonical specification and the signatures of its parties; None where no contract was closed."""
    terms = connection.execute(sql.select(_APPROVALS.c.terms).where(_APPROVALS.c.job == job)).scalar()
    query = sql.select(_CONTRACTS.c.party, _CONTRACTS.c.signature).where(_CONTRACTS.c.job == job)
    signatures = {row.party: row.signature for row in connection.execute(query)}
    if terms is None or not signatures:
        return None
    return msgspec.msgpack.decode(terms, type=Terms).spec, signatures


def _key(parties: tuple[PartyId, ...]) -> str:
    """The same for every order of the parties."""
    return " ".join(sorted(parties))
