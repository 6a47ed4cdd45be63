"""Whoever cosigns the heads of logs: this party for its peers, or an auditor with a program of its own.

Only the newest head of each log is kept. It is stored in the commit in which the one before was read, and is on the
disk before the answer leaves (c2sp.org/tlog-witness).
"""

import time
from collections.abc import Iterable, Sequence

from parties.storage.cosigned_heads import cosigned, keep_cosigned
from parties.storage.engine import Database
from parties.trust.notes import Checkpoint, Note, Sign, VerifierKey
from parties.trust.witness import AddCheckpoint, check


class Witness:
    """Safe for several threads."""

    def __init__(self, key: VerifierKey, sign: Sign, database: Database) -> None:
        self.key, self._sign, self._database = key, sign, database

    def cosign(self, log: Sequence[VerifierKey], request: AddCheckpoint, earlier: Iterable[VerifierKey] = ()) -> str:
        """The line by which it cosigns a head of the log that these keys sign; none where the log is not known.

        `earlier` keys have signed heads of it and sign no more.

        Raises UnknownLog, NoteNotSigned, MalformedNote, StaleHead, RewrittenLog, StorageFailed.
        """
        signed_by = next(filter(request.checkpoint.is_signed_by, log), log[0] if log else None)
        with self._database.writing() as connection:
            newest = cosigned(connection).get(signed_by.name) if signed_by else None
            # A party that was enrolled anew with another key has another log, and one that rotated its key has not.
            of_same_log = newest is not None and any(map(newest.is_signed_by, (*log, *earlier)))
            head = check(request, signed_by, Checkpoint.parse(newest.text) if newest and of_same_log else None)
            text = str(head)
            line = self.key.cosign(text, int(time.time()), self._sign)
            own = [request.checkpoint.verify(signed_by)] if signed_by else []
            keep_cosigned(connection, Note(text, (*own, line)))
        self._database.sync()
        return str(line)

    def heads(self) -> Sequence[Note]:
        """Of each log the newest that it has cosigned, in the order of their origins."""
        with self._database.reading() as connection:
            return list(cosigned(connection).values())
