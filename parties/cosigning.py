"""The heads of this party's audit log, and who signs that they were seen (c2sp.org/tlog-witness): every trusted peer,
and the witnesses that party.toml names, such as an auditor.

Threads ask them to cosign the newest head: after 100 leaves, after ten seconds while the log grows, and when it has
come to rest, as after the end of a job. What is cosigned is on the disk before, so that a machine that loses its power
does not come back with a log that is older than what was signed.

Who has signed a head which this log does not continue shows that the database was put back from a copy, or changed.
From then on no new job begins here: with that peer, or, if it is no peer, at all. Who cannot be reached holds nothing
up.
"""

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sql

from parties.errors import SettingsError
from parties.peers import Peers
from parties.server_settings import AuditSettings, WitnessSettings
from parties.storage.engine import Database
from parties.storage.ledger import Ledger
from parties.storage.owner import restored_leaves
from parties.storage.passed import AUDIT_LOG
from parties.trust.certificates import calling_context
from parties.trust.errors import AuditLogContradicted, AuditLogUnconfirmed, MalformedNote, NoteNotSigned
from parties.trust.identity import Identity
from parties.trust.leaves import Event
from parties.trust.log_keys import log_key
from parties.trust.notes import Checkpoint, Note, VerifierKey, parse_number, read_lines
from parties.trust.witness import AddCheckpoint, WitnessStanding, add_cosignatures
from parties.wire.transport import SHORTEST_EXCHANGE_SECONDS, Answer, HttpTransport, TransportFailedError
from vfl.errors import JobError
from vfl.spec.sections import PartyId

LEAVES, LONGEST_SECONDS, REST_SECONDS, LOOK_SECONDS = 100, 10.0, 1.0, 0.25
ASKED_AGAIN = 2
"""How often a witness is asked that says from which size on it wants the proof."""
CLOSE_SECONDS = 2.0

_LOG = logging.getLogger("parties")


class AskedWitness(NamedTuple):
    """Somebody who is asked to cosign the heads of this log."""

    key: VerifierKey
    post: Callable[[bytes], Answer]
    """Raises TransportFailedError."""
    peer: PartyId = ""
    """Its name, if it is a peer."""
    url: str = ""
    """Where it is asked, if it is none."""
    earlier: tuple[VerifierKey, ...] = ()
    """With which it has cosigned heads before."""

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        return (self.key, *self.earlier)

    @property
    def name(self) -> str:
        return self.peer or f"the witness {self.key.name}"

    @property
    def detail(self) -> dict[str, str]:
        """How the audit log names it."""
        return {"peer": self.peer} if self.peer else {"witness": self.key.name}


def other_witnesses(folder: Path, settings: AuditSettings) -> list[AskedWitness]:
    """Those that party.toml names. Raises SettingsError."""
    return [_other(folder, each) for each in settings.witness]


def _other(folder: Path, settings: WitnessSettings) -> AskedWitness:
    context = _trusting(folder / settings.ca) if settings.ca else ssl.create_default_context()
    transport = HttpTransport(lambda: settings.address, lambda: context, SHORTEST_EXCHANGE_SECONDS, settings.route)
    return AskedWitness(settings.verifier, lambda request: transport.post([request]), url=settings.url)


def _trusting(path: Path) -> ssl.SSLContext:
    try:
        return calling_context(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{path} is no certificate in PEM that can be read",
            fix="Name as audit.witness.ca the certificate that vouches for the witness's server, or leave it out.",
        ) from error


