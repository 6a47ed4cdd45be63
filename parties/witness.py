"""Whoever cosigns the heads of logs: this party for its peers, or an auditor with a program of its own.

Only the newest head of each log is kept. It is stored in the commit in which the one before was read, and is on the
disk before the answer leaves (c2sp.org/tlog-witness).
"""

import time
from collections.abc import Sequence

from parties.storage.cosigned_heads import cosigned, keep_cosigned
from parties.storage.engine import Database
from parties.trust.notes import Checkpoint, Note, Sign, VerifierKey
from parties.trust.witness import AddCheckpoint, check


class Witness:
    """Safe for several threads."""

    def __init__(self, key: VerifierKey, sign: Sign, database: Database) -> None:
        self.key, self._sign, self._database = key, sign, database

    def cosign(self, log: VerifierKey | None, request: AddCheckpoint) -> str:
        """The line by which it cosigns a head of this log.

        Raises UnknownLog, NoteNotSigned, MalformedNote, StaleHead, RewrittenLog, StorageFailed.
        """
        with self._database.writing() as connection:
            newest = cosigned(connection).get(log.name) if log else None
            # A party that was enrolled anew with another key has another log.
            of_same_log = newest is not None and log is not None and _is_signed_by(newest, log)
            head = check(request, log, Checkpoint.parse(newest.text) if newest and of_same_log else None)
            text = str(head)
            line = self.key.cosign(text, int(time.time()), self._sign)
            own = [each for each in request.checkpoint.signatures if log and each.by == (log.name, log.key_id)]
            keep_cosigned(connection, Note(text, (*own, line)))
        self._database.sync()
        return str(line)

    def heads(self) -> Sequence[Note]:
        """Of each log the newest that it has cosigned, in the order of their origins."""
        with self._database.reading() as connection:
            return list(cosigned(connection).values())


def _is_signed_by(note: Note, key: VerifierKey) -> bool:
    return any(line.by == (key.name, key.key_id) for line in note.signatures)
