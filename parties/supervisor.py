"""One job at this party: what its peers and its worker say is checked here, and every ending is decided here.

A job ends in exactly one of three ways (architecture.md 5.3). Finished: the role returned and every peer that is there
said the same. Refused: an exception left the role, an operator cancelled, a peer the job needs aborted. Vanished: the
worker died or such a peer stopped answering; until attempts can resume from a checkpoint, that fails the job too.

A peer the job can do without ends its own link only, and may join again (`Convening`); a party the job can do without
comes back itself until the job's deadline (`Attendance`). The server process outlives all of them.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from parties.attendance import Attendance
from parties.channel import CONTROL_LIMIT, PART_LIMIT, Bytes, Envelope, Header, check_body
from parties.convening import Convening
from parties.courier import Courier, Receipt
from parties.datasets import Table
from parties.errors import (
    DeadlinePassed,
    Equivocation,
    Failure,
    IllegalRoute,
    InternalError,
    JobOver,
    MailboxFull,
    StaleAttempt,
)
from parties.journal import Journal, result_of
from parties.links import Link, Presence
from parties.manifest import NO_INPUTS, inputs_of, manifest
from parties.negotiation import (
    CONTROLS,
    RUN,
    Abort,
    Agreement,
    Control,
    Finish,
    Proposal,
    decode_control,
    failure_at,
    may_send,
)
from parties.registry import Registry
from parties.run import Run
from parties.store import Job, Store, now, seconds_since
from vfl.errors import JobError, RemoteProtocolError, RowsDiffer
from vfl.job import JobSpec
from vfl.reports import Outcome
from vfl.routes import allowed
from vfl.terms import PartyId

_LOG = logging.getLogger("parties")

STATES_KEPT = "No model was stored; the states it had reached are kept."


class Supervisor:
    """Made when a job is proposed here or by a peer, or taken up again; stays to answer repetitions after its end.

    `bring` loads this party's tables anew. Raises JobError where they or its policy no longer fit the job.
    """

    def __init__(
        self,
        job: Job,
        spec: JobSpec,
        agreement: Agreement,
        bottom: str,
        couriers: Mapping[PartyId, Courier],
        store: Store,
        registry: Registry,
        folder: Path,
        bring: Callable[[], dict[str, Table]],
    ) -> None:
        self.job, self.spec, self.me, self.agreement = job.id, spec, job.party, agreement
        self.over = False
        self.needs_all = spec.indispensable == set(spec.parties)
        self.lock = threading.RLock()
        self.journal = Journal(job, store, registry)
        self.tables: dict[str, Table] | None = None
        self.outcome: Outcome | None = None
        self.run = Run(self)
        self.log_path = folder / "logs" / f"{job.id}.log"
        self._digest = spec.digest()
        self.links = {
            peer: Link(job.id, self._digest, self.me, peer, couriers[peer], job.attempt)
            for peer in spec.peers_of(self.me)
        }
        self._side = Convening(self) if self.me == spec.coordinator else Attendance(self, bring)
        self._registry, self._bottom, self._first_model = registry, bottom, b""
        self._started = job.started_at is not None
        self._model_digest, self._inputs = "", NO_INPUTS
        self._timers: list[threading.Timer] = []
        self._seconds_left = max(0.0, spec.job.deadline_seconds - seconds_since(job.created_at))

    # Negotiation

    def propose(self, tables: dict[str, Table], first_model: bytes) -> None:
        """The coordinator's first word. The caller has stored the job."""
        assert isinstance(self._side, Convening)  # noqa: S101 - the caller checked who proposes
        with self.lock:
            self.tables, self._first_model = tables, first_model
            self._watch()
            self._side.propose()

    def accept(self, tables: dict[str, Table]) -> None:
        """Another party agrees."""
        assert isinstance(self._side, Attendance)  # noqa: S101 - a coordinator is not asked
        with self.lock:
            if not self.over:
                self.tables = tables
                self._watch()
                self._side.accept()

    def refuse(self, error: JobError) -> None:
        """Another party does not agree."""
        assert isinstance(self._side, Attendance)  # noqa: S101 - a coordinator is not asked
        failure = Failure.of(error, self.me)
        with self.lock:
            if not self.over:
                self._side.refuse(failure)
                self._end("failed", failure)

    def resume(self) -> None:
        """Take a job up again that ran without this party while its server was away."""
        assert isinstance(self._side, Attendance)  # noqa: S101 - a coordinator's job does not outlive its server
        with self.lock:
            self._watch()
            self._side.resume()

    # What peers say

    def receive(self, envelope: Envelope) -> Receipt:
        """One envelope of a peer of this job. Raises EnvelopeRefused."""
        header = envelope.header
        link = self.links.get(header.sender)
        # (6) the job is this one, its specification the one both signed up to, and the sender in it
        if link is None or header.job_digest != self._digest:
            raise IllegalRoute(f"{header.sender} is not in this job, or means another specification")
        with link.receiving:
            if self.over or link.presence is Presence.GONE:  # the peer is told by Abort, or knows
                if header.kind in {"Acceptance", "Join"} and header.sender not in self.spec.indispensable:
                    raise JobOver(f"the job is over at {self.me}, or goes on without {header.sender}")
                return Receipt(self.job, header.attempt, header.sequence + 1)
            try:
                expected, body = link.receive(envelope, partial(self._check, link))
            except Equivocation as error:
                with self.lock:
                    self._side.lack(link, Failure.of(error, header.sender))
                raise
            if body is not None:
                self.journal.received(header.sender, header.kind, len(body))
                self._take(link, header, body)
            # (11) the receipt
            return Receipt(self.job, header.attempt, expected)

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
            if self.outcome is not None:
                raise JobOver(f"the role of {self.me} has returned")
            link.check_join(header)
        check_body(envelope, CONTROL_LIMIT if control else PART_LIMIT)
        # (9) policy and reveal counters come with budgets
        if not control and not self.run.has_room:
            raise MailboxFull(f"the worker of {self.me} has not read what came before")

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
            case Finish() if link.presence is Presence.LIVE:
                link.finished = True
                self.finish_together()
            case Abort(code, message):
                self._side.lack(link, failure_at(link.peer, "ended", code, message), knows=True)
            case _:
                self._side.obey(link, attempt, control)

    def lose(self, peer: PartyId, attempt: int | None, error: JobError) -> None:
        """A courier gave up on a peer, or the peer refused an envelope of an attempt."""
        with self.lock:
            link = self.links[peer]
            if not self.over and (attempt is None or attempt == link.newest):
                self.guard(lambda: self._side.lose(link, error))

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
            self._inputs = inputs_of(self.spec, self.me, tables)
            self._started, self.tables, self._first_model = True, None, b""
            self._side.begin(shares)
            self.journal.update(worker_pid=run.start(given))

    def end_run(self) -> None:
        """Another may begin later."""
        self.run.stop()
        self.run, self.tables = Run(self), None

    def lose_worker(self, error: JobError) -> None:
        self.guard(lambda: self._side.lose_worker(Failure.of(error, self.me)))

    def keep(self, outcome: Outcome) -> None:
        """The role returned: store its half first, so that a full disk is told before anybody says Finish."""
        digest = self._registry.keep_model(self.job, outcome.state, self._inputs)
        with self.lock:
            if self.over:
                self._registry.discard(self.job)
                return
            self.outcome, self._model_digest = outcome, digest
            self.journal.record("trained", "trained; waiting for the other parties", trained_at=now(), worker_pid=None)
            for link in self.links.values():
                if link.presence is Presence.LIVE:
                    self.say(link, Finish())
            if not self.needs_all:
                self.later(self.spec.gathering_seconds, self._wait_no_longer)
            self.finish_together()

    def _wait_no_longer(self) -> None:
        self._side.wait_no_longer()
        self.finish_together()

    def finish_together(self) -> None:
        """Done, if the role has returned and every peer that is there has said the same."""
        awaited = any(link.presence is Presence.LIVE and not link.finished for link in self.links.values())
        if self.outcome is None or self.over or awaited:
            return
        notices = msgspec.to_builtins(self.journal.tell(self.outcome.notices))
        result = {"model_digest": self._model_digest, "notices": notices} | result_of(self.outcome)
        told = manifest(self.job, self.spec, self.me, self._inputs, result | {"finished_at": now()})
        self._registry.seal(self.job, told)
        self._side.dismiss()
        self._end("done", None, **result)

    # Endings

    def fail(self, failure: Failure, knowing: PartyId | None = None) -> None:
        """End the job here and tell every peer but the one that told us. Later endings change nothing."""
        with self.lock:
            if self.over:
                return
            for peer, link in self.links.items():
                if link.presence is not Presence.GONE:
                    link.leave(Presence.GONE)
                    if peer != knowing:
                        self.abort(link, failure)
            if self._registry.discard(self.job):
                failure = msgspec.structs.replace(failure, safe=STATES_KEPT)
            if failure.code == RowsDiffer.code:  # after the peer was told: this is about our own ids
                failure = msgspec.structs.replace(failure, fix=f"{failure.fix} {self.run.about_ids}".strip())
            self._end("cancelled" if failure.code == "cancelled" else "failed", failure)

    def _end(self, state: str, failure: Failure | None, **values: Any) -> None:
        self._stop()
        if failure is not None:
            self.run.stop()
        for link in self.links.values():
            link.courier.unwatch(self.job)
        error = None if failure is None else msgspec.to_builtins(failure)
        text = f"{self.spec.job.name} is done" if failure is None else failure.message
        # Only the code is logged: a message about a table may show its owner a value.
        _LOG.info("job %s: %s %s", self.job, state, "" if failure is None else f"{failure.code} at {failure.side}")
        values |= {"state": state, "error": error, "finished_at": now(), "agreement": None}
        self.journal.close(state, text, error, values)

    def close(self, failure: Failure, timeout_seconds: float) -> None:
        """The server stops."""
        with self.lock:
            run = self.run
            if not self.over and self._side.step_out(failure):
                self._stop()
            self.fail(failure)
        run.stop()
        run.wait(timeout_seconds)

    def _stop(self) -> None:
        self.over = True
        for timer in self._timers:
            timer.cancel()
        self.tables = None

    def _pass_deadline(self) -> None:
        seconds = self.spec.job.deadline_seconds
        self.fail(Failure.of(DeadlinePassed(f"the job did not end within its {seconds} s at {self.me}"), self.me))

    # Small things

    @property
    def newest(self) -> int:
        """The highest attempt of any link."""
        return max(link.newest for link in self.links.values())

    def say(self, link: Link, control: Control, attempt: int | None = None) -> None:
        """Tell a peer something about the job."""
        self.journal.sent(link.peer, control.kind, link.say(control, attempt))

    def knock(self, link: Link, control: Control, attempt: int | None = None) -> None:
        """The same, and again while the peer is out of reach."""
        self.journal.sent(link.peer, control.kind, link.knock(control, attempt))

    def abort(self, link: Link, failure: Failure) -> None:
        """Envelope 0 of the next attempt: nothing of this one needs to have arrived."""
        told = failure.told()
        self.say(link, Abort(told.code, told.message), link.newest + 1)

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
                self._side.lack(link, Failure.of(error, link.peer))
        except JobError as error:
            self.fail(Failure.of(error, self.me))
        except Exception:  # noqa: BLE001 - whatever it is, the job ends and the server goes on
            _LOG.exception("job %s", self.job)
            self.fail(Failure.of(InternalError(f"a bug at {self.me}"), self.me))

    def _watch(self) -> None:
        self.later(self._seconds_left, self._pass_deadline)
        for link in self.links.values():
            link.courier.watch(self.job)
