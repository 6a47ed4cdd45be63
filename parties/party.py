"""One organisation's node: the one object the edge talks to. It plays another role in every job."""

import contextlib
import hashlib
import secrets
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import msgspec

from parties import limits
from parties.audit import Audit
from parties.awake import AwakeClock
from parties.catalogue import Catalogue
from parties.consent import Consent
from parties.cosigning import other_witnesses
from parties.enrolment import Enrolment
from parties.errors import (
    Failure,
    IdempotencyKeyReused,
    JobCancelled,
    NotTheCoordinator,
    ServerRestarted,
    UnknownJob,
    UnknownPeer,
)
from parties.estimates.estimator import Estimator
from parties.folder_lock import hold
from parties.job_keys import filled_in
from parties.jobs.endings import Endings
from parties.jobs.open_jobs import OpenJobs
from parties.jobs.resources import Resources
from parties.jobs.scoring_session import Prediction, Wanted
from parties.jobs.supervisor import Supervisor
from parties.judgement import ESTIMATE, new_job
from parties.key_rotation import KeyRotation
from parties.openings import Openings, rejection
from parties.own_columns_scores import OwnColumnsScores
from parties.own_keys import OwnKeys
from parties.pause_errors import CannotPause
from parties.peers import OutboxHearing, Peers
from parties.readiness import Readiness
from parties.server_certificate import OwnCertificate
from parties.session_errors import NoSession
from parties.settings import PartySettings, key_folder
from parties.storage.checkpoints import CheckpointStore
from parties.storage.database import Event, Job, Store, unix_seconds
from parties.storage.job_list import JobLine
from parties.storage.ledger import Ledger
from parties.storage.models import ModelStore
from parties.storage.owner import claim
from parties.storage.peer_store import PeerStore, StoredPeer
from parties.storage.trained_models import TrainedModels
from parties.trust.errors import GrantInvalid, NoScores, NotWaiting, PeerRemoved
from parties.trust.identity import Identity
from parties.trust.request import Request
from parties.wire.control import SHARE_BYTES, commitment_to, job_id
from parties.wire.envelopes import NO_ENVELOPE, Envelope
from parties.wire.post import Post, ReceivingRoom
from parties.wire.receipts import Receipt
from parties.wire.transport import Answer, Transport
from parties.worker.mailbox import Room
from vfl.errors import JobError
from vfl.kinds import decode_spec
from vfl.notices import Notice
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

WORKER_FAREWELL_SECONDS = 2.0
UNREAD_BYTES = 256 << 20
"""What may lie unread for the workers of all jobs together."""
JOBS_IN_A_PAGE = 50


