"""The heads of this party's audit log, and the peers that sign that they have seen them (c2sp.org/tlog-witness).

A thread asks every trusted peer to cosign the newest head: after 100 leaves, after ten seconds while the log grows, and
when it has come to rest, as after the end of a job. What is cosigned is on the disk before, so that a machine that
loses its power does not come back with a log that is older than what its peers have signed.

A peer that has signed a head which this log does not continue shows that the database was put back from a copy, or
changed. From then on no new job with that peer begins here.
"""

import logging
import threading
import time
from collections.abc import Iterable

import sqlalchemy as sql

from parties.peers import Peers
from parties.storage.engine import Database
from parties.storage.ledger import Ledger
from parties.storage.passed import AUDIT_LOG
from parties.storage.peer_store import StoredPeer
from parties.trust.errors import AuditLogContradicted, MalformedNote, NoteNotSigned
from parties.trust.identity import Identity
from parties.trust.leaves import Event
from parties.trust.log_keys import cosigning_key, log_key
from parties.trust.notes import Checkpoint, Note, parse_number, read_lines
from parties.trust.witness import AddCheckpoint, add_cosignatures
from parties.wire.transport import Answer
from vfl.errors import JobError
from vfl.spec.sections import PartyId

LEAVES, LONGEST_SECONDS, REST_SECONDS, LOOK_SECONDS = 100, 10.0, 1.0, 0.25
ASKED_AGAIN = 2
"""How often a peer is asked that says from which size on it wants the proof."""
CLOSE_SECONDS = 2.0

_LOG = logging.getLogger("parties")


class Cosigning:
    """Safe for several threads."""

    def __init__(self, peers: Peers, database: Database, ledger: Ledger) -> None:
        self._peers, self._database, self._ledger = peers, database, ledger
        self._me = peers.identity
        self._sizes: dict[PartyId, int] = {}
        """Of the heads that peers have cosigned since this server runs."""
        self._contradicted: dict[PartyId, AuditLogContradicted] = {}
        self._asking = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cosigning", daemon=True)
        self._thread.start()

    def check(self, names: Iterable[PartyId]) -> None:
        """Before a job begins: each of these peers that is there has signed no other log than there is here.

        Raises AuditLogContradicted.
        """
        for name in names:
            if name in self._peers.outboxes and name not in self._sizes:
                self._ask(name)
            if name in self._contradicted:
                raise self._contradicted[name]

    def close(self) -> None:
        self._closing.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        asked, size, grown_at, asked_at, is_complete = 0, 0, 0.0, 0.0, True
        while not self._closing.wait(LOOK_SECONDS):
            try:
                with self._database.reading() as connection:
                    before, size = size, AUDIT_LOG.size(connection)
                now = time.monotonic()
                grown_at = now if size != before else grown_at
                is_at_rest, is_old = now - grown_at >= REST_SECONDS, now - asked_at >= LONGEST_SECONDS
                is_due = size > asked and (size - asked >= LEAVES or is_at_rest)
                if is_due or (is_old and (size > asked or not is_complete)):
                    asked, asked_at = size, now
                    answers = [self._ask(name) for name in self._peers.outboxes]
                    is_complete = all(answers)
            except (JobError, sql.exc.DatabaseError) as error:
                _LOG.warning("the audit log is not cosigned yet: %s", error)
                is_complete = False

    def _ask(self, name: PartyId) -> bool:
        """Whether this peer has cosigned the newest head, or will not."""
        with self._asking:
            peer = self._peers.get(name)
            if name in self._contradicted:
                return True
            with self._database.reading() as connection:
                head = head_of(self._me, connection)
                old = self._sizes.get(name) or _cosigned_size(connection, peer)
            self._database.sync()
            return self._ask_about(peer, head, old)

    def _ask_about(self, peer: StoredPeer, head: Note, old: int) -> bool:
        size = Checkpoint.parse(head.text).size
        for _ in range(ASKED_AGAIN):
            with self._database.reading() as connection:
                proof = AUDIT_LOG.consistency_proof(connection, old, size)
            request = AddCheckpoint(old, tuple(proof), head)
            answer = self._peers.ask_witness(peer.name, str(request).encode())
            if answer is None:
                return False
            if answer.status == 200:
                self._keep(peer, head, answer)
                return True
            wanted = _wanted_size(answer)
            if wanted is None or wanted > size:
                return self._refused(peer, size, answer.status, wanted)
            old = wanted
        return False

    def _keep(self, peer: StoredPeer, head: Note, answer: Answer) -> None:
        size, key = Checkpoint.parse(head.text).size, cosigning_key(peer.name, peer.cosigning_key)
        try:
            with self._database.writing() as connection:
                kept = AUDIT_LOG.head(connection, size) or head
                cosigned = add_cosignatures(kept, answer.body, [key])
                cosigned.verify(key)
                AUDIT_LOG.keep_head(connection, cosigned)
        except (MalformedNote, NoteNotSigned) as error:
            _LOG.warning("%s answers with no cosignature of its own: %s", peer.name, error)
            return
        self._sizes[peer.name] = size

    def _refused(self, peer: StoredPeer, size: int, status: int, wanted: int | None) -> bool:
        """Whether it makes no sense to ask again."""
        if wanted is None and status not in {409, 422}:
            _LOG.warning("%s does not cosign the audit log: it answers %d", peer.name, status)
            return False
        seen = f"has signed a head of {wanted} leaves" if wanted else "has signed another log of this party"
        error = AuditLogContradicted(f"the audit log of {self._me.name} has {size} leaves, and {peer.name} {seen}")
        self._contradicted[peer.name] = error
        _LOG.error("%s %s", error, error.fix)
        self._ledger.tell(Event.RESTORED, peer=peer.name, leaves=size, signed_by_peer=wanted or size)
        return True


def head_of(me: Identity, connection: sql.Connection, size: int | None = None) -> Note:
    """Of the first `size` leaves, or of all, signed by this party."""
    key = log_key(me.name, me.key.raw)
    size = AUDIT_LOG.size(connection) if size is None else size
    text = str(Checkpoint(key.name, size, AUDIT_LOG.root(connection, size)))
    return Note(text).signed(key.sign(text, me.private.sign))


def cosigned_sizes(connection: sql.Connection, peers: Iterable[StoredPeer]) -> dict[PartyId, int]:
    """The newest head that each has cosigned."""
    return {peer.name: _cosigned_size(connection, peer) for peer in peers}


def _cosigned_size(connection: sql.Connection, peer: StoredPeer) -> int:
    key = cosigning_key(peer.name, peer.cosigning_key)
    for note in AUDIT_LOG.newest_heads(connection):
        if any(line.by == (key.name, key.key_id) for line in note.signatures):
            return Checkpoint.parse(note.text).size
    return 0


def _wanted_size(answer: Answer) -> int | None:
    """What a witness says whose newest head is of another size."""
    if answer.status != 409:
        return None
    try:
        (size,) = read_lines(answer.body)
        return parse_number(size)
    except (MalformedNote, ValueError):
        return None