class Cosigning:
    """Safe for several threads."""

    def __init__(self, peers: Peers, others: Sequence[AskedWitness], database: Database, ledger: Ledger) -> None:
        self._peers, self._others, self._database, self._ledger = peers, others, database, ledger
        self._keys = peers.own_keys
        with database.reading() as connection:
            self._restored = restored_leaves(connection)
        self._sizes: dict[VerifierKey, int] = {}
        """Of the heads that were cosigned since this server runs."""
        self._problems: dict[VerifierKey, str] = {}
        self._tried_at: dict[VerifierKey, float] = {}
        self._contradicted: dict[VerifierKey, AuditLogContradicted] = {}
        self._asking: dict[VerifierKey, threading.Lock] = {}
        self._closing = threading.Event()
        # Each on its own: one that is slow delays no other.
        groups = [self._all_peers, *(partial(list, [each]) for each in others)]
        self._threads = [threading.Thread(target=self._run, args=(group,), daemon=True) for group in groups]
        for thread in self._threads:
            thread.start()

    def check(self, names: Iterable[PartyId]) -> None:
        """Before a job begins: each of these peers, and each other witness, that is there has signed no other log.

        Raises AuditLogContradicted, AuditLogUnconfirmed.
        """
        for witness in [*(self._peer(name) for name in names if name in self._peers.outboxes), *self._others]:
            waited = time.monotonic() - self._tried_at.get(witness.key, float("-inf"))
            if witness.key not in self._sizes and (witness.peer or waited >= LONGEST_SECONDS):
                self._ask(witness)
            if witness.key in self._contradicted:
                raise self._contradicted[witness.key]
            if witness.peer and not self._knows_what_was_restored(witness):
                raise AuditLogUnconfirmed(
                    f"the database of {self._keys.name} was restored from a backup, and {witness.name} has not said "
                    "yet whether it has signed more than is in it"
                )

    def check_restored(self, names: Iterable[PartyId]) -> None:
        """The same before a job goes on that was open when this party was put back from a backup; else nothing."""
        if self._restored is not None:
            self.check(names)

    def standings(self) -> list[WitnessStanding]:
        """Of those that are no peers."""
        with self._database.reading() as connection:
            sizes = {each.key: cosigned_size(connection, each.keys) for each in self._others}
        return [
            WitnessStanding(
                each.key.name,
                each.url,
                sizes[each.key],
                str(self._contradicted.get(each.key) or self._problems.get(each.key, "")),
                each.key in self._contradicted,
            )
            for each in self._others
        ]

    @property
    def keys_of_others(self) -> list[VerifierKey]:
        return [each.key for each in self._others]

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(CLOSE_SECONDS)

    def _all_peers(self) -> list[AskedWitness]:
        return list(map(self._peer, self._peers.outboxes))

    def _knows_what_was_restored(self, witness: AskedWitness) -> bool:
        """Whether it has signed a head of what this log has become since, or there is none."""
        if self._restored is None or self._sizes.get(witness.key, 0) > self._restored:
            return True
        with self._database.reading() as connection:
            return cosigned_size(connection, witness.keys) > self._restored

    def _peer(self, name: PartyId) -> AskedWitness:
        key, *earlier = self._peers.get(name).cosigners
        return AskedWitness(key, partial(self._peers.ask_witness, name), peer=name, earlier=tuple(earlier))

    def _run(self, witnesses: Callable[[], Sequence[AskedWitness]]) -> None:
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
                    answers = [self._ask(witness) for witness in witnesses()]
                    is_complete = all(answers)
            except (JobError, sql.exc.DatabaseError) as error:
                _LOG.warning("the audit log is not cosigned yet: %s", error)
                is_complete = False

    def _ask(self, witness: AskedWitness) -> bool:
        """Whether it has cosigned the newest head, or will not."""
        key = witness.key
        with self._asking.setdefault(key, threading.Lock()):
            if key in self._contradicted:
                return True
            with self._database.reading() as connection:
                # A peer takes a head of the key that it pins; an auditor has to be told of a new one.
                me = self._keys.for_peer(witness.peer) if witness.peer else self._keys.current
                head = head_of(me, connection)
                old = self._sizes.get(key) or cosigned_size(connection, witness.keys)
            self._database.sync()
            try:
                problem = self._ask_about(witness, head, old)
            except TransportFailedError as error:
                problem = f"it cannot be reached: {error}"
            if problem and not witness.peer and problem != self._problems.get(key):
                _LOG.warning("%s has not cosigned the audit log: %s", witness.name, problem)
            self._problems[key], self._tried_at[key] = problem, time.monotonic()
            return not problem

    def _ask_about(self, witness: AskedWitness, head: Note, old: int) -> str:
        """Why it has not cosigned the head; empty where it has, or will not. Raises TransportFailedError."""
        size = Checkpoint.parse(head.text).size
        for _ in range(ASKED_AGAIN):
            with self._database.reading() as connection:
                proof = AUDIT_LOG.consistency_proof(connection, old, size)
            answer = witness.post(str(AddCheckpoint(old, tuple(proof), head)).encode())
            if answer.status == 200:
                return self._keep(witness, head, answer)
            wanted = _wanted_size(answer)
            if wanted is None or wanted > size:
                return self._refused(witness, size, answer.status, wanted)
            old = wanted
        return "it asks for a proof from one size after the other"

    def _keep(self, witness: AskedWitness, head: Note, answer: Answer) -> str:
        # A peer may have said a moment ago that it has another key.
        key = self._peer(witness.peer).key if witness.peer else witness.key
        size = Checkpoint.parse(head.text).size
        try:
            with self._database.writing() as connection:
                stored = AUDIT_LOG.head(connection, size) or head
                cosigned = add_cosignatures(stored, answer.body, [key])
                cosigned.verify(key)
                AUDIT_LOG.keep_head(connection, cosigned)
        except (MalformedNote, NoteNotSigned) as error:
            return f"its answer is no cosignature of its own: {error}"
        self._sizes[key] = size
        return ""

    def _refused(self, witness: AskedWitness, size: int, status: int, wanted: int | None) -> str:
        """Why it makes sense to ask again; empty where it does not."""
        if wanted is None and status not in {409, 422}:
            return {
                403: "it does not know the present key of this log: the auditor has to add the key that "
                "`vfl audit show` prints",
                404: "it does not know this log",
            }.get(status, f"it answers {status}")
        seen = f"has signed a head of {wanted} leaves" if wanted else "has signed another log of this party"
        error = AuditLogContradicted(f"the audit log of {self._keys.name} has {size} leaves, and {witness.name} {seen}")
        if not witness.peer:
            error = AuditLogContradicted(
                str(error),
                safe="Nothing of this job was sent, and no new job begins while this witness says so.",
                fix="Stop the server and put the newest copy of its folder in place. If that is in place already, and "
                "the witness is wrong, take the witness out of party.toml.",
            )
        self._contradicted[witness.key] = error
        _LOG.error("%s %s", error, error.fix)
        self._ledger.tell(Event.RESTORED, **witness.detail, leaves=size, signed_elsewhere=wanted or size)
        return ""


def head_of(me: Identity, connection: sql.Connection, size: int | None = None) -> Note:
    """Of the first `size` leaves, or of all, signed by this party."""
    key = log_key(me.name, me.key.raw)
    size = AUDIT_LOG.size(connection) if size is None else size
    text = str(Checkpoint(key.name, size, AUDIT_LOG.root(connection, size)))
    return Note(text).signed(key.sign(text, me.private.sign))


def cosigned_size(connection: sql.Connection, keys: Sequence[VerifierKey]) -> int:
    """Of the newest head that one of these keys has cosigned."""
    for note in AUDIT_LOG.newest_heads(connection):
        if any(note.is_signed_by(key) for key in keys):
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