class Party:
    """Safe for several threads. Raises SettingsError, StorageFailed, PartyInUse (another process has the folder)."""

    def __init__(
        self,
        folder: Path,
        settings: PartySettings,
        identity: Identity,
        connect: Callable[[PartyId], Transport] | None = None,
    ) -> None:
        """`connect` answers how a trusted peer is reached, where not by its address."""
        self.folder, self.settings, self.name = folder.resolve(), settings, settings.name
        others = other_witnesses(self.folder, settings.audit)
        tls = settings.server.tls
        own_certificate = OwnCertificate(self.folder / tls.certificate, self.folder / tls.key) if tls else None
        self._lock_file = hold(self.folder)
        timeout_seconds = settings.server.peer_timeout_seconds
        self._store = Store(self.folder, timeout_seconds, settings.storage.url)
        self._held = contextlib.ExitStack()
        self._held.enter_context(self._store.database.hold())
        claim(self._store.database, self.name)
        self._clock = AwakeClock()
        self._ledger = Ledger(self._store)
        self.own_keys = OwnKeys(identity, key_folder(self.folder, settings), self._store.database)
        self._endings = Endings(self.own_keys, self._store, self._ledger)
        self._models = ModelStore(self.folder)
        rules, database = settings.acceptance, self._store.database
        peer_store = PeerStore(database)
        hearing = OutboxHearing(self._lose_peer, self._endings.received, self._clock)
        self.peers = Peers(self.own_keys, peer_store, timeout_seconds, hearing, self._ledger, connect, own_certificate)
        self.audit = Audit(self.peers, others, self._store.database, self._models, self._ledger)
        self.enrolment = Enrolment(self.peers, peer_store, settings.server.told_address)
        self.catalogue = Catalogue(self.folder, database)
        self.models = TrainedModels(self.own_keys, self._store, self._models)
        self.own_columns_scores = OwnColumnsScores(self.folder, self.name, self.catalogue, self.models)
        self.consent = Consent(self.own_keys, database, rules.maximum_rho, rules.run_limits, rules.predictions_per_day)
        self._shared = Resources(
            self.own_keys,
            lambda job: partial(self.peers.keys_of, at=unix_seconds(job.created_at)),
            lambda peer: self.peers.outboxes[peer],
            self._store,
            self._ledger,
            self._models,
            CheckpointStore(self.folder),
            self.consent,
            self.folder,
            Room(UNREAD_BYTES),
        )
        self._open = OpenJobs()
        self._receiving_room = ReceivingRoom()
        self._lock = threading.RLock()
        self._submitting = threading.Lock()
        self._openings = Openings(
            settings, self._shared, self.peers, self.audit, self.catalogue, self._endings, self._open
        )
        self.estimator = Estimator(self.folder, self.name, self._openings.resolved, self._openings.judge)
        self._openings.recover()
        self.key_rotation = KeyRotation(self.peers, self.enrolment, self._endings.sign_anew)

    # For this party's operator

    def submit(self, text: str, idempotency_key: str | None = None, guesses: Sequence[Notice] = ()) -> Job:
        """Check a job against own table and policy, then propose it to every peer; `guesses` were made to write it.

        Raises SpecError, ImpossibleJob, InvalidData, PolicyRefused, NotTheCoordinator, UnknownPeer, UnknownModel,
        ModelChanged, PeerUnreachable, PeerWireVersion, IdempotencyKeyReused or StorageFailed; then nothing was stored
        or sent.
        """
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
        earlier = self._submitted(idempotency_key, digest)
        if earlier is not None:
            return earlier
        spec = limits.read_limited(text)
        spec = self._openings.resolved(spec)
        self._check_proposer(spec)
        judgement = self._openings.judge(filled_in(spec, self.peers))
        spec, loaded = judgement.spec, self._openings.loaded(judgement)
        self.peers.check_reach(spec)  # nothing is held meanwhile: a peer may be slow to answer
        self.audit.check(spec.peers_of(self.name))
        share = secrets.token_bytes(SHARE_BYTES)
        job = new_job(job_id(spec.digest(), commitment_to(share)), spec, self.name, judgement)
        if (foreseen := self.estimator.made_of(text)) is not None:
            job = msgspec.structs.replace(job, plan=job.plan | {ESTIMATE: msgspec.to_builtins(foreseen)})
        agreement = self._openings.agreement(job.id, spec, share, commitment_to(share))
        request, warnings = judgement.request(self.name), judgement.warnings
        with self._submitting:
            earlier = self._submitted(idempotency_key, digest)
            if earlier is not None:
                return earlier
            submitted = partial(self.consent.submit, job=job.id, request=request, warnings=warnings)
            supervisor = self._openings.supervise(job, spec, agreement, idempotency_key, digest, submitted)
        self._store.tell(supervisor.job, guesses)
        supervisor.take_part(loaded)
        return self.job(supervisor.job)

    def _submitted(self, idempotency_key: str | None, digest: str) -> Job | None:
        """What came of an earlier submit with this key. Raises IdempotencyKeyReused."""
        earlier = None if idempotency_key is None else self._store.job_of_key(idempotency_key)
        if earlier is not None and earlier[1] != digest:
            raise IdempotencyKeyReused(f"Idempotency-Key {idempotency_key!r} came with another specification")
        return None if earlier is None else self.job(earlier[0])

    def job(self, job: str) -> Job:
        """Raises UnknownJob."""
        stored = self._store.job(job)
        if stored is None:
            raise UnknownJob(f"{self.name} has no job {job!r}", fix="`vfl job list` shows its jobs.")
        return stored

    def jobs(self, limit: int = JOBS_IN_A_PAGE, after: str = "") -> list[JobLine]:
        """One page, newest first: the jobs that come after the named one. Raises UnknownJob."""
        if after:
            self.job(after)
        return self._store.lines(limit, after)

    def events(self, job: str, after: int, wait_seconds: float, kinds: Collection[str] = ()) -> list[Event]:
        """Events numbered above `after`, of these kinds or all; waits that long for a first one. Raises UnknownJob."""
        self.job(job)
        return self._store.events(job, after, wait_seconds, kinds)

    def scores(self, job: str) -> bytes:
        """What a prediction tells of each row, as CSV. Raises UnknownJob, NoScores."""
        path = self._models.scores_path(self.job(job).id)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise NoScores(f"{self.name} holds no scores of the job {job!r}") from None

    def predict(self, training: str, wanted: Sequence[Wanted], job: str = "") -> Prediction:
        """Scores of rows from the open session of a model, of the named job where there are several.

        Raises UnknownModel, NoSession, OwnValuesUnfit, ScoresLate.
        """
        sessions = {each.job: each.session for each in self._open.all() if each.session.is_open}
        fitting = [each for name, each in sessions.items() if each.model == training and job in {"", name}]
        if not fitting:
            self.models.get(training)
            raise NoSession(f"{self.name} has no open scoring session {f'{job!r} ' if job else ''}of that model")
        if len(fitting) > 1:
            raise NoSession(
                f"{self.name} has {len(fitting)} open scoring sessions of that model",
                fix=f"Say in `job` which one is meant: {', '.join(sorted(sessions))}.",
            )
        return fitting[0].ask(wanted)

    def end_session(self, job: str) -> Job:
        """A session ends well on both sides, before its time. Raises UnknownJob, NoSession."""
        self.job(job)
        supervisor = self._open.get(job)
        if supervisor is None or not supervisor.session.is_open:
            raise NoSession(f"the job {job} is no open scoring session of {self.name}")
        supervisor.end_session()
        return self.job(job)

    def pause(self, job: str) -> Job:
        """A training waits on all sides until this operator resumes it, or its deadline has passed.

        Raises UnknownJob, CannotPause, AlreadyPaused, PausedByPeer.
        """
        self._running(job).pause()
        return self.job(job)

    def resume(self, job: str) -> Job:
        """Raises UnknownJob, CannotPause, NotPaused, PausedByPeer."""
        self._running(job).end_pause()
        return self.job(job)

    def _running(self, job: str) -> Supervisor:
        state, supervisor = self.job(job).state, self._open.get(job)
        if supervisor is None or state != "running":
            raise CannotPause(f"the job {job} is {state}, so it can neither be paused nor resumed")
        return supervisor

    def cancel(self, job: str) -> Job:
        """End a job on all sides; one that is over stays as it is. Raises UnknownJob."""
        self.job(job)
        supervisor = self._open.get(job)
        if supervisor is not None:
            supervisor.fail(Failure.of(JobCancelled(f"the operator of {self.name} cancelled it"), self.name))
        return self.job(job)

    def approve(self, job: str, reason: str = "") -> Job:
        """Let a job that waits for this operator use the data it was shown.

        Raises UnknownJob, NotWaiting, RequestChanged, PolicyRefused, StorageFailed, and what a table may raise.
        """
        supervisor = self._waiting(job)
        judgement = self._openings.judgement(supervisor)
        loaded = self._openings.loaded(judgement)
        self.consent.approve(job, judgement.request(self.name), judgement.warnings, reason)
        supervisor.take_part(loaded)
        return self.job(job)

    def reject(self, job: str, reason: str = "") -> Job:
        """Its coordinator reads the reason. Raises UnknownJob, NotWaiting, StorageFailed."""
        supervisor = self._waiting(job)
        self.consent.reject(job, reason)
        supervisor.refuse(rejection(self.name, reason))
        return self.job(job)

    def request(self, text: str, job: str = "") -> Request:
        """What a job of this specification, or else one that was proposed, asks of this party. Raises as `submit`."""
        proposed = decode_spec(self._store.agreed(self.job(job).id)[0]) if job else limits.read_limited(text)
        spec = self._openings.resolved(proposed)
        if self.name not in spec.parties:
            raise GrantInvalid(f"{self.name} is not a party of this job")
        return self._openings.judge(spec).request(self.name)

    def resolved(self, spec: JobSpec) -> JobSpec:
        """The specification with what it leaves open filled in. Raises ImpossibleJob, UnknownModel."""
        return self._openings.resolved(spec)

    def readiness(self, spec: JobSpec) -> Readiness:
        """What would come of this job if it were proposed now; nothing is stored, and no peer hears of it."""
        return self._openings.readiness(spec)

    def _waiting(self, job: str) -> Supervisor:
        supervisor, decided = self._open.get(self.job(job).id), self.consent.decision(job)
        if supervisor is None or decided is not None:
            raise NotWaiting(f"job {job} does not wait for the approval of {self.name}'s operator")
        return supervisor

    def remove_peer(self, peer: PartyId) -> StoredPeer:
        """It is a stranger from now on, and the jobs that need it fail. Raises UnknownPeer, StorageFailed."""
        removed = self.peers.remove(peer)
        self.consent.revoke_all_of(peer)
        for supervisor in self._open.all():
            if peer in supervisor.spec.peers_of(self.name):
                supervisor.on_peer_lost(peer, None, PeerRemoved(f"the operator of {self.name} has removed {peer}"))
        return removed

    # For peers

    def open_post(self) -> Post:
        """For the envelopes of one POST, each checked alone; an empty one is how a peer asks whether we are there."""
        refused, flush = self.peers.note_refusal, self._ledger.flush
        return Post(self.own_keys, self._wants, self._receive, self._receiving_room, refused, flush)

    def deliver(self, post: bytes) -> Answer:
        """A POST that is here as a whole."""
        opened = self.open_post()
        opened.add(post)
        return opened.end()

    def close(self) -> None:
        """End every worker, and on all sides every running job that needs this party."""
        stopped = Failure.of(ServerRestarted(f"the server of {self.name} was stopped"), self.name)
        for supervisor in self._open.all():
            supervisor.close(stopped, WORKER_FAREWELL_SECONDS)
        parts = (self.key_rotation, self.audit, self.peers, self._clock, self._ledger, self._held, self._store)
        for each in (*parts, self._lock_file):
            each.close()

    def _wants(self, head: Envelope) -> bool:
        """Whether a body larger than any proposal may come now. Raises EnvelopeRefused."""
        self.peers.check_sender(head)
        supervisor = self._open.get(head.header.job)
        return supervisor is not None and supervisor.reception.wants(head)

    def _receive(self, envelope: Envelope) -> Receipt:
        self.peers.check_sender(envelope)
        header = envelope.header
        with self._lock:
            supervisor = self._open.get(header.job)
            place = (header.attempt, header.sequence, header.previous)
            first = header.kind == "Proposal" and place == (0, 0, NO_ENVELOPE)
            if supervisor is None and first and self._store.state_for_peers(header.job) is None:
                supervisor = self._openings.consider(envelope)
        if supervisor is None:
            return self._endings.hear(envelope, self.peers.outboxes[header.sender])
        return supervisor.reception.receive(envelope)

    def _check_proposer(self, spec: JobSpec) -> None:
        if self.name != spec.coordinator:
            role = spec.role_of(spec.coordinator).value
            raise NotTheCoordinator(f"{self.name} is not the {role} of this job, {spec.coordinator} is")
        for peer in spec.peers_of(self.name):
            if peer not in self.peers.outboxes:
                raise UnknownPeer(f"{self.name} has no trusted peer {peer!r}")

    def _lose_peer(self, peer: PartyId, job: str, attempt: int | None, error: JobError) -> None:
        """An outbox gave up on its peer."""
        if (supervisor := self._open.get(job)) is not None:
            supervisor.on_peer_lost(peer, attempt, error)
        else:
            self.peers.outboxes[peer].forget(job)
