"""One run of this party's role: what its worker is given, what reaches it, and how far what it says is believed."""

from functools import partial
from typing import TYPE_CHECKING

from parties.errors import EnvelopeTooLarge, Failure, InternalError, MailboxFull, WorkerVanished, printable
from parties.tables.datasets import Table, ids_digest
from parties.tables.row_ids import own_ids
from parties.wire.control import joint_seed
from parties.wire.envelopes import PART_LIMIT, Bytes, Header
from parties.worker.frames import (
    Delivered,
    Failed,
    Finished,
    FromWorker,
    Left,
    RawTable,
    Reported,
    Returned,
    Sent,
    Start,
    WorkerInput,
)
from parties.worker.mailbox import Mailbox, Room
from parties.worker.process import WorkerProcess
from vfl.errors import LocalProtocolError, PeerTimeout
from vfl.planning import planner
from vfl.routes import allowed
from vfl.spec.sections import PartyId

if TYPE_CHECKING:
    from parties.jobs.supervisor import Supervisor


class Run:
    """Of a job whose party comes back there is another one; the worker of an earlier run is not heard any more."""

    def __init__(self, job: "Supervisor", room: Room) -> None:
        """`room` is shared with the runs of all jobs."""
        self._job = job
        self._inbox: Mailbox[WorkerInput] = Mailbox(room=room)
        self._worker: WorkerProcess | None = None
        self.about_ids = ""
        """What this party's own ids look like, for its operator alone."""
        self._largest: dict[str, int] = {}
        """Bytes of a message by its kind, once the rows are known."""

    def given(self, tables: dict[str, Table], first_model: bytes, shares: dict[PartyId, bytes], bottom: str) -> Start:
        """Everything the role may know."""
        if "rows" in tables:
            self.about_ids = own_ids(tables["rows"].ids)
        job, seed = self._job, joint_seed(self._job.spec, shares)
        self._largest = planner.largest_messages(job.spec, tables["rows"].rows if "rows" in tables else 0)
        return Start(
            spec=job.spec.encoded(),
            me=job.me,
            tables={use: _raw(table, seed) for use, table in tables.items()},
            first_model=first_model,
            joint_seed=seed,
            private_seed=job.agreement.private_seed,
            bottom=bottom,
        )

    def start(self, given: Start) -> int:
        """Answers the worker's process id. Raises WorkerVanished, StorageFailed."""
        self._worker = WorkerProcess(given, self._inbox, self._job.log_path, self._hear, self._lose_worker)
        return self._worker.pid

    def stop(self) -> None:
        self._inbox.close()
        if self._worker is not None:
            self._worker.kill()

    def wait(self, timeout_seconds: float) -> None:
        if self._worker is not None:
            self._worker.wait(timeout_seconds)

    # What reaches the worker

    def check_size(self, header: Header) -> None:
        """A message against what this job's can hold, and what waits already. Raises EnvelopeTooLarge, MailboxFull."""
        most = self._largest.get(header.kind, 0)
        if header.body_bytes > most or (header.parts - 1) * PART_LIMIT >= most > 0:
            raise EnvelopeTooLarge(f"{header.kind} has at most {most} bytes in this job")
        # One that has begun may end, or its parts would lie here for ever.
        begins = header.parts > 1 and header.part == 1
        begun = sum(link.begun_bytes for link in self._job.links.values()) if begins else 0
        if not self._inbox.has_room_beside(begun):
            raise MailboxFull(f"the worker of {self._job.me} has not read what came before")

    def deliver(self, sender: PartyId, kind: str, body: Bytes) -> None:
        self._inbox.put(Delivered(sender, kind, memoryview(body)), len(body))

    def tell_left(self, peer: PartyId) -> None:
        self._inbox.put(Left(peer), 0)

    def tell_finished(self, peer: PartyId) -> None:
        """Its role has returned: after what it sent before there is nothing to wait for."""
        self._inbox.put(Left(peer), 0)

    def tell_returned(self, peer: PartyId) -> None:
        self._inbox.put(Returned(peer), 0)

    # What the worker says

    @property
    def _counts(self) -> bool:
        return self._job.run is self and not self._job.over

    def _hear(self, frame: FromWorker) -> None:
        """One thing the worker says, believed only as far as it is checked."""
        job = self._job
        if not self._counts:
            return
        match frame:
            case Sent(to, kind, body):
                job.guard(partial(self._send, to, kind, body))
            case Reported(fact):
                job.guard(partial(job.journal.note, fact))
            case Finished(outcome):
                job.guard(partial(job.closing.keep, outcome))
            case Failed(code, message, safe, fix):
                bug = Failure.of(InternalError(f"a bug ended the worker of {job.me}"), job.me)
                job.fail(Failure(code, printable(message), safe, printable(fix), job.me) if code else bug)

    def _send(self, to: PartyId, kind: str, body: Bytes) -> None:
        job = self._job
        if to not in job.links or not allowed(job.spec, job.me, to, kind):
            raise LocalProtocolError(f"the role of {job.me} may not send {kind} to {to!r} in this job")
        link = job.links[to]
        if to in job.spec.required_parties:
            link.outbox.wait_for_room()
        elif not link.outbox.has_room:  # one slow peer must not hold up the others
            job.on_peer_lost(to, None, PeerTimeout(f"{to} has not received yet what was sent to it before"))
        if link.send(kind, body, lambda: self._counts):
            job.journal.sent(to, kind, len(body))

    def _lose_worker(self, how: str) -> None:
        """The pipe closed. After a proper ending this changes nothing."""
        with self._job.lock:
            if self._counts and self._job.closing.result is None:
                self._job.lose_worker(WorkerVanished(f"the worker process of {self._job.me} {how}"))


def _raw(table: Table, seed: bytes) -> RawTable:
    return RawTable(
        rows=table.rows,
        columns=table.columns.tobytes(),
        labels=None if table.labels is None else table.labels.tobytes(),
        ids_digest=ids_digest(seed, table.ids),
        classes=table.classes,
    )
