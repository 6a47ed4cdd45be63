"""One job at this party: what its peers and its worker say is checked here, and every ending is decided here.

A job ends in exactly one of three ways (architecture.md 5.3). Finished: the role returned and every peer said the same.
Refused: an exception left the role, a peer aborted, an operator cancelled. Vanished: the worker died or a peer stopped
answering; until attempts can resume, that fails the job too. The server process outlives all of them.
"""

import logging
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from parties.channel import CONTROL_LIMIT, PART_LIMIT, Bytes, Envelope, Header, Incoming, Outgoing, check_body
from parties.courier import Courier, Receipt
from parties.datasets import Table, ids_digest
from parties.errors import (
    DeadlinePassed,
    Equivocation,
    Failure,
    IllegalRoute,
    InternalError,
    MailboxFull,
    StaleAttempt,
    WorkerVanished,
    printable,
)
from parties.journal import Journal
from parties.mailbox import Mailbox
from parties.negotiation import (
    CONTROLS,
    NEGOTIATION,
    RUN,
    SHARE_BYTES,
    Abort,
    Acceptance,
    Begin,
    Control,
    Finish,
    Proposal,
    Refusal,
    Side,
    check_shares,
    commitment_to,
    decode_control,
    encode_control,
    failure_at,
    joint_seed,
)
from parties.pipe import Delivered, Failed, Finished, FromWorker, RawTable, Sent, Start, Stated
from parties.registry import Registry
from parties.store import Store, now
from parties.worker_process import WorkerProcess
from vfl.errors import JobError, LocalProtocolError, RemoteProtocolError
from vfl.job import JobSpec
from vfl.reports import Outcome
from vfl.routes import allowed
from vfl.terms import PartyId

_LOG = logging.getLogger("parties")

EPOCHS_KEPT = "No model was stored; the states of the finished epochs are kept."


