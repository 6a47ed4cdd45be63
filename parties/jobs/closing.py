"""How one job ends at this party: what came of it, and what each peer is told of it.

What is told is stored with it, before (docs/protocols/job.md), but for a failure that a full disk cannot hold: peers
hear of that at once. Whether the job ends, and with which words, is decided by the coordinator's or the participant's
rules.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from parties.disclosure import rule_of
from parties.errors import Failure
from parties.jobs.actions import LastWords
from parties.jobs.endings import state_of
from parties.jobs.journal import Journal, StoredEnd, result_of
from parties.storage.database import now
from parties.storage.kept_words import Words
from parties.storage.manifest import Inputs, result_file
from parties.storage.models import ModelStore
from parties.storage.scores import scores_table
from parties.wire.control import Abort
from parties.wire.envelopes import Envelope
from parties.wire.link import Link
from vfl.kinds import kind_of
from vfl.reports import Outcome
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

_LOG = logging.getLogger("parties")

STATES_KEPT = "No model was stored; the states it had reached are kept."

MEASURED = ("model_digest", "result_digest", "metrics", "operations", "series", "notices")
"""What of a result an operator is shown with the job."""

Sealed = dict[PartyId, Envelope | None]
"""Last words as the envelopes that carry them."""


class Closing:
    """Its methods but `keep` run under the supervisor's lock. `stop` is called when nothing of the job counts any more,
    `on_end` when its end is stored: peers that speak of the job hear of it from there."""

    def __init__(
        self,
        job: str,
        spec: JobSpec,
        me: PartyId,
        links: Mapping[PartyId, Link],
        journal: Journal,
        registry: ModelStore,
        stop: Callable[[], None],
        on_end: Callable[[str], None],
    ) -> None:
        self._job, self._spec, self._me, self._links = job, spec, me, links
        self._journal, self._models, self._stop, self._on_end = journal, registry, stop, on_end
        self.is_stored = False
        self.result: dict[str, Any] | None = None
        """What is stored with the model, once the role has returned."""

    def keep(self, outcome: Outcome, inputs: Inputs) -> dict[str, Any]:
        """The role returned: store its half first, so that a full disk is told before anybody says Finish."""
        notices = msgspec.to_builtins(self._journal.tell(outcome.notices))
        result = result_file(self._job, self._spec, self._me, inputs, {"notices": notices} | result_of(outcome))
        if inputs.named_rows is not None:
            self._models.keep_scores(self._job, scores_table(inputs.named_rows, outcome.state, self.classes()))
        return self._models.keep_model(self._job, outcome.state, result, inputs)

    def classes(self) -> list[str]:
        """What the label party calls the classes of the model that is applied."""
        trained = self._models.result(self._spec.applied_model) or {}
        return list(trained.get("classes", ()))

    def discard(self) -> bool:
        """Whether states the model had reached are kept."""
        return self._models.discard(self._job)

    def returned(self, result: dict[str, Any], words: LastWords) -> None:
        """The result of this party's role counts from now on."""
        sealed = self._seal(words)
        text = "its own part is done; waiting for the other parties"
        self._journal.record("trained", text, None, _stored(sealed), trained_at=now(), worker_pid=None)
        self.result = result
        self._say(sealed, until_answered=True)

    def reopen(self) -> None:
        """The role may have returned, and is needed once more: what it has said of that does not count any more."""
        if self.result is None:
            return
        self.result = None
        self.discard()
        self._journal.keep_words(dict.fromkeys(self._links))
        for link in self._links.values():
            link.outbox.settle(self._job)

    def done(self, words: LastWords) -> None:
        """Raises StorageFailed."""
        assert self.result is not None  # noqa: S101 - no job is done before
        manifest_digest = self._models.seal(self._job, now())
        sealed = self._seal(words)
        values = {name: self.result[name] for name in MEASURED} | {"manifest_digest": manifest_digest}
        values["reveals"] = kind_of(self._spec).revealed(
            self._spec, self._me, self._journal.reveals(), self.result["metrics"]
        )
        self._journal.close(
            StoredEnd(
                "done", f"{self._spec.job.name} is done", None, _stored(sealed), values, {"manifest": manifest_digest}
            )
        )
        _LOG.info("job %s: done", self._job)
        self._stop()
        self._say(sealed)
        self._closed()

    def end(self, failure: Failure, words: LastWords) -> None:
        """The job has failed or was cancelled."""
        if self.discard():
            failure = msgspec.structs.replace(failure, safe=STATES_KEPT)
        # Only the code is logged: a message about a table may show its owner a value.
        state = state_of(failure)
        _LOG.info("job %s: %s: %s at %s", self._job, state, failure.code, failure.side)
        sealed = self._seal(words)
        self._stop()
        rule = rule_of(failure)
        audited = {"code": failure.code} | ({"rule": rule} if rule else {})
        ending = StoredEnd(state, failure.message, failure.as_stored(), _stored(sealed), {}, audited)
        self._journal.close_in_time(ending, self._closed)
        self._say(sealed)

    def exclude(self, peer: PartyId, word: Abort) -> None:
        """The job goes on without this peer, which has to hear it."""
        sealed = self._seal({peer: word})
        self._journal.keep_words(_stored(sealed))
        self._say(sealed)

    def request_end(self, text: str, failure: Failure, words: LastWords) -> None:
        """The coordinator may have ended the job already: it is asked to end it, and answers how it ended."""
        sealed = self._seal(words)
        self._journal.record("end_requested", text, failure.as_stored(), _stored(sealed))
        self._say(sealed, until_answered=True)

    def _closed(self) -> None:
        self.is_stored = True
        self._on_end(self._job)

    def _seal(self, words: LastWords) -> Sealed:
        return {peer: None if word is None else self._links[peer].word(word) for peer, word in words.items()}

    def _say(self, words: Sealed, *, until_answered: bool = False) -> None:
        for peer, word in words.items():
            if word is None:
                self._links[peer].outbox.settle(self._job)
            else:
                self._links[peer].owe(word, until_answered=until_answered)


def _stored(words: Sealed) -> Words:
    return {peer: None if word is None else word.as_sent() for peer, word in words.items()}
