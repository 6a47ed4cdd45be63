"""The peers of this party, and the invitations that are open, in its database."""

import msgspec
import sqlalchemy as sql

from parties.trust.identity import IdentityKey
from vfl.spec.sections import PartyId


class StoredPeer(msgspec.Struct, frozen=True, kw_only=True):
    """A party that this one knows."""

    name: PartyId
    address: str
    """HOST:PORT of its peer port."""
    key: bytes
    """The identity key that is pinned: 32 bytes."""
    cosigning_key: bytes
    state: str
    """waiting (its operator's words have not been confirmed here), trusted or removed."""
    words: str = ""
    """What both operators compare while it is waiting."""
    added_at: str = ""
    old_key: bytes = b""
    """The key before the last rotation, good until `old_key_until`."""
    old_key_until: float = 0.0

    def keys(self, now: float) -> tuple[IdentityKey, ...]:
        """Those that count at this moment (Unix seconds), the newest first."""
        old = (IdentityKey(self.old_key),) if self.old_key and now < self.old_key_until else ()
        return (IdentityKey(self.key), *old)


WAITING, TRUSTED, REMOVED = "waiting", "trusted", "removed"


class OpenInvitation(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation of this party that nobody has answered yet."""

    id: str
    peer: PartyId
    """Whom it is meant for, by the name this operator expects."""
    line: bytes
    """The invitation, packed."""
    expires_at: int


def peers_table(metadata: sql.MetaData) -> sql.Table:
    return sql.Table(
        "peers",
        metadata,
        sql.Column("name", sql.String, primary_key=True),
        sql.Column("address", sql.String, nullable=False),
        sql.Column("key", sql.LargeBinary, nullable=False),
        sql.Column("cosigning_key", sql.LargeBinary, nullable=False),
        sql.Column("state", sql.String, nullable=False),
        sql.Column("words", sql.String, nullable=False),
        sql.Column("added_at", sql.String, nullable=False),
        sql.Column("old_key", sql.LargeBinary, nullable=False),
        sql.Column("old_key_until", sql.Float, nullable=False),
    )


def invitations_table(metadata: sql.MetaData) -> sql.Table:
    return sql.Table(
        "invitations",
        metadata,
        sql.Column("id", sql.String, primary_key=True),
        sql.Column("peer", sql.String, nullable=False),
        sql.Column("line", sql.LargeBinary, nullable=False),
        sql.Column("expires_at", sql.Integer, nullable=False),
    )


def put_peer(connection: sql.Connection, table: sql.Table, peer: StoredPeer) -> None:
    """In place of what was known of a party of this name."""
    connection.execute(table.delete().where(table.c.name == peer.name))
    connection.execute(table.insert().values(**msgspec.structs.asdict(peer)))


def all_peers(connection: sql.Connection, table: sql.Table) -> list[StoredPeer]:
    rows = connection.execute(table.select().order_by(table.c.name)).mappings()
    return [StoredPeer(**row) for row in rows]


def put_invitation(connection: sql.Connection, table: sql.Table, invitation: OpenInvitation) -> None:
    """An earlier one for the same peer no longer counts."""
    connection.execute(table.delete().where(table.c.peer == invitation.peer))
    connection.execute(table.insert().values(**msgspec.structs.asdict(invitation)))


def take_invitation(connection: sql.Connection, table: sql.Table, invitation: str) -> bool:
    """Use it up. False where it is not open: used before, withdrawn, or never made."""
    return connection.execute(table.delete().where(table.c.id == invitation)).rowcount == 1


def open_invitations(connection: sql.Connection, table: sql.Table, now: float) -> list[OpenInvitation]:
    rows = connection.execute(table.select().where(table.c.expires_at > now).order_by(table.c.id)).mappings()
    return [OpenInvitation(**row) for row in rows]
