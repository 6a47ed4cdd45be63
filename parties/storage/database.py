"""Jobs, their events and their traffic in this party's own database.

One commit per change of state, a few per second while a job runs, and one before anything leaves or is acknowledged.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sql

from parties.errors import printable
from parties.storage import approvals, lifetime, negotiated, traffic
from parties.storage.approvals import Approval
from parties.storage.engine import METADATA, NUMBER, Database
from parties.storage.job_list import RUNNING, JobLine, page_of
from parties.storage.kept_words import KeptWord, Words, keep, kept, words_table
from parties.storage.lifetime import Balance, BudgetKey
from parties.storage.models import ModelStore
from parties.storage.negotiated import PROPOSED, Negotiated, negotiated_table
from parties.storage.passed import AUDIT_LOG, Passed, keep_receipts
from parties.storage.pruning import drop_old_proposals
from parties.storage.traffic import Traffic, TrafficKey
from vfl.notices import Notice

ATTENDANCE_SHOWN = 100
EVENTS_AT_ONCE = 1000

_JOBS = sql.Table(
    "jobs",
    METADATA,
    sql.Column("id", sql.String, primary_key=True),
    sql.Column("name", sql.String, nullable=False),
    sql.Column("state", sql.String, nullable=False),
    sql.Column("role", sql.String, nullable=False),
    sql.Column("party", sql.String, nullable=False),
    sql.Column("peers", sql.JSON, nullable=False),
    sql.Column("spec", sql.LargeBinary, nullable=False),
    sql.Column("spec_digest", sql.String, nullable=False),
    sql.Column("agreement", sql.LargeBinary),
    sql.Column("attempt", NUMBER, nullable=False),
    sql.Column("created_at", sql.String, nullable=False),
    sql.Column("started_at", sql.String),
    sql.Column("trained_at", sql.String),
    sql.Column("finished_at", sql.String),
    sql.Column("step", NUMBER, nullable=False),
    sql.Column("steps", NUMBER, nullable=False),
    sql.Column("epoch", NUMBER, nullable=False),
    sql.Column("epochs", NUMBER, nullable=False),
    sql.Column("worker_pid", NUMBER),
    sql.Column("error", sql.JSON(none_as_null=True)),
    sql.Column("metrics", sql.JSON, nullable=False),
    sql.Column("operations", sql.JSON, nullable=False),
    sql.Column("series", sql.JSON, nullable=False),
    sql.Column("classes", sql.JSON, nullable=False),
    sql.Column("notices", sql.JSON, nullable=False),
    sql.Column("reveals", sql.JSON, nullable=False),
    sql.Column("plan", sql.JSON, nullable=False),
    sql.Column("model_digest", sql.String),
    sql.Column("result_digest", sql.String),
    sql.Column("manifest_digest", sql.String),
    sql.Column("relaxed_limits", sql.JSON, nullable=False),
    sql.Column("waits_for", sql.String, nullable=False),
    sql.Column("idempotency_key", sql.String, unique=True),
    sql.Column("idempotency_digest", sql.String),
)
_EVENTS = sql.Table(
    "events",
    METADATA,
    sql.Column("job", sql.ForeignKey("jobs.id"), primary_key=True),
    sql.Column("number", NUMBER, primary_key=True, autoincrement=False),
    sql.Column("time", sql.String, nullable=False),
    sql.Column("kind", sql.String, nullable=False),
    sql.Column("text", sql.String, nullable=False),
    sql.Column("data", sql.JSON, nullable=False),
)
_TRAFFIC = traffic.traffic_table(METADATA)
_WORDS = words_table(METADATA)
_NEGOTIATED = negotiated_table(METADATA)


class Seconds(msgspec.Struct, frozen=True):
    training: float | None = None
    total: float | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as this party's operator sees it."""

    id: str
    name: str
    state: str
    """proposed, running, done, failed or cancelled."""
    waits_for: str = ""
    """Of a job that is proposed: whose approval is missing, `approval` for this party's operator's. Of one that runs:
    who must be back before it goes on."""
    role: str
    party: str
    peers: list[str]
    spec_digest: str
    attempt: int = 0
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None
    step: int = 0
    steps: int = 0
    epoch: int = 0
    epochs: int = 0
    worker_pid: int | None = None
    error: dict[str, str] | None = None
    metrics: dict[str, float] = {}
    operations: dict[str, int] = {}
    series: dict[str, list[float | None]] = {}
    classes: list[str] = []
    """What this party's label holds for class 0, 1, ...; of two, the second is positive."""
    notices: list[Notice] = []
    """What the table and the specification told when the job was made, then what came of it."""
    traffic: list[Traffic] = []
    reveals: list[dict[str, Any]] = []
    plan: dict[str, Any] = {}
    model_digest: str | None = None
    result_digest: str | None = None
    """Of a result that all parties share: by it, or by the id of this job, a later job names it."""
    manifest_digest: str | None = None
    model_path: str | None = None
    """Where this party's half lies, also after its folder was moved."""
    scores_path: str | None = None
    """Where the scores of a prediction lie, at the label party."""
    seconds: Seconds = Seconds()
    relaxed_limits: list[str] = []
    approval: Approval | None = None
    """Who decided about the job at this party, and how."""
    specification: dict[str, Any] = {}
    """What all parties agreed to; left out of lists."""
    attendance: list[str] = []
    """Who left, came back, or had something refused: the last `ATTENDANCE_SHOWN`."""

    @property
    def over(self) -> bool:
        return self.state not in RUNNING


