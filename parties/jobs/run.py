"""One run of this party's role: what its worker is given, what reaches it, and how far what it says is believed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from parties.errors import EnvelopeTooLarge, Failure, InternalError, MailboxFull, WorkerVanished, printable
from parties.jobs.relay import Relay
from parties.jobs.resources import Resources
from parties.storage.checkpoints import Checkpoint
from parties.tables.datasets import LoadedTable, ids_digest
from parties.tables.row_ids import own_ids
from parties.wire.control import joint_seed
from parties.wire.envelopes import PART_LIMIT, Bytes, Header
from parties.worker.frames import (
    Checkpointed,
    Delivered,
    Failed,
    Finished,
    FromWorker,
    Left,
    NoMoreRequests,
    OutgoingMessage,
    RawIds,
    RawTable,
    Reported,
    Requested,
    Returned,
    Start,
    WorkerInput,
)
from parties.worker.mailbox import Mailbox
from parties.worker.process import WorkerProcess
from parties.worker_settings import OwnSettings
from vfl.errors import JobError, LocalProtocolError, RowsDiffer
from vfl.kinds import allowed, kind_of
from vfl.reports import Answered, Fact, Outcome
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId


class Loaded(NamedTuple):
    """What the run of this party takes."""

    tables: dict[str, LoadedTable]
    model: bytes = b""
    """That the job starts from or applies."""


class WorkerHearing(NamedTuple):
    """Who hears what a worker says, as far as it is believed."""

    send: Callable[[PartyId, str, Bytes, Callable[[], bool]], None]
    """A message of the role. Here and below the last argument says whether this run still counts."""
    note: Callable[[Fact | Checkpointed, Callable[[], bool]], None]
    answered: Callable[[Answered], None]
    """A request of this party's operator."""
    returned: Callable[[Outcome, Callable[[], bool]], None]
    failed: Callable[[Failure], None]
    vanished: Callable[[JobError, Callable[[], bool]], None]


