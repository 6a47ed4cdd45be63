"""The newest head of each log that was cosigned here: a log that does not extend it was changed.

Each function works in the connection that it is given: what was read and what is stored then belong to one commit.
"""

import sqlalchemy as sql

from parties.storage.engine import METADATA, replace
from parties.trust.notes import Checkpoint, Note

_HEADS = sql.Table(
    "cosigned_heads",
    METADATA,
    sql.Column("origin", sql.String, primary_key=True),
    sql.Column("note", sql.String, nullable=False),
)


def keep_cosigned(connection: sql.Connection, note: Note) -> None:
    """The older one of the same log goes."""
    replace(connection, _HEADS, {"origin": Checkpoint.parse(note.text).origin, "note": str(note)})


def cosigned(connection: sql.Connection) -> dict[str, Note]:
    """By the origin of the log."""
    rows = connection.execute(sql.select(_HEADS.c.origin, _HEADS.c.note).order_by("origin"))
    return {origin: Note.parse(note.encode()) for origin, note in rows}