@dataclass
class Link:
    """Both directions between this party and one peer of the job."""

    courier: Courier
    outgoing: Outgoing
    incoming: dict[int, Incoming]
    """By attempt."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Supervisor:
    """Made when a job is proposed here or by a peer; stays to answer repetitions after the job is over."""

    def __init__(
        self,
        job: str,
        spec: JobSpec,
        me: PartyId,
        share: bytes,
        bottom: str,
        couriers: Mapping[PartyId, Courier],
        store: Store,
        registry: Registry,
        folder: Path,
    ) -> None:
        self.job, self.spec, self.me = job, spec, me
        self._registry, self._log_path = registry, folder / "logs" / f"{job}.log"
        self._journal = Journal(job, store, registry)
        self._digest = spec.digest()
        self._links = {
            peer: Link(couriers[peer], Outgoing(job, self._digest, NEGOTIATION, me, peer), {NEGOTIATION: Incoming()})
            for peer in spec.peers_of(me)
        }
        self._lock = threading.RLock()
        self._attempt = NEGOTIATION
        self.over = False
        self._shares = {me: share}
        self._commitment = commitment_to(share)
        self._tables: dict[str, Table] | None = None
        self._private_seed = b""
        self._bottom = bottom
        self._inbox: Mailbox[Delivered] = Mailbox()
        self._worker: WorkerProcess | None = None
        self._outcome: Outcome | None = None
        self._model_digest = ""
        self._finished_peers: set[PartyId] = set()
        self._deadline = threading.Timer(spec.job.deadline_seconds, self._pass_deadline)
        self._deadline.daemon = True

    # Negotiation

    def propose(self, tables: dict[str, Table], private_seed: bytes) -> None:
        """The label party's first word. The caller has stored the job."""
        self._tables, self._private_seed = tables, private_seed
        self._watch()
        self._tell(Proposal(self.spec.encoded(), self._commitment))

    def accept(self, tables: dict[str, Table], private_seed: bytes, proposal: Proposal) -> None:
        """A feature party agrees."""
        with self._lock:
            if self.over:
                return
            self._tables, self._private_seed, self._commitment = tables, private_seed, proposal.commitment
            self._watch()
            self._journal.record("accepted", f"{self.me} accepted the job")
            self._tell(Acceptance(self._shares[self.me]))

    def refuse(self, error: JobError) -> None:
        """A feature party does not agree; it tells why, and no value of its table."""
        failure = Failure.of(error, self.me)
        told = failure.told()
        with self._lock:
            if not self.over:
                self._tell(Refusal(told.code, told.message, told.fix))
                self._end("failed", failure)

    # What peers say

    def receive(self, envelope: Envelope) -> Receipt:
        """One envelope of a peer of this job. Raises EnvelopeRefused."""
        header = envelope.header
        link = self._links.get(header.sender)
        # (6) the job is this one, its specification the one both signed up to, and the sender in it
        if link is None or header.job_digest != self._digest:
            raise IllegalRoute(f"{header.sender} is not in this job, or means another specification")
        with link.lock:
            if self.over:  # the peer is told by Abort, or knows; what it still sends has no effect
                return Receipt(self.job, header.attempt, header.sequence + 1)
            lane = link.incoming.get(header.attempt) or self._new_attempt(header)
            try:
                new = lane.is_new(envelope)
            except Equivocation as error:
                self.fail(Failure.of(error, header.sender))
                raise
            if new:
                if header.attempt < max(link.incoming):
                    raise StaleAttempt(f"attempt {header.attempt} is over, {max(link.incoming)} runs")
                self._check_route(header)
                check_body(envelope, CONTROL_LIMIT if header.kind in CONTROLS else PART_LIMIT)
                # (9) policy and reveal counters come with budgets
                if header.kind not in CONTROLS and not self._inbox.has_room:
                    raise MailboxFull(f"the worker of {self.me} has not read what came before")
                body = lane.accept(envelope)
                link.incoming[header.attempt] = lane
                if body is not None:
                    self._journal.received(header.sender, header.kind, len(body))
                    self._take(header.sender, header.kind, body)
            # (11) the receipt
            return Receipt(self.job, header.attempt, lane.expected)

    def _new_attempt(self, header: Header) -> Incoming:
        if header.kind not in {"Begin", "Abort"} or header.sequence:
            raise StaleAttempt(f"attempt {header.attempt} has not begun")
        return Incoming()

    def _check_route(self, header: Header) -> None:
        # (6) may this role send this kind?
        control = CONTROLS.get(header.kind)
        if control is None:
            legal = header.attempt == RUN and allowed(self.spec, header.sender, self.me, header.kind)
        else:
            legal = control.sender in {None, self._side_of(header.sender)}
            legal = legal and control.attempt in {None, header.attempt} and header.parts == 1
        if not legal:
            raise IllegalRoute(f"{header.sender} may not send {header.kind} to {self.me} in this job")

    def _side_of(self, party: PartyId) -> Side:
        return Side.COORDINATOR if party == self.spec.coordinator else Side.OTHER

    def _take(self, sender: PartyId, kind: str, body: Bytes) -> None:
        if kind not in CONTROLS:
            self._inbox.put(Delivered(sender, kind, memoryview(body)), len(body))
            return
        with self._lock:
            self.guard(lambda: self._obey(sender, decode_control(kind, body)), sender)

    def _obey(self, sender: PartyId, control: Control) -> None:
        match control:
            case Acceptance(share) if sender not in self._shares and len(share) == SHARE_BYTES:
                self._shares[sender] = share
                self._journal.record("accepted", f"{sender} accepted the job")
                if len(self._shares) == len(self.spec.parties):
                    self._attend(lambda: self._begin(self._shares))
            case Refusal(code, message, fix) if self._attempt == NEGOTIATION:
                self.fail(failure_at(sender, "refused", code, message, fix), knowing=sender)
            case Begin(shares) if self._attempt == NEGOTIATION and self._tables is not None:
                check_shares(shares, self.spec, self._commitment, self.me, self._shares[self.me])
                self._attend(lambda: self._begin(shares))
            case Finish() if self._attempt == RUN:
                self._finished_peers.add(sender)
                self._finish_together()
            case Abort(code, message):
                self.fail(failure_at(sender, "ended", code, message), knowing=sender)
            case Proposal() if self._attempt == NEGOTIATION:
                pass  # this supervisor was made from it
            case _:
                raise RemoteProtocolError(f"{sender} sent {control.kind} out of turn")

    # The run

    def _begin(self, shares: dict[PartyId, bytes]) -> None:
        """Both sides have agreed: derive the seed, say so, start the worker."""
        tables = self._tables
        if tables is None:
            return
        seed = joint_seed(self.spec, shares)
        start = Start(
            spec=self.spec.encoded(),
            me=self.me,
            tables={use: _raw(table, seed) for use, table in tables.items()},
            first_model=b"",
            joint_seed=seed,
            private_seed=self._private_seed,
            bottom=self._bottom,
        )
        with self._lock:
            if self.over or self._attempt != NEGOTIATION:  # a second Begin can come before the first is obeyed
                return
            self._attempt, self._tables = RUN, None
            for peer, link in self._links.items():
                link.outgoing = Outgoing(self.job, self._digest, RUN, self.me, peer)
                link.incoming.setdefault(RUN, Incoming())
            if self.me == self.spec.coordinator:
                self._tell(Begin(shares))
            self._worker = WorkerProcess(start, self._inbox, self._log_path, self._hear, self._lose_worker)
            self._journal.record(
                "started",
                "training started",
                state="running",
                attempt=RUN,
                started_at=now(),
                worker_pid=self._worker.pid,
            )

    def _hear(self, frame: FromWorker) -> None:
        """One thing the worker says, believed only as far as it is checked."""
        match frame:
            case Sent(to, kind, body):
                self.guard(lambda: self._send(to, kind, body))
            case Stated(fact):
                if not self.over:
                    self.guard(lambda: self._journal.note(fact))
            case Finished(outcome):
                self.guard(lambda: self._keep(outcome))
            case Failed(code, message, safe, fix):
                bug = Failure.of(InternalError(f"a bug ended the worker of {self.me}"), self.me)
                self.fail(Failure(code, printable(message), safe, printable(fix), self.me) if code else bug)

    def _send(self, to: PartyId, kind: str, body: Bytes) -> None:
        if to not in self._links or not allowed(self.spec, self.me, to, kind):
            raise LocalProtocolError(f"the role of {self.me} may not send {kind} to {to!r} in this job")
        link = self._links[to]
        link.courier.wait_for_room()
        envelopes = link.outgoing.seal(kind, body)
        self._journal.sent(to, kind, len(body))
        if not self.over:
            link.courier.put(envelopes)

    def _keep(self, outcome: Outcome) -> None:
        """The role returned: store its half first, so that a full disk is told before anybody says Finish."""
        digest = self._registry.keep_model(self.job, outcome.state)
        with self._lock:
            if self.over:
                self._registry.discard(self.job)
                return
            self._outcome, self._model_digest = outcome, digest
            self._journal.record("trained", "trained; waiting for the other parties", trained_at=now(), worker_pid=None)
            self._tell(Finish())
            self._finish_together()

    def _finish_together(self) -> None:
        outcome = self._outcome
        if outcome is None or self.over or self._finished_peers != set(self._links):
            return
        result: dict[str, Any] = {
            "model_digest": self._model_digest,
            "metrics": {name: value for name, value in outcome.metrics.items() if math.isfinite(value)},
            "operations": outcome.operations,
        }
        manifest = {"job": self.job, "name": self.spec.job.name, "party": self.me, "spec_digest": self._digest.hex()}
        self._registry.seal(self.job, manifest | result | {"finished_at": now()})
        self._end("done", None, **result, model_path=str(self._registry.model_path(self.job)))

    def _lose_worker(self, how: str) -> None:
        """The pipe closed. After a proper ending this changes nothing."""
        if self._outcome is None:
            self.fail(Failure.of(WorkerVanished(f"the worker process of {self.me} {how}"), self.me))

    # Endings

    def fail(self, failure: Failure, knowing: PartyId | None = None) -> None:
        """End the job here and tell every peer but the one that told us. Later endings change nothing."""
        with self._lock:
            if self.over:
                return
            told = failure.told()
            for peer, link in self._links.items():
                link.courier.forget(self.job)
                if peer != knowing:
                    # Envelope 0 of the next attempt: nothing of this one needs to have arrived.
                    link.outgoing = Outgoing(self.job, self._digest, self._attempt + 1, self.me, peer)
                    self._tell_one(peer, Abort(told.code, told.message))
            if self._registry.discard(self.job):
                failure = msgspec.structs.replace(failure, safe=EPOCHS_KEPT)
            self._end("cancelled" if failure.code == "cancelled" else "failed", failure)

    def _end(self, state: str, failure: Failure | None, **values: Any) -> None:
        self.over = True
        self._deadline.cancel()
        self._tables = None
        self._inbox.close()
        if self._worker is not None and failure is not None:
            self._worker.kill()
        for link in self._links.values():
            link.courier.unwatch(self.job)
        error = None if failure is None else msgspec.to_builtins(failure)
        text = f"{self.spec.job.name} is done" if failure is None else failure.message
        # Only the code is logged: a message about a table may show its owner a value.
        _LOG.info("job %s: %s %s", self.job, state, "" if failure is None else f"{failure.code} at {failure.side}")
        self._journal.close(state, text, error, values | {"state": state, "error": error, "finished_at": now()})

    def close(self, failure: Failure, timeout_seconds: float) -> None:
        """The server stops."""
        self.fail(failure)
        if self._worker is not None:
            self._worker.kill()
            self._worker.wait(timeout_seconds)

    def _pass_deadline(self) -> None:
        seconds = self.spec.job.deadline_seconds
        self.fail(Failure.of(DeadlinePassed(f"the job did not end within its {seconds} s at {self.me}"), self.me))

    # Small things

    def _watch(self) -> None:
        self._deadline.start()
        for link in self._links.values():
            link.courier.watch(self.job)

    def _tell(self, control: Control) -> None:
        for peer in self._links:
            self._tell_one(peer, control)

    def _tell_one(self, peer: PartyId, control: Control) -> None:
        link, body = self._links[peer], encode_control(control)
        self._journal.sent(peer, control.kind, len(body))
        link.courier.put(link.outgoing.seal(control.kind, body))

    def _attend(self, task: Callable[[], None]) -> None:
        """Off the thread that owes a peer its receipt."""
        threading.Thread(target=self.guard, args=(task,), name=f"job {self.job}", daemon=True).start()

    def guard(self, task: Callable[[], None], sender: PartyId = "") -> None:
        """Run something whose every exception must end the job with a name; a broken rule is its sender's."""
        try:
            task()
        except RemoteProtocolError as error:
            self.fail(Failure.of(error, sender or self.me))
        except JobError as error:
            self.fail(Failure.of(error, self.me))
        except Exception:  # noqa: BLE001 - whatever it is, the job ends and the server goes on
            _LOG.exception("job %s", self.job)
            self.fail(Failure.of(InternalError(f"a bug at {self.me}"), self.me))


def _raw(table: Table, seed: bytes) -> RawTable:
    return RawTable(
        rows=table.rows,
        columns=table.columns.tobytes(),
        labels=None if table.labels is None else table.labels.tobytes(),
        ids_digest=ids_digest(seed, table.ids),
    )