class Run:
    """Of a job whose party comes back there is another one; the worker of an earlier run is not heard any more."""

    def __init__(
        self,
        job: str,
        spec: JobSpec,
        me: PartyId,
        private_seed: bytes,
        log_path: Path,
        shared: Resources,
        begun_bytes: Callable[[], int],
        hearing: WorkerHearing,
    ) -> None:
        """`shared` is what the runs of all jobs have; `begun_bytes` is what messages that are not whole may hold."""
        self._spec, self._me, self._private_seed = spec, me, private_seed
        self._log_path, self._begun_bytes, self._hearing = log_path, begun_bytes, hearing
        self._relay = Relay(job, spec, shared.signer)
        self._inbox: Mailbox[WorkerInput] = Mailbox(room=shared.room)
        self._worker: WorkerProcess | None = None
        self._counts = True
        self._about_ids = ""
        """What this party's own ids look like, for its operator alone."""
        self._largest: dict[str, int] = {}
        """Bytes of a message by its kind, once the rows are known."""

    def start_frame(
        self,
        tables: dict[str, LoadedTable],
        model: bytes,
        shares: Mapping[PartyId, bytes],
        own: OwnSettings,
        checkpoint: Checkpoint | None,
    ) -> Start:
        """Everything the role may know."""
        if "rows" in tables:
            self._about_ids = own_ids(tables["rows"].ids)
        seed = joint_seed(self._spec, shares)
        self._largest = kind_of(self._spec).message_limits(self._spec, tables["rows"].rows if "rows" in tables else 0)
        return Start(
            spec=self._spec.encoded(),
            me=self._me,
            tables={use: _raw(table, seed) for use, table in tables.items()},
            model=model,
            joint_seed=seed,
            private_seed=self._private_seed,
            bottom=own.bottom,
            pool=own.pool,
            saved=checkpoint.state if checkpoint else b"",
            transcripts=checkpoint.transcripts if checkpoint else {},
        )

    def start(self, start: Start) -> int:
        """Answers the worker's process id. Raises WorkerVanished, StorageFailed."""
        self._worker = WorkerProcess(start, self._inbox, self._log_path, self._hear, self._lose_worker)
        return self._worker.pid

    def mute(self) -> None:
        """Whatever the worker still says does not count."""
        self._counts = False

    def stop(self) -> None:
        self.mute()
        self._inbox.close()
        if self._worker is not None:
            self._worker.kill()

    def wait(self, timeout_seconds: float) -> None:
        if self._worker is not None:
            self._worker.wait(timeout_seconds)

    def with_own_ids(self, failure: Failure) -> Failure:
        """For this party's operator, who is told what its own ids look like; what a peer is told stands in its word."""
        if failure.code != RowsDiffer.code:
            return failure
        return msgspec.structs.replace(failure, fix=f"{failure.fix} {self._about_ids}".strip())

    # What reaches the worker

    def check_size(self, header: Header) -> None:
        """A message against what this job's can hold, and what waits already. Raises EnvelopeTooLarge, MailboxFull."""
        most = self._largest.get(header.kind, 0)
        if header.body_bytes - header.salt_bytes > most or (header.parts - 1) * PART_LIMIT >= most > 0:
            raise EnvelopeTooLarge(f"{header.kind} has at most {most} bytes in this job")
        # One that has begun may end, or its parts would lie here for ever.
        begins = header.parts > 1 and header.part == 1
        begun = self._begun_bytes() if begins else 0
        if not self._inbox.has_room_beside(begun):
            raise MailboxFull(f"the worker of {self._me} has not read what came before")

    def deliver(self, sender: PartyId, kind: str, body: Bytes) -> None:
        """Raises RemoteProtocolError for what the sender, or who it hands it on from, has not signed."""
        self._relay.check(sender, kind, body)
        self._inbox.put(Delivered(sender, kind, memoryview(body)), len(body))

    def tell(self, news: Left | Returned | Requested | NoMoreRequests) -> None:
        self._inbox.put(news, 0)

    # What the worker says

    def _hear(self, frame: FromWorker) -> None:
        """One thing the worker says, believed only as far as it is checked."""
        if not self._counts:
            return
        match frame:
            case OutgoingMessage(to, kind, body):
                if not allowed(self._spec, self._me, to, kind):
                    text = f"the role of {self._me} may not send {kind} to {to!r} in this job"
                    self._hearing.failed(Failure.of(LocalProtocolError(text), self._me))
                else:
                    self._hearing.send(to, kind, self._relay.sign(kind, body), lambda: self._counts)
            case Reported(Answered() as answer):
                self._hearing.answered(answer)
            case Reported(fact):
                self._hearing.note(fact, lambda: self._counts)
            case Checkpointed():
                self._hearing.note(frame, lambda: self._counts)
            case Finished(outcome):
                self._hearing.returned(outcome, lambda: self._counts)
            case Failed(""):
                bug = InternalError(f"a bug ended the worker of {self._me}")
                self._hearing.failed(Failure.of(bug, self._me))
            case Failed(code, message, safe, fix, peer):
                side = peer if peer in self._spec.parties else self._me
                self._hearing.failed(Failure(code, printable(message), safe, printable(fix), side))

    def _lose_worker(self, how: str) -> None:
        """The pipe closed."""
        error = WorkerVanished(f"the worker process of {self._me} {how}")
        self._hearing.vanished(error, lambda: self._counts)


def _raw(table: LoadedTable, seed: bytes) -> RawTable:
    return RawTable(
        rows=table.rows,
        columns=table.columns.tobytes() if table.file is None else table.file.descriptor,
        labels=None if table.labels is None else table.labels.tobytes(),
        ids_digest=ids_digest(seed, (table.order_digest,) if table.order_digest else table.ids),
        classes=table.classes,
        ids=None if (ids := table.hashed_ids) is None else RawIds(ids.hashes.tobytes(), ids.rows.tobytes()),
        words=dict(table.words),
        split_keys=None if table.split_keys is None else table.split_keys.tobytes(),
    )
