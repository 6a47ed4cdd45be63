"""One job at this party: what its peers and its worker say is checked here, and every ending is decided here.

A job ends in exactly one of three ways (CONTRIBUTING.md). Finished: every role that is there returned, and the
coordinator said so. Refused: an exception left the role, an operator cancelled, a peer the job needs aborted. Vanished:
the worker died or such a peer stopped answering; until attempts can resume from a checkpoint, that fails the job too.
A party that has told the coordinator that its role returned ends as the coordinator says (docs/protocols/job.md).

A peer the job can do without ends its own link only, and may join again (`Coordinator`); a party the job can do without
comes back itself until the job's deadline (`Attendance`). The server process outlives all of them.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from parties.errors import (
    DeadlinePassed,
    Equivocation,
    Failure,
    IllegalRoute,
    InternalError,
    JobOver,
    StaleAttempt,
    StorageFailed,
)
from parties.jobs.closing import Closing
from parties.jobs.coordinator import Coordinator
from parties.jobs.journal import Journal
from parties.jobs.participant import Participant
from parties.jobs.run import Run
from parties.storage.database import Job, Store, now, seconds_since
from parties.storage.manifest import NO_INPUTS, inputs_of
from parties.storage.models import ModelStore
from parties.tables.datasets import Table
from parties.wire.control import (
    CONTROLS,
    LAST_WORDS,
    RUN,
    Agreement,
    Ask,
    Control,
    Finish,
    Proposal,
    decode_control,
    may_send,
)
from parties.wire.envelopes import CONTROL_LIMIT, PART_LIMIT, Bytes, Envelope, Header, check_body
from parties.wire.link import Link, PeerState
from parties.wire.outbox import Outbox, Receipt
from parties.worker.mailbox import Room
from vfl.errors import JobError, RemoteProtocolError
from vfl.routes import allowed
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

_LOG = logging.getLogger("parties")


class Supervisor:
    """Made when a job is proposed here or by a peer, or taken up again; `on_end` hears that its end is stored.

    `bring` loads this party's tables anew. Raises JobError where they or its policy no longer fit the job.
    """

    def __init__(
        self,
        job: Job,
        spec: JobSpec,
        agreement: Agreement,
        bottom: str,
        outboxes: Mapping[PartyId, Outbox],
        store: Store,
        registry: ModelStore,
        folder: Path,
        bring: Callable[[], dict[str, Table]],
        on_end: Callable[[str], None],
        room: Room,
    ) -> None:
        self.job, self.spec, self.me, self.agreement = job.id, spec, job.party, agreement
        self.over = False
        self.needs_all = spec.required_parties == set(spec.parties)
        self.lock = threading.RLock()
        self.journal = Journal(job, store, registry)
        self.tables: dict[str, Table] | None = None
        self.closing = Closing(self, registry)
        self._room = room
        self.run = Run(self, room)
        self.log_path = folder / "logs" / f"{job.id}.log"
        self.digest = spec.digest()
        self.links = {
            peer: Link(job.id, self.digest, self.me, peer, outboxes[peer], job.attempt)
            for peer in spec.peers_of(self.me)
        }
        self.side = Coordinator(self) if self.me == spec.coordinator else Participant(self, bring)
        self._bottom, self._first_model = bottom, b""
        self._started = job.started_at is not None
        self._on_end = on_end
        self._stored = False
        self.inputs = NO_INPUTS
        self._timers: list[threading.Timer] = []
        self._seconds_left = max(0.0, spec.job.deadline_seconds - seconds_since(job.created_at))

    # Negotiation

    def propose(self, tables: dict[str, Table], first_model: bytes) -> None:
        """The coordinator's first word. The caller has stored the job."""
        assert isinstance(self.side, Coordinator)  # noqa: S101 - the caller checked who proposes
        with self.lock:
            self.tables, self._first_model = tables, first_model
            self._watch()
            self.side.propose()

    def accept(self, tables: dict[str, Table]) -> None:
        """Another party agrees."""
        assert isinstance(self.side, Participant)  # noqa: S101 - a coordinator is not asked
        with self.lock:
            if not self.over:
                self.tables = tables
                self._watch()
                self.side.accept()

    def refuse(self, error: JobError) -> None:
        """Another party does not agree."""
        assert isinstance(self.side, Participant)  # noqa: S101 - a coordinator is not asked
        failure = Failure.of(error, self.me)
        with self.lock:
            if not self.over:
                self.side.refuse(failure)

    def resume(self) -> None:
        """Take a job up again that ran without this party while its server was away."""
        assert isinstance(self.side, Participant)  # noqa: S101 - a coordinator's job does not outlive its server
        with self.lock:
            self._watch()
            self.side.resume()

    def await_word(self, result: dict[str, Any]) -> None:
        """Take a job up again whose role had returned when the server went away: the coordinator says how it ends."""
        with self.lock:
            self.closing.result = result
            for link in self.links.values():
                link.state = PeerState.LIVE
            self._watch()

    # What peers say

    def receive(self, envelope: Envelope) -> Receipt:
        """One envelope of a peer of this job. Raises EnvelopeRefused."""
        header = envelope.header
        link = self._link_of(header)
        with link.receiving:
            if header.kind in LAST_WORDS:
                self._hear_last_word(link, envelope)
            elif link.state is PeerState.GONE and not self.over:
                link.remind()
                if header.kind in {"Acceptance", "Join"} and header.sender not in self.spec.required_parties:
                    raise JobOver(f"the job goes on without {header.sender}")
            elif header.kind != Ask.__name__ and not self.over:
                return self._receive_in_turn(link, envelope)
            with self.lock:  # who ends the job holds it until that is stored
                if self.over and not self._stored:
                    raise StorageFailed(f"job {self.job}: its end is not stored yet")
            return Receipt(self.job, header.attempt, header.sequence + 1)

    def _receive_in_turn(self, link: Link, envelope: Envelope) -> Receipt:
        header = envelope.header
        try:
            expected, body = link.receive(envelope, partial(self._check, link))
        except Equivocation as error:
            with self.lock:
                self.side.exclude(link, Failure.of(error, header.sender))
            raise
        if body is not None:
            self.journal.received(header.sender, header.kind, len(body))
            self._take(link, header, body)
        # (11) the receipt
        return Receipt(self.job, header.attempt, expected)

    def _hear_last_word(self, link: Link, envelope: Envelope) -> None:
        """It changes nothing when it comes again. Raises EnvelopeRefused, or StorageFailed: then it must come again."""
        header = envelope.header
        if not may_send(self.spec, header, self.me):
            raise IllegalRoute(f"{header.sender} may not send {header.kind} to {self.me} in this job")
        check_body(envelope, CONTROL_LIMIT)
        with self.lock:
            if self.over:
                return
            if link.state is PeerState.GONE:
                link.remind()
                return
            if not (header.kind == Finish.__name__ and link.finished):
                self.journal.received(header.sender, header.kind, len(envelope.body))
                self.guard(lambda: self.side.hear_last_word(link, decode_control(header.kind, envelope.body)), link)
            if self.closing.awaits_word and link.finished:
                self.closing.finish_together()

    def wants(self, head: Envelope) -> bool:
        """Whether a body larger than any word about the job is worth keeping; False leaves the rest to `receive`.

        Raises EnvelopeRefused.
        """
        header, link = head.header, self._link_of(head.header)
        ended = self.over or link.state is PeerState.GONE or not link.is_running(header.attempt)
        if ended or header.kind in CONTROLS or not allowed(self.spec, header.sender, self.me, header.kind):
            return False
        self.run.check_size(header)
        return True

    def _link_of(self, header: Header) -> Link:
        # (6) the job is this one, its specification the one both signed up to, and the sender in it
        link = self.links.get(header.sender)
        if link is None or header.job_digest != self.digest:
            raise IllegalRoute(f"{header.sender} is not in this job, or means another specification")
        return link

    def _check(self, link: Link, envelope: Envelope) -> None:
        """What a new envelope must pass before it counts. Raises EnvelopeRefused."""
        header = envelope.header
        control = header.kind in CONTROLS
        # (6) may this role send this kind?
        if control:
            legal = may_send(self.spec, header, self.me)
        else:
            legal = allowed(self.spec, header.sender, self.me, header.kind)
            if legal and not link.is_running(header.attempt):  # its end may be on its way to the sender
                raise StaleAttempt(f"attempt {header.attempt} does not run at {self.me}")
        if not legal:
            raise IllegalRoute(f"{header.sender} may not send {header.kind} to {self.me} in this job")
        if header.kind == "Join":
            if self.closing.result is not None:
                raise JobOver(f"the role of {self.me} has returned")
            link.check_join(header)
        check_body(envelope, CONTROL_LIMIT if control else PART_LIMIT)
        # (9) policy and reveal counters come with budgets
        if not control:
            self.run.check_size(header)

    def _take(self, link: Link, header: Header, body: Bytes) -> None:
        with self.lock:
            if header.kind in CONTROLS:
                self.guard(lambda: self._obey(link, header.attempt, decode_control(header.kind, body)), link)
            elif link.is_running(header.attempt):  # it may have left since it was looked at
                self.run.deliver(header.sender, header.kind, body)

    def _obey(self, link: Link, attempt: int, control: Control) -> None:
        match control:
            case Proposal():
                pass  # this supervisor was made from it
            case _:
                self.side.obey(link, attempt, control)

    def on_peer_lost(self, peer: PartyId, attempt: int | None, error: JobError) -> None:
        """A courier gave up on a peer, or the peer refused an envelope of an attempt."""
        with self.lock:
            link = self.links[peer]
            if self.over:
                link.outbox.forget(self.job)
            elif attempt is None or attempt == link.newest:
                self.guard(lambda: self.side.on_peer_lost(link, error))

    # The run

    def begin(self, shares: dict[PartyId, bytes]) -> None:
        """Enough have agreed: say so, start the worker."""
        run, tables = self.run, self.tables
        if tables is None:
            return
        given = run.given(tables, self._first_model, shares, self._bottom)
        with self.lock:
            if self.over or self.run is not run or self.tables is not tables:  # a second Begin may have been faster
                return
            # The attempt is stored before anything is sent in it.
            values: dict[str, Any] = {"state": "running", "attempt": max(RUN, self.newest)}
            if self._started:
                self.journal.record("joined", f"{self.me} is back", {"peer": self.me}, **values)
            else:
                self.journal.record("started", "training started", started_at=now(), **values)
            self.inputs = inputs_of(self.spec, self.me, tables)
            self._started, self.tables, self._first_model = True, None, b""
            self.side.begin(shares)
            self.journal.update(worker_pid=run.start(given))

    def end_run(self) -> None:
        """Another may begin later."""
        self.run.stop()
        self.run, self.tables = Run(self, self._room), None

    def lose_worker(self, error: JobError) -> None:
        self.guard(lambda: self.side.lose_worker(Failure.of(error, self.me)))

    # Endings

    def fail(self, failure: Failure, knowing: PartyId | None = None) -> None:
        """End the job here and tell every peer but the one that told us. Later endings change nothing."""
        self.closing.fail(failure, knowing)

    def closed(self) -> None:
        """The end is stored: peers that speak of the job hear of it from there."""
        self._stored = True
        self._on_end(self.job)

    def close(self, failure: Failure, timeout_seconds: float) -> None:
        """The server stops."""
        with self.lock:
            run = self.run
            if not self.over and self.side.detach(failure):
                self.stop()
            self.fail(failure)
        run.stop()
        run.wait(timeout_seconds)

    def stop(self) -> None:
        """Nothing of the job counts any more."""
        self.over, self.tables = True, None
        for timer in self._timers:
            timer.cancel()
        for link in self.links.values():
            link.outbox.unwatch(self.job)

    def _pass_deadline(self) -> None:
        seconds = self.spec.job.deadline_seconds
        if not self.closing.awaits_word:
            self.fail(Failure.of(DeadlinePassed(f"the job did not end within its {seconds} s at {self.me}"), self.me))

    # Small things

    @property
    def newest(self) -> int:
        """The highest attempt of any link."""
        return max(link.newest for link in self.links.values())

    def say(self, link: Link, control: Control, attempt: int | None = None) -> None:
        """Tell a peer something about the job."""
        self.journal.sent(link.peer, control.kind, link.say(control, attempt))

    def send_until_acknowledged(self, link: Link, control: Control, attempt: int | None = None) -> None:
        """The same, and again while the peer is out of reach."""
        self.journal.sent(link.peer, control.kind, link.send_until_acknowledged(control, attempt))

    def later(self, seconds: float, task: Callable[[], None]) -> None:
        """Under the lock, unless the job is over by then."""

        def run() -> None:
            with self.lock:
                if not self.over:
                    self.guard(task)

        timer = threading.Timer(seconds, run)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()

    def attend(self, task: Callable[[], None]) -> None:
        """Off the thread that owes a peer its receipt."""
        threading.Thread(target=self.guard, args=(task,), name=f"job {self.job}", daemon=True).start()

    def guard(self, task: Callable[[], None], link: Link | None = None) -> None:
        """Run something whose every exception must end the job with a name; a broken rule is its sender's."""
        try:
            task()
        except RemoteProtocolError as error:
            if link is None:
                self.fail(Failure.of(error, self.me))
            else:
                self.side.exclude(link, Failure.of(error, link.peer))
        except JobError as error:
            self.fail(Failure.of(error, self.me))
        except Exception:  # noqa: BLE001 - whatever it is, the job ends and the server goes on
            _LOG.exception("job %s", self.job)
            self.fail(Failure.of(InternalError(f"a bug at {self.me}"), self.me))

    def _watch(self) -> None:
        self.later(self._seconds_left, self._pass_deadline)
        for link in self.links.values():
            link.watch()
