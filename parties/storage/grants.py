"""Grants in the database: as their owner signed them, how many jobs have used them, and which are revoked.

Every function works in the transaction of its caller, so that a use is counted in the commit that approves its job.
"""

from collections.abc import Iterable

import msgspec
import sqlalchemy as sql

from parties.storage.engine import METADATA, NUMBER
from parties.trust.errors import GrantInvalid, UnknownGrant
from parties.trust.grants import Grant, SignedGrant
from parties.trust.identity import Domain, Identity, IdentityKey

_GRANTS = sql.Table(
    "grants",
    METADATA,
    sql.Column("id", sql.String, primary_key=True),
    sql.Column("encoded", sql.LargeBinary, nullable=False),
    sql.Column("signature", sql.LargeBinary, nullable=False),
    sql.Column("created", NUMBER, nullable=False),
    sql.Column("used", NUMBER, nullable=False),
    sql.Column("revoked", NUMBER),
)


class StoredGrant(msgspec.Struct, frozen=True):
    grant: Grant
    signed: SignedGrant
    used: int
    """How many jobs it has approved."""
    revoked: int | None
    """Unix seconds."""


def add(connection: sql.Connection, signed: SignedGrant) -> StoredGrant:
    """Of a grant that this party has signed."""
    grant = msgspec.msgpack.decode(signed.encoded, type=Grant)
    row = {"id": grant.id, "created": grant.created, "used": 0} | msgspec.structs.asdict(signed)
    connection.execute(_GRANTS.insert().values(**row))
    return StoredGrant(grant, signed, 0, None)


def revoke(connection: sql.Connection, grant: str, now: int) -> StoredGrant:
    """From now on it approves no job; those it has approved go on. Raises UnknownGrant."""
    unrevoked = (_GRANTS.c.id == grant) & _GRANTS.c.revoked.is_(None)
    connection.execute(_GRANTS.update().where(unrevoked).values(revoked=now))
    if (stored := _find(connection, grant)) is None:
        raise UnknownGrant(f"this party has no grant {grant!r}")
    return stored


def all_grants(connection: sql.Connection) -> list[StoredGrant]:
    """The newest first."""
    query = _GRANTS.select().order_by(_GRANTS.c.created.desc(), _GRANTS.c.id)
    return [_stored(row) for row in connection.execute(query)]


def usable(connection: sql.Connection, owner: IdentityKey) -> list[tuple[Grant, int]]:
    """Those that are not revoked and signed with the key that the owner has now, the oldest first, and their uses."""
    return [
        (stored.grant, stored.used)
        for stored in reversed(all_grants(connection))
        if stored.revoked is None and stored.signed.is_of(owner)
    ]


def sign_again(connection: sql.Connection, former: IdentityKey, owner: Identity) -> None:
    """Another key of the owner follows: what the former one has signed stays as it is, and the new one signs it too."""
    for stored in all_grants(connection):
        if stored.signed.is_of(former):
            signature = owner.sign(Domain.GRANT, stored.signed.encoded)
            this = _GRANTS.c.id == stored.grant.id
            connection.execute(_GRANTS.update().where(this).values(signature=signature))


def count_uses(connection: sql.Connection, grants: Iterable[Grant], now: int) -> None:
    """One more job has each of them. Raises GrantInvalid for one that was used, revoked or has expired meanwhile."""
    for grant in grants:
        is_open = (_GRANTS.c.id == grant.id) & _GRANTS.c.revoked.is_(None)
        if grant.uses != "standing":
            is_open &= _GRANTS.c.used < grant.uses
        counted = connection.execute(_GRANTS.update().where(is_open).values(used=_GRANTS.c.used + 1))
        if counted.rowcount != 1 or now >= grant.expires:
            raise GrantInvalid(f"grant {grant.id} is not good for another job: it is used up, revoked or expired")


def _find(connection: sql.Connection, grant: str) -> StoredGrant | None:
    row = connection.execute(_GRANTS.select().where(_GRANTS.c.id == grant)).first()
    return None if row is None else _stored(row)


def _stored(row: "sql.Row[tuple[str, bytes, bytes, int, int, int | None]]") -> StoredGrant:
    return StoredGrant(
        msgspec.msgpack.decode(row.encoded, type=Grant),
        SignedGrant(row.encoded, row.signature),
        row.used,
        row.revoked,
    )
