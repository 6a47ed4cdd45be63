"""How one job ends at this party: what came of it, whom that is told, and from when on only the coordinator ends it.

Nothing is told before it is stored, and what is told is stored with it (docs/protocols/job.md).
"""

import logging
from typing import TYPE_CHECKING, Any

import msgspec

from parties.errors import Failure
from parties.jobs.endings import abort_of, state_of
from parties.jobs.journal import Ending, result_of
from parties.storage.database import now
from parties.storage.kept_words import Words
from parties.storage.manifest import manifest
from parties.storage.models import ModelStore
from parties.wire.envelopes import Envelope
from parties.wire.link import Link, PeerState
from vfl.errors import RowsDiffer
from vfl.reports import Outcome
from vfl.spec.sections import PartyId

if TYPE_CHECKING:
    from parties.jobs.supervisor import Supervisor

_LOG = logging.getLogger("parties")

STATES_KEPT = "No model was stored; the states it had reached are kept."

MEASURED = ("model_digest", "metrics", "operations", "series", "notices")
"""What of a manifest an operator is shown with the job."""

LastWords = dict[PartyId, Envelope | None]
"""By peer; None where it need not hear anything any more."""


class Closing:
    """Its methods run under the supervisor's lock, or take it."""

    def __init__(self, job: "Supervisor", registry: ModelStore) -> None:
        self._job, self._models = job, registry
        self.result: dict[str, Any] | None = None
        """The manifest, once the role has returned."""

    @property
    def awaits_word(self) -> bool:
        """Only the coordinator ends the job from now on: it may have done so already."""
        job = self._job
        return self.result is not None and job.me != job.spec.coordinator and not job.over

    def keep(self, outcome: Outcome) -> None:
        """The role returned: store its half first, so that a full disk is told before anybody says Finish."""
        job = self._job
        notices = msgspec.to_builtins(job.journal.tell(outcome.notices))
        told = manifest(job.job, job.spec, job.me, job.inputs, {"notices": notices} | result_of(outcome))
        result = self._models.keep_model(job.job, outcome.state, told, job.inputs)
        with job.lock:
            if job.over:
                self._models.discard(job.job)
                return
            words = job.side.words_of_return()
            self._count(words)
            text = "trained; waiting for the other parties"
            job.journal.record("trained", text, None, _stored(words), trained_at=now(), worker_pid=None)
            self.result = result
            self._say(words, until_answered=True)
            if not job.needs_all:
                job.later(job.spec.join_timeout_seconds, self._wait_no_longer)
            self.finish_together()

    def _wait_no_longer(self) -> None:
        self._job.side.wait_no_longer()
        self.finish_together()

    def finish_together(self) -> None:
        """Done, if the role has returned and every peer that is there has said the same. Raises StorageFailed."""
        job = self._job
        awaited = any(link.state is PeerState.LIVE and not link.finished for link in job.links.values())
        if self.result is None or job.over or awaited:
            return
        self._models.seal(job.job, self.result | {"finished_at": now()})
        words = job.side.words_of_end()
        self._count(words)
        values = {name: self.result[name] for name in MEASURED}
        job.journal.close(Ending("done", f"{job.spec.job.name} is done", None, _stored(words), values))
        self._models.drop_result(job.job)
        _LOG.info("job %s: done", job.job)
        job.stop()
        self._say(words)
        job.closed()

    def fail(self, failure: Failure, knowing: PartyId | None = None) -> None:
        """End the job here and tell every peer but the one that told us. Later endings change nothing."""
        job = self._job
        with job.lock:
            if job.over:
                return
            if self.awaits_word and knowing is None:
                self._request_end(failure)
                return
            here = [link for link in job.links.values() if link.state is not PeerState.GONE]
            for link in here:
                link.leave(PeerState.GONE)
            abort = abort_of(failure)
            self.end(failure, {link.peer: None if link.peer == knowing else link.word(abort) for link in here})

    def end(self, failure: Failure, words: LastWords) -> None:
        """The job ends with these words."""
        job = self._job
        if self._models.discard(job.job):
            failure = msgspec.structs.replace(failure, safe=STATES_KEPT)
        if failure.code == RowsDiffer.code:  # what a peer is told stands in the words: this is about our own ids
            failure = msgspec.structs.replace(failure, fix=f"{failure.fix} {job.run.about_ids}".strip())
        # Only the code is logged: a message about a table may show its owner a value.
        state = state_of(failure)
        _LOG.info("job %s: %s: %s at %s", job.job, state, failure.code, failure.side)
        self._count(words)
        job.stop()
        job.run.stop()
        ending = Ending(state, failure.message, failure.as_stored(), _stored(words), {})
        job.journal.close_in_time(ending, job.closed)
        self._say(words)

    def let_go(self, link: Link, failure: Failure) -> None:
        """The job goes on without this peer, which has to hear it."""
        words: LastWords = {link.peer: link.word(abort_of(failure))}
        self._count(words)
        self._job.journal.keep_words(_stored(words))
        self._say(words)

    def _request_end(self, failure: Failure) -> None:
        """The coordinator may have ended the job already: it is asked to end it, and answers how it ended."""
        job = self._job
        words: LastWords = {peer: link.word(abort_of(failure)) for peer, link in job.links.items()}
        self._count(words)
        text = f"{failure.message}; {job.me} has trained, so {job.spec.coordinator} says how the job ends"
        job.journal.record("end_requested", text, failure.as_stored(), _stored(words))
        self._say(words, until_answered=True)

    def _say(self, words: LastWords, *, until_answered: bool = False) -> None:
        for peer, word in words.items():
            outbox = self._job.links[peer].outbox
            if word is None:
                outbox.settle(self._job.job)
            else:
                outbox.owe(word, until_answered=until_answered)

    def _count(self, words: LastWords) -> None:
        for peer, word in words.items():
            if word is not None:
                self._job.journal.sent(peer, word.header.kind, len(word.body))


def _stored(words: LastWords) -> Words:
    return {peer: None if word is None else word.as_sent() for peer, word in words.items()}
