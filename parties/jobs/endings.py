"""Jobs that are over, as the database knows them: what a peer is told that asks, and whose ending holds.

The coordinator's ending is the job's. A party that ended a job by itself, before its role returned, takes over how the
coordinator had ended it if the two crossed. What a full disk kept a party from storing, its peers tell it when its
server is back (docs/protocols/job.md).
"""

import logging
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

from parties.database_errors import DatabaseBusy
from parties.errors import (
    Failure,
    JobOver,
    NoSuchJob,
    PeerStorageFailed,
    ServerRestarted,
    StorageFailed,
    UnreadableBody,
)
from parties.jobs.reception import check_kind
from parties.storage.database import Job, Store, now
from parties.storage.ledger import Ledger
from parties.trust.leaves import Event
from parties.trust.signer import Signer
from parties.wire.control import Abort, Finish, decode_control, failure_at
from parties.wire.door import Door
from parties.wire.envelopes import CONTROL_LIMIT, Envelope, Header, check_body, read_post
from parties.wire.outbox import Outbox
from parties.wire.receipts import Receipt
from vfl.errors import RemoteProtocolError
from vfl.kinds import decode_spec
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

_LOG = logging.getLogger("parties")

ENDINGS = frozenset({"done", "failed", "cancelled"})
"""States of a job that is over, which are also the kinds of the events that tell of them."""
TOLD_FIRST: dict[str, type[StorageFailed]] = {
    StorageFailed.code: StorageFailed,
    DatabaseBusy.code: DatabaseBusy,
    PeerStorageFailed.code: StorageFailed,
}
"""Causes that a party tells its peers before it stores them, because it cannot: by what a peer calls them."""


