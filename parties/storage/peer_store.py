"""The peers of this party and its open invitations, stored before anything is believed because of them."""

import msgspec
import sqlalchemy as sql

from parties.storage import rotations
from parties.storage.engine import METADATA, NUMBER, Database
from parties.storage.passed import AUDIT_LOG
from parties.storage.rotations import FormerKey
from parties.trust.identity import IdentityKey
from parties.trust.leaves import Event
from parties.trust.log_keys import cosigning_key
from parties.trust.notes import VerifierKey
from vfl.spec.sections import PartyId

WAITING, TRUSTED, REMOVED = "waiting", "trusted", "removed"


class StoredPeer(msgspec.Struct, frozen=True, kw_only=True):
    """A party that this one knows."""

    name: PartyId
    address: str
    """HOST:PORT of its peer port."""
    key: bytes
    """The identity key that is pinned: 32 bytes."""
    cosigning_key: bytes
    """32 bytes."""
    state: str
    """waiting (this operator has not confirmed the six words), trusted or removed."""
    words: str = ""
    """What both operators compare while it is waiting."""
    added_at: str = ""
    former: tuple[FormerKey, ...] = ()
    """Keys that were pinned before it rotated, the newest first."""

    @property
    def is_trusted(self) -> bool:
        return self.state == TRUSTED

    def keys(self, at: float) -> tuple[IdentityKey, ...]:
        """Those that count at this moment (Unix seconds), the newest first."""
        counting = (former.identity_key for former in self.former if at < former.until)
        return (IdentityKey(self.key), *counting)

    @property
    def all_keys(self) -> tuple[bytes, ...]:
        """Also those that count no more: what they have signed can still be verified."""
        return (self.key, *(former.key for former in self.former))

    @property
    def all_cosigning_keys(self) -> tuple[bytes, ...]:
        return (self.cosigning_key, *(former.cosigning_key for former in self.former))

    @property
    def cosigners(self) -> tuple[VerifierKey, ...]:
        """With which it signs the heads of this party's audit log: the present key, then those before it."""
        return tuple(cosigning_key(self.name, key) for key in self.all_cosigning_keys)


class OpenInvitation(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation of this party that nobody has answered yet."""

    id: str
    peer: PartyId
    """Whom it is meant for, by the name this operator expects."""
    packed: bytes
    expires_at: int
    """Unix seconds."""


_PEERS = sql.Table(
    "peers",
    METADATA,
    sql.Column("name", sql.String, primary_key=True),
    sql.Column("address", sql.String, nullable=False),
    sql.Column("key", sql.LargeBinary, nullable=False),
    sql.Column("cosigning_key", sql.LargeBinary, nullable=False),
    sql.Column("state", sql.String, nullable=False),
    sql.Column("words", sql.String, nullable=False),
    sql.Column("added_at", sql.String, nullable=False),
)
_INVITATIONS = sql.Table(
    "invitations",
    METADATA,
    sql.Column("id", sql.String, primary_key=True),
    sql.Column("peer", sql.String, nullable=False),
    sql.Column("packed", sql.LargeBinary, nullable=False),
    sql.Column("expires_at", NUMBER, nullable=False),
)


class PeerStore:
    """Safe for several threads. A write raises StorageFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, peer: StoredPeer) -> None:
        """In place of what was known of a party of this name."""
        with self._database.writing() as connection:
            _put(connection, peer)

    def follow(self, peer: StoredPeer, former: FormerKey) -> None:
        """It has another key now; the audit log tells of it in the same commit."""
        with self._database.writing() as connection:
            rotations.add(connection, peer.name, former)
            _put(connection, peer)
            AUDIT_LOG.tell(connection, Event.KEY_ROTATED, "", peer.name, **former.signed.detail())

    def all(self) -> list[StoredPeer]:
        with self._database.reading() as connection:
            rows = connection.execute(_PEERS.select().order_by(_PEERS.c.name)).mappings().all()
            return [_read(connection, row) for row in rows]

    def get(self, name: PartyId) -> StoredPeer:
        """Of one that was put here."""
        with self._database.reading() as connection:
            return _read(connection, connection.execute(_PEERS.select().where(_PEERS.c.name == name)).mappings().one())

    def end_former(self, name: PartyId) -> None:
        """No key of this peer counts any more that another one has followed."""
        with self._database.writing() as connection:
            rotations.end_overlap(connection, name)

    def put_invitation(self, invitation: OpenInvitation) -> None:
        """An earlier one for the same peer no longer counts."""
        with self._database.writing() as connection:
            connection.execute(_INVITATIONS.delete().where(_INVITATIONS.c.peer == invitation.peer))
            connection.execute(_INVITATIONS.insert().values(**msgspec.structs.asdict(invitation)))

    def invitations(self, now: float) -> list[OpenInvitation]:
        """Those that are still good."""
        query = _INVITATIONS.select().where(_INVITATIONS.c.expires_at > now).order_by(_INVITATIONS.c.peer)
        with self._database.reading() as connection:
            return [OpenInvitation(**row) for row in connection.execute(query).mappings()]

    def withdraw(self, invitation: str) -> bool:
        """Whether it was open."""
        with self._database.writing() as connection:
            return _take(connection, invitation)

    def use(self, invitation: str, peer: StoredPeer) -> bool:
        """Use an invitation up for this peer. False where it is not open any more; then nothing is stored."""
        with self._database.writing() as connection:
            is_open = _take(connection, invitation)
            if is_open:
                _put(connection, peer)
            return is_open


def _put(connection: sql.Connection, peer: StoredPeer) -> None:
    """But for its former keys, of which each is stored when another follows it."""
    row = {name: value for name, value in msgspec.structs.asdict(peer).items() if name in _PEERS.c}
    connection.execute(_PEERS.delete().where(_PEERS.c.name == peer.name))
    connection.execute(_PEERS.insert().values(**row))


def _read(connection: sql.Connection, row: sql.RowMapping) -> StoredPeer:
    return StoredPeer(**row, former=rotations.former_keys(connection, row["name"], row["key"]))


def _take(connection: sql.Connection, invitation: str) -> bool:
    return connection.execute(_INVITATIONS.delete().where(_INVITATIONS.c.id == invitation)).rowcount == 1
