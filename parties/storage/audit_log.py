"""The audit log in the party's database: leaves, the hashes of complete subtrees, and its heads that others cosigned.

Each method works in the connection that it is given, so that leaves are stored in the same commit as what they tell of.
A leaf is never changed and never removed. Two writers cannot both append at one place: the second one's commit fails.
"""

import time
from collections.abc import Iterator, Sequence

import sqlalchemy as sql

from parties.storage.engine import NUMBER, replace
from parties.trust import merkle
from parties.trust.leaves import Event, Leaf, encode
from parties.trust.merkle import Place, leaf_hash
from parties.trust.notes import Checkpoint, Note

LEAVES_AT_ONCE = 1000


class AuditLog:
    def __init__(self, metadata: sql.MetaData) -> None:
        self._leaves = sql.Table(
            "audit_leaves",
            metadata,
            sql.Column("number", NUMBER, primary_key=True, autoincrement=False),
            sql.Column("leaf", sql.LargeBinary, nullable=False),
        )
        self._subtrees = sql.Table(
            "audit_subtrees",
            metadata,
            sql.Column("level", NUMBER, primary_key=True, autoincrement=False),
            sql.Column("number", NUMBER, primary_key=True, autoincrement=False),
            sql.Column("hash", sql.LargeBinary, nullable=False),
        )
        self._heads = sql.Table(
            "audit_heads",
            metadata,
            sql.Column("size", NUMBER, primary_key=True, autoincrement=False),
            sql.Column("note", sql.String, nullable=False),
        )

    def append(self, connection: sql.Connection, leaves: Sequence[bytes]) -> int:
        """Behind those that are there; answers how many there are now."""
        size = self.size(connection)
        if not leaves:
            return size
        grown = merkle.grow(size, map(leaf_hash, leaves), self._lookup(connection))
        rows = [{"number": number, "leaf": leaf} for number, leaf in enumerate(leaves, size)]
        connection.execute(self._leaves.insert(), rows)
        connection.execute(self._subtrees.insert(), [{**place._asdict(), "hash": grown[place]} for place in grown])
        return size + len(leaves)

    def tell(
        self, connection: sql.Connection, event: Event, job: str = "", peer: str = "", **detail: str | int
    ) -> None:
        """Something has happened that is stored in the same transaction."""
        leaf = Leaf(time_ms=time.time_ns() // 1_000_000, event=event, job=job, peer=peer, detail=detail)
        self.append(connection, [encode(leaf)])

    def size(self, connection: sql.Connection) -> int:
        last = connection.execute(sql.select(sql.func.max(self._leaves.c.number))).scalar()
        return 0 if last is None else int(last) + 1

    def root(self, connection: sql.Connection, size: int) -> bytes:
        """Of the first `size` leaves."""
        return merkle.root(size, self._lookup(connection))

    def inclusion_proof(self, connection: sql.Connection, index: int, size: int) -> list[bytes]:
        return merkle.inclusion_proof(index, size, self._lookup(connection))

    def consistency_proof(self, connection: sql.Connection, old: int, new: int) -> list[bytes]:
        return merkle.consistency_proof(old, new, self._lookup(connection))

    def leaves(self, connection: sql.Connection, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """In order, from `start` up to, not including, `end`."""
        number, query = self._leaves.c.number, sql.select(self._leaves.c.leaf)
        end = self.size(connection) if end is None else end
        for first in range(start, end, LEAVES_AT_ONCE):
            page = query.where(number >= first, number < min(end, first + LEAVES_AT_ONCE)).order_by(number)
            yield from connection.execute(page).scalars()

    def keep_head(self, connection: sql.Connection, note: Note) -> None:
        """A head of this log with its cosignatures; one of the same size gives way."""
        replace(connection, self._heads, {"size": Checkpoint.parse(note.text).size, "note": str(note)})

    def heads(self, connection: sql.Connection) -> list[Note]:
        """Those that were kept, in the order of their sizes."""
        query = sql.select(self._heads.c.note).order_by(self._heads.c.size)
        return [Note.parse(note.encode()) for note in connection.execute(query).scalars()]

    def newest_heads(self, connection: sql.Connection) -> Iterator[Note]:
        """The same, the newest first, read as they are asked for."""
        query = sql.select(self._heads.c.note).order_by(self._heads.c.size.desc())
        for note in connection.execute(query).scalars():
            yield Note.parse(note.encode())

    def head(self, connection: sql.Connection, size: int) -> Note | None:
        """The one of this size, if it was kept."""
        note = connection.execute(sql.select(self._heads.c.note).where(self._heads.c.size == size)).scalar()
        return None if note is None else Note.parse(note.encode())

    def _lookup(self, connection: sql.Connection) -> merkle.Lookup:
        table = self._subtrees.c

        def lookup(place: Place) -> bytes:
            query = sql.select(table.hash).where(table.level == place.level, table.number == place.number)
            return bytes(connection.execute(query).scalar_one())

        return lookup