class StateForPeers(NamedTuple):
    """How a job stands, for its peers."""

    state: str
    error: dict[str, str] | None
    attempt: int
    spec: bytes

    @property
    def over(self) -> bool:
        return self.state not in RUNNING


class Event(msgspec.Struct, frozen=True):
    number: int
    time: str
    kind: str
    text: str
    data: dict[str, Any]


class Store:
    """Safe for several threads; a waiting reader is woken by the next write. A write raises StorageFailed."""

    def __init__(self, folder: Path, busy_seconds: float = 5.0, url: str = "") -> None:
        """As Database."""
        self.database, self._models = Database(folder, busy_seconds, url=url), ModelStore(folder)
        self._closed = False

    def add(
        self,
        job: Job,
        spec: bytes,
        agreement: bytes | None = None,
        idempotency_key: str | None = None,
        idempotency_digest: str = "",
        *,
        from_peer: bool = False,
        in_commit: Callable[[sql.Connection], None] = lambda _: None,
    ) -> None:
        """`agreement` is what it takes to go on with the job after this server was away; never shown.

        What `in_commit` writes is stored with the job, and neither is where it raises an error.

        The oldest jobs of its peer that came to nothing make room for one that comes `from_peer`.
        """
        values = {name: value for name, value in msgspec.structs.asdict(job).items() if name in _JOBS.c}
        values["notices"] = msgspec.to_builtins([_printable(notice) for notice in job.notices])
        values |= {"spec": spec, "agreement": agreement}
        values |= {"idempotency_key": idempotency_key, "idempotency_digest": idempotency_digest}
        with self.database.writing() as connection:
            if from_peer:
                old = drop_old_proposals(connection, _JOBS, (_EVENTS, _TRAFFIC, _WORDS), job.role, job.peers)
                approvals.forget(connection, lifetime.forget(connection, old))
            connection.execute(_JOBS.insert().values(**values))
            in_commit(connection)

    def update(self, job: str, **values: Any) -> None:
        with self.database.writing() as connection:
            connection.execute(_JOBS.update().where(_JOBS.c.id == job).values(**values))

    def record(
        self,
        job: str,
        kind: str,
        text: str,
        data: Mapping[str, Any] | None = None,
        *,
        words: Words | None = None,
        passed: Passed | None = None,
        **values: Any,
    ) -> None:
        """An event, the columns of the job that change with it, what peers are owed and what has passed the door, in
        one commit."""
        number = sql.select(sql.func.coalesce(sql.func.max(_EVENTS.c.number), 0) + 1).where(_EVENTS.c.job == job)
        with self.database.writing() as connection:
            if values:
                connection.execute(_JOBS.update().where(_JOBS.c.id == job).values(**values))
            connection.execute(
                _EVENTS.insert().values(
                    job=job, number=number.scalar_subquery(), time=now(), kind=kind, text=text, data=dict(data or {})
                )
            )
            keep(connection, _WORDS, job, words or {})
            _add(connection, passed or Passed())
            if values.get("state", PROPOSED) != PROPOSED:
                negotiated.forget(connection, _NEGOTIATED, job)

    def keep_words(self, job: str, words: Words, passed: Passed | None = None) -> None:
        with self.database.writing() as connection:
            keep(connection, _WORDS, job, words)
            _add(connection, passed or Passed())

    def negotiated(self, job: str) -> list[Negotiated]:
        """What was said about a job that has not begun, in order."""
        with self.database.reading() as connection:
            return negotiated.of_job(connection, _NEGOTIATED, job)

    def words(self) -> list[KeptWord]:
        """The oldest first."""
        with self.database.reading() as connection:
            return kept(connection, _WORDS)

    def tell(self, job: str, notices: Iterable[Notice]) -> list[Notice]:
        """Append those the job does not have yet; answers all it has."""
        query = sql.select(_JOBS.c.notices).where(_JOBS.c.id == job)
        with self.database.writing() as connection:
            all_notices = msgspec.convert(connection.execute(query).scalar_one(), list[Notice])
            all_notices += [notice for notice in dict.fromkeys(map(_printable, notices)) if notice not in all_notices]
            connection.execute(_JOBS.update().where(_JOBS.c.id == job).values(notices=msgspec.to_builtins(all_notices)))
        return all_notices

    def add_passed(self, passed: Passed) -> None:
        """What has passed the door since it was last stored."""
        with self.database.writing() as connection:
            _add(connection, passed)

    def balance(self, key: BudgetKey) -> Balance:
        """Raises BudgetSpent for a message that the job has no budget for."""
        with self.database.reading() as connection:
            return lifetime.balance(connection, key)

    def last_received(self, line: TrafficKey) -> bytes:
        """The digest of the last envelope of a peer, of one kind."""
        with self.database.reading() as connection:
            return traffic.last_of(connection, _TRAFFIC, line)

    def job(self, job: str) -> Job | None:
        with self.database.reading() as connection:
            row = connection.execute(_JOBS.select().where(_JOBS.c.id == job)).mappings().first()
            if row is None:
                return None
            stored = self._job(connection, row)
            return msgspec.structs.replace(stored, specification=msgspec.msgpack.decode(row["spec"]))

    def lines(self, limit: int, after: str = "") -> list[JobLine]:
        """One page, newest first: the jobs that come after the named one."""
        with self.database.reading() as connection:
            return [JobLine(**row) for row in connection.execute(page_of(_JOBS, limit, after)).mappings()]

    def open_jobs(self) -> list[Job]:
        """Those that are not over."""
        with self.database.reading() as connection:
            query = _JOBS.select().where(_JOBS.c.state.in_(RUNNING))
            return [self._job(connection, row) for row in connection.execute(query).mappings().all()]

    def state_for_peers(self, job: str) -> StateForPeers | None:
        """How a job stands, without what an operator is shown."""
        query = sql.select(_JOBS.c.state, _JOBS.c.error, _JOBS.c.attempt, _JOBS.c.spec).where(_JOBS.c.id == job)
        with self.database.reading() as connection:
            row = connection.execute(query).first()
            return None if row is None else StateForPeers(*row)

    def agreed(self, job: str) -> tuple[bytes, bytes | None]:
        """(specification, agreement) of a job."""
        with self.database.reading() as connection:
            query = sql.select(_JOBS.c.spec, _JOBS.c.agreement).where(_JOBS.c.id == job)
            row = connection.execute(query).one()
            return row[0], row[1]

    def manifests_of(self, model_digest: str) -> dict[str, str]:
        """The jobs that ended with this model, the newest first, and the digest of each one's manifest."""
        query = sql.select(_JOBS.c.id, _JOBS.c.manifest_digest).where(_JOBS.c.model_digest == model_digest)
        with self.database.reading() as connection:
            return {row[0]: row[1] for row in connection.execute(query.order_by(_JOBS.c.created_at.desc()))}

    def manifest_of(self, job: str) -> str:
        """The digest of the manifest of a job that is done here; empty where there is none."""
        query = sql.select(_JOBS.c.manifest_digest).where(_JOBS.c.id == job)
        with self.database.reading() as connection:
            return connection.execute(query).scalar() or ""

    def job_of_key(self, idempotency_key: str) -> tuple[str, str] | None:
        """(job, digest of what was submitted) under an idempotency key."""
        query = sql.select(_JOBS.c.id, _JOBS.c.idempotency_digest).where(_JOBS.c.idempotency_key == idempotency_key)
        with self.database.reading() as connection:
            row = connection.execute(query).first()
            return None if row is None else (row[0], row[1])

    def events(self, job: str, after: int, wait_seconds: float, kinds: Collection[str] = ()) -> list[Event]:
        """Events numbered above `after`, of these kinds or all; waits that long for a first one of a running job."""
        deadline = datetime.now(UTC).timestamp() + wait_seconds
        with self.database.written:
            while True:
                events = self._events_after(job, after, kinds)
                left = deadline - datetime.now(UTC).timestamp()
                if events or self._closed or left <= 0 or self._over(job):
                    return events
                self.database.written.wait(left)

    def close(self) -> None:
        with self.database.written:
            self._closed = True
            self.database.written.notify_all()
        self.database.close()

    def _events_after(self, job: str, after: int, kinds: Collection[str]) -> list[Event]:
        query = _EVENTS.select().where(_EVENTS.c.job == job, _EVENTS.c.number > after).order_by(_EVENTS.c.number)
        query = query.where(_EVENTS.c.kind.in_(kinds)) if kinds else query
        with self.database.reading() as connection:
            return [Event(*row[1:]) for row in connection.execute(query.limit(EVENTS_AT_ONCE))]

    def _job(self, connection: sql.Connection, row: sql.RowMapping) -> Job:
        fields = {name: row[name] for name in Job.__struct_fields__ if name in _JOBS.c}
        fields["notices"] = msgspec.convert(row["notices"], list[Notice])
        training = _between(row["started_at"], row["trained_at"])
        return Job(
            **fields,
            traffic=traffic.of_job(connection, _TRAFFIC, row["id"]),
            seconds=Seconds(training=training, total=_between(row["created_at"], row["finished_at"])),
            model_path=str(self._models.model_path(row["id"])) if row["model_digest"] else None,
            scores_path=str(scores) if (scores := self._models.scores_path(row["id"])).exists() else None,
            attendance=_attendance(connection, row["id"]),
            approval=approvals.decision(connection, row["id"]),
        )

    def _over(self, job: str) -> bool:
        with self.database.reading() as connection:
            state = connection.execute(sql.select(_JOBS.c.state).where(_JOBS.c.id == job)).scalar()
            return state not in RUNNING


def _add(connection: sql.Connection, passed: Passed) -> None:
    traffic.add(connection, _TRAFFIC, _JOBS, passed.counts)
    negotiated.add(connection, _NEGOTIATED, _JOBS, passed.words)
    AUDIT_LOG.append(connection, passed.leaves)
    lifetime.spend(connection, passed.spent)
    keep_receipts(connection, passed.receipts)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def seconds_since(time: str) -> float:
    return _between(time, now()) or 0.0


def unix_seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _printable(notice: Notice) -> Notice:
    return msgspec.structs.replace(notice, text=printable(notice.text))


def _attendance(connection: sql.Connection, job: str) -> list[str]:
    about_peers = _EVENTS.c.kind.in_(("left", "joined", "refused"))
    query = sql.select(_EVENTS.c.text).where(_EVENTS.c.job == job, about_peers).order_by(_EVENTS.c.number.desc())
    return list(reversed(connection.execute(query.limit(ATTENDANCE_SHOWN)).scalars().all()))


def _between(start: str | None, end: str | None) -> float | None:
    if start is None or end is None:
        return None
    return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(), 3)
