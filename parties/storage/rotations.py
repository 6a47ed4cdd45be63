"""Which identity keys were followed by others, of this party and of its peers, and which of our keys a peer pins.

Every function works in the transaction of its caller: a key is followed in the commit that logs it.
"""

import msgspec
import sqlalchemy as sql

from parties.storage.engine import METADATA, replace
from parties.trust.identity import IdentityKey
from parties.trust.rotation import SignedRotation
from vfl.spec.sections import PartyId

_ROTATIONS = sql.Table(
    "rotations",
    METADATA,
    sql.Column("party", sql.String, primary_key=True),
    sql.Column("key", sql.LargeBinary, primary_key=True),
    sql.Column("cosigning_key", sql.LargeBinary, nullable=False),
    sql.Column("until", sql.Float, nullable=False),
    sql.Column("encoded", sql.LargeBinary, nullable=False),
    sql.Column("by_old", sql.LargeBinary, nullable=False),
    sql.Column("by_new", sql.LargeBinary, nullable=False),
)
_PINNED = sql.Table(
    "pinned_keys",
    METADATA,
    sql.Column("peer", sql.String, primary_key=True),
    sql.Column("key", sql.LargeBinary, nullable=False),
)


class FormerKey(msgspec.Struct, frozen=True, kw_only=True):
    """An identity key that another one has followed."""

    key: bytes
    cosigning_key: bytes
    until: float
    """Unix seconds: so long it counts beside the one that follows it."""
    signed: SignedRotation

    @property
    def identity_key(self) -> IdentityKey:
        return IdentityKey(self.key)


def add(connection: sql.Connection, party: PartyId, former: FormerKey) -> None:
    """In place of what followed the key before its party was enrolled with it once more."""
    this = (_ROTATIONS.c.party == party) & (_ROTATIONS.c.key == former.key)
    connection.execute(_ROTATIONS.delete().where(this))
    named = msgspec.structs.asdict(former)
    signed = msgspec.structs.asdict(named.pop("signed"))
    connection.execute(_ROTATIONS.insert().values(party=party, **named, **signed))


def former_keys(connection: sql.Connection, party: PartyId, key: bytes) -> tuple[FormerKey, ...]:
    """Those that lead to this key, the newest first. What led to other keys of a party of this name does not count."""
    before = {former.signed.read().new: former for former in all_former(connection, party)}
    former_keys: list[FormerKey] = []
    while (former := before.pop(key, None)) is not None:
        former_keys.append(former)
        key = former.key
    return tuple(former_keys)


def all_former(connection: sql.Connection, party: PartyId) -> list[FormerKey]:
    rows = connection.execute(_ROTATIONS.select().where(_ROTATIONS.c.party == party)).mappings()
    return [
        FormerKey(
            key=row["key"],
            cosigning_key=row["cosigning_key"],
            until=row["until"],
            signed=SignedRotation(row["encoded"], row["by_old"], row["by_new"]),
        )
        for row in rows
    ]


def end_overlap(connection: sql.Connection, party: PartyId) -> None:
    """No key that another one has followed counts any more."""
    connection.execute(_ROTATIONS.update().where(_ROTATIONS.c.party == party).values(until=0.0))


def note_pinned(connection: sql.Connection, peer: PartyId, key: bytes) -> None:
    """The peer pins this key of ours."""
    replace(connection, _PINNED, {"peer": peer, "key": key})


def pinned_keys(connection: sql.Connection) -> dict[PartyId, bytes]:
    """By peer; one that is not named pins the first key that this party had."""
    return {row.peer: row.key for row in connection.execute(_PINNED.select())}
