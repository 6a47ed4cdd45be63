"""Jobs that are over, as the database knows them: what a peer is told that asks, and whose ending holds.

The coordinator's ending is the job's. A party that ended a job by itself, before its role returned, takes over how the
coordinator had ended it if the two crossed (docs/protocols/job.md).
"""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from parties.errors import Failure, JobOver, NoSuchJob, StorageFailed, UnreadableBody
from parties.storage.database import Ending, Job, Store, now
from parties.wire.control import Abort, Control, Finish, decode_control, encode_control, failure_at
from parties.wire.envelopes import CONTROL_LIMIT, Envelope, Outgoing, check_body, read_post
from parties.wire.outbox import Outbox, Receipt
from vfl.errors import RemoteProtocolError
from vfl.spec.job import JobSpec, decode_spec
from vfl.spec.sections import PartyId

_LOG = logging.getLogger("parties")


class Endings:
    """Safe for several threads."""

    def __init__(self, me: PartyId, store: Store) -> None:
        self._me, self._store = me, store

    def recall(self, outboxes: Mapping[PartyId, Outbox], open_jobs: frozenset[str]) -> None:
        """The server was away: go on telling what peers had not received then."""
        for job, peer, encoded, since in self._store.words():
            if peer in outboxes:
                (word,) = read_post(encoded, peer)
                outboxes[peer].owe(word, until_answered=job in open_jobs, since=since)

    def told(self, peer: PartyId, job: str) -> None:
        """A peer has received how a job ended."""
        try:
            self._store.keep_words(job, {peer: None})
        except StorageFailed as error:
            _LOG.warning("job %s: %s would be told its end once more: %s", job, peer, error)

    def hear(self, envelope: Envelope, outbox: Outbox) -> Receipt:
        """A peer speaks of a job that does not run here. Raises EnvelopeRefused, StorageFailed."""
        header = envelope.header
        ending = self._store.ending(header.job)
        spec = None if ending is None else decode_spec(ending.spec)
        if ending is None or spec is None or spec.digest() != header.job_digest or self._stranger(header.sender, spec):
            raise NoSuchJob(f"{self._me} has no running job {header.job!r}")
        if not ending.over:
            raise StorageFailed(f"job {header.job}: its end is not stored yet")
        if header.kind == "Join":
            raise JobOver(f"the job is over at {self._me}")
        if header.sender == spec.coordinator and header.kind in {"Abort", "Finish"}:
            self._take_over(envelope, ending)
        elif header.kind != "Refusal":
            outbox.remind(self._word(header.job, header.sender, ending, spec))
        return Receipt(header.job, header.attempt, header.sequence + 1)

    def _stranger(self, sender: PartyId, spec: JobSpec) -> bool:
        return self._me not in spec.parties or sender not in spec.peers_of(self._me)

    def _word(self, job: str, peer: PartyId, ending: Ending, spec: JobSpec) -> Envelope:
        control = Finish() if ending.error is None else Abort.of(Failure(**ending.error))
        return word_of(job, spec.digest(), ending.attempt, self._me, peer, control)

    def _take_over(self, envelope: Envelope, ending: Ending) -> None:
        header = envelope.header
        if header.kind == "Finish":
            return
        check_body(envelope, CONTROL_LIMIT)
        try:
            control = decode_control(header.kind, envelope.body)
        except RemoteProtocolError as error:
            raise UnreadableBody(str(error)) from error
        assert isinstance(control, Abort)  # noqa: S101 - decoded as one
        failure = failure_at(header.sender, "ended", control.code, control.message)
        state = state_of(failure)
        if ending.state == "done":
            _LOG.warning("job %s: %s says it has ended a job that it had said is done", header.job, header.sender)
        elif ending.state != state:
            text = f"{failure.message}; that was before it ended here"
            told = failure.as_stored()
            self._store.record(header.job, state, text, told, state=state, error=told)


def state_of(failure: Failure) -> str:
    return "cancelled" if failure.code == "cancelled" else "failed"


def word_of(job: str, job_digest: bytes, attempt: int, me: PartyId, peer: PartyId, control: Control) -> Envelope:
    """A last word where nothing else is known of the link any more."""
    (word,) = Outgoing(job, job_digest, attempt + 1, me, peer).seal(control.kind, encode_control(control))
    return word


def close_unfinished(store: Store, job: Job, failure: Failure) -> None:
    """The server was away in a job that needs this party: it has failed, and every peer is owed the word."""
    encode = partial(word_of, job.id, bytes.fromhex(job.spec_digest), job.attempt, job.party)
    words = {peer: encode(peer, Abort.of(failure)).as_sent() for peer in job.peers}
    error = failure.as_stored()
    values: dict[str, Any] = {"state": "failed", "error": error, "worker_pid": None, "agreement": None}
    store.record(job.id, "failed", failure.message, error, words=words, finished_at=now(), **values)