class Endings:
    """Safe for several threads."""

    def __init__(self, me: Signer, store: Store, ledger: Ledger) -> None:
        self._signer, self._me, self._store, self._ledger = me, me.name, store, ledger
        self._taking_over = threading.Lock()
        self._contradicted: set[str] = set()
        """Jobs of which it is logged that the coordinator says more than one ending."""
        self._told_back: set[str] = set()
        """Jobs whose coordinator was told, since this server runs, the cause that it has not stored."""

    def recall(self, outboxes: Mapping[PartyId, Outbox], asking: frozenset[str]) -> None:
        """The server was away: go on telling what peers had not received then, and asking how some jobs end."""
        for job, peer, encoded, since in self._store.words():
            if peer in outboxes:
                (word,) = read_post(encoded, peer)
                outboxes[peer].owe(word, until_answered=job in asking, since=since)

    def close_unfinished(self, job: Job, failure: Failure) -> None:
        """The server was away in a job that needs this party: it has failed, and every peer is owed the word."""
        digest = bytes.fromhex(job.spec_digest)
        doors = {peer: Door(job.id, digest, self._signer, peer, self._ledger) for peer in job.peers}
        abort, attempt = Abort.of(failure), job.attempt + 1
        words = {peer: door.last_word(abort, attempt).as_sent() for peer, door in doors.items()}
        error = failure.as_stored()
        values: dict[str, Any] = {"state": "failed", "error": error, "worker_pid": None, "agreement": None}
        self._ledger.tell(Event.JOB_ENDED, job.id, state="failed", code=failure.code)
        with self._ledger.storing() as passed:
            self._store.record(
                job.id, "failed", failure.message, error, words=words, passed=passed, finished_at=now(), **values
            )

    def received(self, peer: PartyId, job: str) -> None:
        """A peer has received how a job ended."""
        try:
            self._store.keep_words(job, {peer: None})
        except StorageFailed as error:
            _LOG.warning("job %s: %s would be told its end once more: %s", job, peer, error)

    def sign_anew(self, peer: PartyId, outbox: Outbox) -> None:
        """The peer pins another key of this party from now on: what it is owed is said with that key. Raises
        StorageFailed."""
        for job, to, encoded, _ in self._store.words():
            if to == peer:
                (old,) = read_post(encoded, peer)
                word = decode_control(self._me, old.header.kind, old.message)
                door = Door(job, old.header.job_digest, self._signer, peer, self._ledger)
                new = door.last_word(word, old.header.attempt + 1)
                with self._ledger.storing() as passed:
                    self._store.keep_words(job, {peer: new.as_sent()}, passed)
                outbox.say_anew(new)

    def hear(self, envelope: Envelope, outbox: Outbox) -> Receipt:
        """A peer speaks of a job that does not run here. Raises EnvelopeRefused, StorageFailed."""
        header = envelope.header
        stored = self._store.state_for_peers(header.job)
        spec = None if stored is None else decode_spec(stored.spec)
        if stored is None or spec is None or not self._is_of_job(header, spec):
            raise NoSuchJob(f"{self._me} has no running job {header.job!r}")
        if not stored.over:
            raise StorageFailed(f"job {header.job}: its end is not stored yet")
        if header.kind == "Join" and not spec.resumes:
            raise JobOver(f"the job is over at {self._me}")
        check_kind(spec, header, self._me)
        door = Door(header.job, header.job_digest, self._signer, header.sender, self._ledger)
        decides = header.sender == spec.coordinator and header.kind in {"Abort", "Finish"}
        abort = _read_abort(envelope) if header.kind == "Abort" else None
        door.take_uncounted(envelope)
        tells = header.kind != "Refusal" and not decides
        if abort is not None:
            is_learned = self._learn_cause(header.job, header.sender, abort)
            if decides and not is_learned:
                tells = self._knows_cause(header, stored.error, abort)
                self._take_over(header.job, header.sender, abort)
        if tells:
            outbox.remind(header.job, partial(self._ending_again, door, header.job))
        return Receipt(header.job, header.attempt, header.sequence + 1, envelope.digest)

    def _is_of_job(self, header: Header, spec: JobSpec) -> bool:
        """Whether the envelope is of this very specification, and its sender one of the job's parties."""
        return (
            spec.digest() == header.job_digest and self._me in spec.parties and header.sender in spec.peers_of(self._me)
        )

    def _ending_again(self, door: Door, job: str) -> Envelope:
        stored = self._store.state_for_peers(job)
        assert stored is not None  # noqa: S101 - jobs that are over stay
        word = Finish() if stored.error is None else Abort.of(Failure(**stored.error))
        return door.last_word(word, stored.attempt + 1)

    def _learn_cause(self, job: str, peer: PartyId, abort: Abort) -> bool:
        """This server restarted before it had stored that it could store nothing: whoever had heard it tells it."""
        if abort.code not in TOLD_FIRST:
            return False
        with self._taking_over:
            stored = self._store.state_for_peers(job)
            own = Failure(**stored.error) if stored is not None and stored.error is not None else None
            if own is None or (own.code, own.side) != (ServerRestarted.code, self._me):
                return False
            cause = TOLD_FIRST[abort.code]
            text = f"{failure_at(peer, 'ended', abort.code, abort.message).message}; then {own.message}"
            error = Failure(cause.code, text, own.safe, cause.fix, self._me).as_stored()
            self._store.record(job, "failed", text, error, error=error)
            return True

    def _knows_cause(self, header: Header, error: Mapping[str, str] | None, abort: Abort) -> bool:
        """Whether the coordinator, whose server restarted, had told this party before that it could store nothing."""
        is_lost = abort.code == ServerRestarted.code and error is not None and error["code"] in TOLD_FIRST
        if not is_lost or error is None or error["side"] != header.sender or header.job in self._told_back:
            return False
        self._told_back.add(header.job)
        return True

    def _take_over(self, job: str, coordinator: PartyId, abort: Abort) -> None:
        """The first ending that is not ours replaces it; a second one would contradict the coordinator's own word."""
        failure = failure_at(coordinator, "ended", abort.code, abort.message)
        state = state_of(failure)
        with self._taking_over:
            endings = self._store.events(job, 0, 0.0, ENDINGS)
            if endings[-1].kind == state:
                return
            if endings[-1].kind != "done" and len(endings) == 1:
                text, error = f"{failure.message}; that was before it ended here", failure.as_stored()
                self._store.record(job, state, text, error, state=state, error=error)
            elif job not in self._contradicted:
                self._contradicted.add(job)
                _LOG.warning("job %s: %s says another ending than before: %s", job, coordinator, state)


def _read_abort(envelope: Envelope) -> Abort:
    """Raises EnvelopeRefused."""
    check_body(envelope, CONTROL_LIMIT)
    try:
        abort = decode_control(envelope.header.sender, envelope.header.kind, bytes(envelope.message))
    except RemoteProtocolError as error:
        raise UnreadableBody(str(error)) from error
    assert isinstance(abort, Abort)  # noqa: S101 - decoded as one
    return abort


def state_of(failure: Failure) -> str:
    return "cancelled" if failure.code == "cancelled" else "failed"
