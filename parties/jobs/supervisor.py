"""One job at this party: what its peers and its worker say comes together here, and whatever follows is done here.

A job ends in exactly one of three ways (CONTRIBUTING.md). Finished: every role that is there returned, and the
coordinator said so. Refused: an exception left the role, an operator cancelled, a peer the job needs aborted. Vanished:
the worker died or such a peer stopped answering; a job that cannot go on from a checkpoint has failed then, any other
is taken up in another attempt once all are there again (docs/reliability.md).
A party that has told the coordinator that its role returned ends as the coordinator says (docs/protocols/job.md).

A peer the job can do without ends its own link only, and may join again; a party the job can do without comes back
itself until the job's deadline. What follows of an event is decided by `Coordinator` or `Participant`, which see plain
data and answer with actions; the supervisor alone has the lock and the threads, and performs them in `_perform`.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Concatenate, ParamSpec

from parties.errors import Failure, StorageFailed
from parties.jobs import actions
from parties.jobs.actions import Actions, Timer
from parties.jobs.attempts import Attempts
from parties.jobs.closing import Closing
from parties.jobs.coordinator import Coordinator
from parties.jobs.journal import Journal
from parties.jobs.link_actions import done_by_link
from parties.jobs.negotiation import Negotiation
from parties.jobs.participant import Participant
from parties.jobs.reception import JobHearing, Reception
from parties.jobs.resources import Resources
from parties.jobs.run import Loaded, Run, WorkerHearing
from parties.jobs.scoring_session import ScoringSession
from parties.jobs.standing import Standing
from parties.jobs.tasks import TaskHearing, Tasks
from parties.storage.database import Job, seconds_since
from parties.storage.manifest import NO_INPUTS, inputs_of
from parties.tables.datasets import LoadedTable
from parties.trust.contract import Signatures, Signed
from parties.wire.control import CONTROLS, RUN, Agreement, Finish, decode_control
from parties.wire.envelopes import Bytes, Envelope, Header
from parties.wire.link import Link
from parties.wire.peer_state import PeerState
from parties.worker.frames import Checkpointed
from parties.worker_settings import OwnSettings
from vfl.errors import JobError, PeerTimeout
from vfl.reports import Fact, Outcome
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

P = ParamSpec("P")


class Supervisor:
    """Made when a job is proposed here or by a peer, or taken up again; `on_end` hears that its end is stored.

    `load` loads anew what the run takes. Raises JobError where that or this party's policy no longer fits the job.
    """

    def __init__(
        self,
        job: Job,
        spec: JobSpec,
        agreement: Agreement,
        shared: Resources,
        own: OwnSettings,
        load: Callable[[], Loaded],
        on_end: Callable[[str], None],
    ) -> None:
        self.job, self.spec, self.me, self.created_at = job.id, spec, job.party, job.created_at
        self.over = self._is_watched = self._is_taken_up = False
        self._agreement, self._load, self._shared = agreement, load, shared
        self._lock = threading.RLock()
        self.tasks = Tasks(job.id, self.me, self._lock, TaskHearing(lambda: self.over, self.fail, self._exclude))
        self._journal = Journal(job, shared.store, shared.models, shared.ledger)
        self._tables: dict[str, LoadedTable] | None = None
        self._links = {
            peer: Link(job.id, spec.digest(), shared.signer, peer, shared.outbox_to(peer), shared.ledger, job.attempt)
            for peer in spec.peers_of(self.me)
        }
        side = Coordinator if self.me == spec.coordinator else Participant
        signatures = Signatures(job.id, spec, shared.keys_of(job))
        self._side: Coordinator | Participant = side(spec, self.me, agreement, signatures)
        self._remembered = Standing({}, begun=agreement.begun, signed=agreement.contract)
        self._attempts = Attempts(job.id, shared.checkpoints, self._links)
        self._closing = Closing(job.id, spec, self.me, self._links, self._journal, shared.models, self._stop, on_end)
        self._run = self._new_run()
        self.session = ScoringSession(self.job, spec, self.me, self._run.tell, self._journal.note_request)
        hearing = JobHearing(
            is_over=lambda: self.over,
            has_returned=lambda: self._closing.result is not None and not spec.resumes,
            check_size=lambda header: self._run.check_size(header),  # noqa: PLW0108 - another run may come
            take=self._take,
            take_last_word=self._take_last_word,
            exclude=self._exclude,
            check_stored=self._check_stored,
        )
        self.reception = Reception(job.id, spec, self.me, self._links, hearing)
        self._own, self._model = own, b""
        self._started, self._inputs = job.started_at is not None, NO_INPUTS
        self._seconds_left = max(0.0, spec.job.deadline_seconds - seconds_since(job.created_at))

    @property
    def _participant(self) -> Participant:
        """This party's side of a job that a peer has proposed."""
        assert isinstance(self._side, Participant)  # noqa: S101 - a coordinator is not asked, and does not come back
        return self._side

    # Negotiation

    def take_part(self, loaded: Loaded) -> None:
        """The coordinator proposes, another party agrees. The caller has stored the job."""
        with self._lock:
            if not self.over:
                self._take_in(loaded)
                self._follow(self._side.take_part)
                self._watch()

    def take_up(self, negotiation: Negotiation) -> None:
        """Go on with a job that had not begun when this server went away; what a run takes is loaded when it begins."""
        with self._lock:
            for peer, link in self._links.items():
                link.take_up(negotiation.sent_to(peer), negotiation.received_from(peer))
            self._is_taken_up = True
            self._watch()
            self._follow(self._side.take_up, negotiation.words)

    def refuse(self, error: JobError) -> None:
        """Another party does not agree."""
        self._follow(self._participant.refuse, Failure.of(error, self.me))

    def resume(self, failure: Failure) -> None:
        """Take a job up again that ran when this party's server went away."""
        with self._lock:
            self._is_taken_up = self.me == self.spec.coordinator
            self._watch()
            self._follow(self._side.resume, failure)

    def await_word(self, result: dict[str, Any]) -> None:
        """Take a job up again whose role had returned when the server went away: the coordinator says how it ends."""
        with self._lock:
            self._closing.result = result
            for link in self._links.values():
                link.state = PeerState.LIVE
            self._watch()

    def await_operator(self, missing: str) -> None:
        """No grant covers the job, and why: until this party's operator has decided, its tables need not be held."""
        with self._lock:
            if not self.over:
                self._follow(self._participant.wait, missing)
                self._watch()

    # What peers say

    def _check_stored(self) -> None:
        with self._lock:  # who ends the job holds it until that is stored
            if self.over and not self._closing.is_stored:
                raise StorageFailed(f"job {self.job}: its end is not stored yet")

    def _take_last_word(self, link: Link, envelope: Envelope) -> None:
        """It changes nothing when it comes again. Raises StorageFailed: then it must come again."""
        header = envelope.header
        with self._lock:
            if self.over:
                return
            if link.state is PeerState.GONE:
                link.remind()
                return
            if not (header.kind == Finish.__name__ and link.finished):
                self._hear(link, header, envelope.message)
            self._follow(self._side.conclude)

    def _take(self, link: Link, header: Header, body: Bytes) -> None:
        with self._lock:
            if header.kind in CONTROLS:
                self._hear(link, header, body)
            elif link.is_running(header.attempt):  # it may have left since it was looked at
                self.tasks.guard(partial(self._run.deliver, link.peer, header.kind, body), link)

    def _hear(self, link: Link, header: Header, body: Bytes) -> None:
        """A word about the job."""

        word = partial(decode_control, link.peer, header.kind, body)
        self.tasks.guard(lambda: self._follow(self._side.hear, link.peer, word(), header.attempt), link)

    def on_peer_lost(self, peer: PartyId, attempt: int | None, error: JobError) -> None:
        """The outbox gave up on a peer, or the peer refused an envelope of an attempt."""
        with self._lock:
            if self.over:
                self._links[peer].outbox.forget(self.job)
            elif isinstance(error, StorageFailed):  # our own: nothing leaves unrecorded
                self.fail(Failure.of(error, self.me))
            elif attempt is None or attempt == self._links[peer].newest:
                self.tasks.guard(partial(self._follow, self._side.on_peer_lost, peer, error))

    # The run

    def _new_run(self) -> Run:
        hearing = WorkerHearing(
            send=lambda *message: self.tasks.guard(partial(self._send, *message)),
            note=lambda fact, counts: self.tasks.guard(partial(self._note, fact, counts)),
            answered=lambda answer: self.tasks.guard(partial(self.session.hear, answer)),
            returned=lambda outcome, counts: self.tasks.guard(partial(self._return, outcome, counts)),
            failed=self.fail,
            vanished=self._lose_worker,
        )
        folder, links = self._shared.folder, self._links.values()
        log, begun_bytes = folder / "logs" / f"{self.job}.log", lambda: sum(link.begun_bytes for link in links)
        return Run(self.job, self.spec, self.me, self._agreement.private_seed, log, self._shared, begun_bytes, hearing)

    def _begin(self, run: Run, shares: Mapping[PartyId, bytes], signed: Mapping[PartyId, Signed], step: int) -> None:
        """Enough have agreed and signed: say so, start the worker."""
        loaded = self._load() if self._is_taken_up else None
        with self._lock:
            if self.over or self._run is not run:
                return
            if loaded is not None and self._is_taken_up:
                self._take_in(loaded)
            if (tables := self._tables) is None:
                return
            checkpoint = self._attempts.go_on_after(step)
        start = run.start_frame(tables, self._model, shares, self._own, checkpoint)
        self.session.prepare(tables, self._closing.classes)
        with self._lock:
            if self.over or self._run is not run or self._tables is not tables:  # a second Begin may have been faster
                return
            self._shared.consent.keep_contract(self.job, signed)
            # The attempt is stored before anything is sent in it.
            values: dict[str, Any] = {"attempt": max(RUN, self._standing.newest)}
            if self.spec.resumes:
                self._journal.go_back_to(checkpoint)
                values["agreement"] = self._agreement.once_begun(shares, signed)
            elif self.me in self.spec.required_parties:
                values["agreement"] = None  # the job does not outlive this server from now on
            self._journal.begin(self.me if self._started else "", step, values)
            self._inputs = inputs_of(self.spec, self.me, tables)
            self._started, self._tables, self._model = True, None, b""
            self._remembered = replace(self._remembered, begun=shares)
            self._follow(self._side.begin)
            self._journal.update(worker_pid=run.start(start))
            self.session.open()

    def pause(self) -> None:
        """The operator stops the work for a while. Raises CannotPause, AlreadyPaused, PausedByPeer."""
        self._follow(self._side.pause)

    def end_pause(self) -> None:
        """Raises NotPaused, PausedByPeer."""
        self._follow(self._side.end_pause)

    def end_session(self) -> None:
        """The operator asks nothing more, as if its time were up."""
        self._follow(self._side.time_is_up, Timer.SESSION)

    def _join(self) -> None:
        """Ask to be taken back. Takes the lock after reading tables."""
        loaded = self._load()
        with self._lock:
            if not self.over and (wanted := self._participant.join(self._standing)):
                self._take_in(loaded)
                self._perform(wanted)

    def _take_in(self, loaded: Loaded) -> None:
        (self._tables, self._model), self._is_taken_up = loaded, False

    def _send(self, to: PartyId, kind: str, body: Bytes, counts: Callable[[], bool]) -> None:
        """A message of the role."""
        link = self._links[to]
        if to in self.spec.required_parties:
            link.outbox.wait_for_room()
        elif not link.outbox.has_room:  # one slow peer must not hold up the others
            self.on_peer_lost(to, None, PeerTimeout(f"{to} has not received yet what was sent to it before"))
        link.send(kind, body, counts)

    def _note(self, fact: Fact | Checkpointed, counts: Callable[[], bool]) -> None:
        with self._lock:
            if counts():
                if isinstance(fact, Checkpointed):
                    self._attempts.keep(fact)
                else:
                    self._journal.note(fact)

    def _return(self, outcome: Outcome, counts: Callable[[], bool]) -> None:
        """The role of this party has returned."""
        result = self._closing.keep(outcome, self._inputs)
        with self._lock:
            if self.over or not counts():
                self._closing.discard()
                return
            self._closing.returned(result, self._side.words_of_return(self._standing))
            self._follow(self._side.on_returned)

    def _lose_worker(self, error: JobError, counts: Callable[[], bool]) -> None:
        """The pipe closed. After a proper ending this changes nothing."""
        with self._lock:
            if counts() and not self.over and self._closing.result is None:
                self.tasks.guard(partial(self._follow, self._side.lose_worker, Failure.of(error, self.me)))

    # What follows of an event

    @property
    def _standing(self) -> Standing:
        """How the job stands now, for the rules to look at."""
        views = {peer: link.view() for peer, link in self._links.items()}
        held, paused, returned = self._attempts.held, self._journal.paused, self._closing.result is not None
        return replace(self._remembered, peers=views, returned=returned, checkpoints=held, paused=paused)

    def _follow(self, rule: Callable[Concatenate[Standing, P], Actions], *event: P.args, **more: P.kwargs) -> None:
        """Do what a rule makes of an event as the job stands now; a job that is over does not change."""
        with self._lock:
            if not self.over:
                self._perform(rule(self._standing, *event, **more))

    def _perform(self, wanted: Actions) -> None:  # noqa: C901, PLR0912 - a line for each action
        """In this order, under the lock."""
        for action in wanted:
            if done_by_link(self._links, action):
                continue
            match action:
                case actions.Agree(peer, share, signed, checkpoints):
                    self._links[peer].state = PeerState.AGREED
                    self._remembered = self._remembered.agreed(peer, share, signed, checkpoints)
                    if self._remembered.begun and signed is not None:
                        self._shared.consent.keep_contract(self.job, {peer: signed})
                case actions.Record(kind, text, data):
                    self._journal.record(kind, text, dict(data), **action.changes)
                case actions.StartTimer(timer, seconds):
                    self.tasks.later(seconds, partial(self._follow, self._side.time_is_up, timer))
                case actions.EndGathering():
                    self._remembered = replace(self._remembered, gathering_is_over=True)
                case actions.AwaitOthers():
                    self._remembered = replace(self._remembered, others_wait=True)
                case actions.BeginRun(shares, signatures, step):
                    self._remembered = self._remembered.beginning_after(step)
                    self.tasks.off_lock(partial(self._begin, self._run, shares, signatures, step))
                case actions.TellWorker(news):
                    self._run.tell(news)
                case actions.LeaveRun(failure, attempt):
                    self._leave_run(failure, attempt)
                case actions.LoadTables():
                    self.tasks.off_lock(self._join)
                case actions.Exclude(peer, abort):
                    self._closing.exclude(peer, abort)
                case actions.RequestEnd(text, failure, words):
                    self._closing.request_end(text, failure, words)
                case actions.End(failure, words):
                    self._run.stop()
                    self._closing.end(self._run.with_own_ids(failure), words)
                case actions.Done(words):
                    self._closing.done(words)

    def _leave_run(self, failure: Failure, attempt: int) -> None:
        """Another run may begin later."""
        self._run.stop()
        self._closing.reopen()
        self._run, self._tables = self._new_run(), None
        self._is_taken_up = self.me == self.spec.coordinator  # another party loads its tables before it joins
        self._remembered = self._remembered.left(is_paused=bool(self._journal.paused))
        text, data = f"{self.me} is away: {failure.message}", {"peer": self.me, "code": failure.code}
        self._journal.record("left", text, data, attempt=attempt, worker_pid=None)

    # Endings

    def fail(self, failure: Failure) -> None:
        """End the job here and tell every peer, or ask the coordinator to. Later endings change nothing."""
        self._follow(self._side.fail, failure)

    def close(self, failure: Failure, timeout_seconds: float) -> None:
        """The server stops."""
        with self._lock:
            run = self._run
            wanted = None if self.over else self._side.detach(self._standing, failure)
            if wanted is not None:
                self._perform(wanted)
                self._stop()
            self.fail(failure)
        run.stop()
        run.wait(timeout_seconds)

    def _exclude(self, link: Link, error: JobError) -> None:
        """The peer broke a rule."""
        self._follow(self._side.exclude, link.peer, Failure.of(error, link.peer))

    def _stop(self) -> None:
        """Nothing of the job counts any more."""
        self.over, self._tables = True, None
        self._run.mute()
        self.session.close()
        self.tasks.cancel_timers()
        for link in self._links.values():
            link.outbox.unwatch(self.job)

    def _watch(self) -> None:
        """The job is open here from now on. A peer is asked about it only after it was told of it."""
        if self._is_watched or self.over:
            return
        self._is_watched = True
        self._perform([actions.StartTimer(Timer.DEADLINE, self._seconds_left), *map(actions.Watch, self._links)])
