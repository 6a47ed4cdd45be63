"""How a job is opened at this party: its operator or a peer proposes it, or it was open when the server went away.

Each is judged by the same rules, and has a supervisor from then on. A job that has not begun outlives the server: both
sides go on where they were, and what its run takes is loaded again when it begins. Of a job that runs, those go on that
can do without this party, those that can be taken up from a checkpoint, and those whose end its coordinator knows; the
others have failed.
"""

import secrets
import threading
import time
from collections.abc import Callable

import msgspec
from sqlalchemy import Connection

from parties.audit import Audit
from parties.catalogue import Catalogue
from parties.errors import EnvelopeRefused, Failure, ServerRestarted, TooManyJobs
from parties.job_keys import check_keys
from parties.jobs.closing import STATES_KEPT
from parties.jobs.endings import Endings
from parties.jobs.negotiation import Negotiation
from parties.jobs.open_jobs import OpenJobs
from parties.jobs.resources import Resources
from parties.jobs.run import Loaded
from parties.jobs.standing import Words
from parties.jobs.supervisor import Supervisor
from parties.judgement import ESTIMATE, Judgement, judge, new_job
from parties.model_errors import UnknownModel
from parties.peers import Peers
from parties.proposal import read_proposal
from parties.readiness import Readiness
from parties.settings import PartySettings
from parties.storage.approvals import Approval
from parties.storage.database import Job, unix_seconds
from parties.storage.negotiated import PROPOSED
from parties.trust.contract import sign
from parties.trust.errors import JobRejected
from parties.wire.control import NEGOTIATION, SHARE_BYTES, Acceptance, Agreement, Waiting, fixed_private_seed
from parties.wire.envelopes import Envelope
from parties.worker_settings import OwnSettings
from vfl.errors import ImpossibleJob, JobError, RemoteProtocolError
from vfl.kinds import decode_spec, kind_of
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

TABLES_AT_ONCE = 2
"""How many proposals are judged at once: each reads a table."""


class Openings:
    """Safe for several threads."""

    def __init__(
        self,
        settings: PartySettings,
        shared: Resources,
        peers: Peers,
        audit: Audit,
        catalogue: Catalogue,
        endings: Endings,
        open_jobs: OpenJobs,
    ) -> None:
        self._settings, self._shared, self._peers, self._audit = settings, shared, peers, audit
        self._catalogue, self._endings, self._open = catalogue, endings, open_jobs
        self._me, self._store = settings.name, shared.store
        self._judging = threading.BoundedSemaphore(TABLES_AT_ONCE)

    # What this party makes of a job

    def judge(self, spec: JobSpec, strangers: tuple[PartyId, ...] = ()) -> Judgement:
        """By its own tables and policy; `strangers` are no peers of it. Raises JobError."""
        with self._judging:
            registered, acceptance = self._catalogue.registered(), self._settings.acceptance
            return judge(spec, self._me, self._shared.folder, registered, acceptance, strangers)

    def judgement(self, supervisor: Supervisor) -> Judgement:
        """The same questions the coordinator asked itself, of a job that is open here. Raises JobError."""
        job, spec = supervisor.job, supervisor.spec
        if self.resolved(spec) != spec:
            raise ImpossibleJob("the proposal leaves open what its coordinator fills in")
        judgement = self.judge(spec, check_keys(spec, self._peers, unix_seconds(supervisor.created_at)))
        judgement.log_relaxed_limits(job)
        shown = judgement.shown()
        stored = self._store.job(job)
        if stored is not None and ESTIMATE in stored.plan:  # what the job was proposed by
            shown["plan"][ESTIMATE] = stored.plan[ESTIMATE]
        self._store.update(job, **shown)
        self._store.tell(job, judgement.notices)
        return judgement

    def readiness(self, spec: JobSpec) -> Readiness:
        """What would come of this job if it were proposed now; nothing is stored, and no peer hears of it."""
        try:
            spec = self.resolved(spec)
            self._audit.check(spec.peers_of(self._me))
            strangers = check_keys(spec, self._peers, time.time()) if spec.identity_keys else ()
            judgement = self.judge(spec, strangers)
            request = judgement.request(self._me)
            self.loaded(judgement)
            missing = self._shared.consent.missing(request)
        except JobError as error:
            return Readiness(Failure.of(error, self._me))
        if self._me == spec.coordinator:
            return Readiness(None, "submit")
        return Readiness(None, "operator" if missing else "grant", missing)

    def resolved(self, spec: JobSpec) -> JobSpec:
        """The specification with what it leaves open filled in, from what is stored of a model that it applies.

        Raises ImpossibleJob, UnknownModel.
        """
        if spec.applied_model:
            trained, _ = self._trained(spec)
            spec = kind_of(spec).applying(spec, trained)
        resolved: JobSpec = kind_of(spec).resolve(spec)
        return resolved

    def loaded(self, judgement: Judgement) -> Loaded:
        """What a run of the job takes. Raises UnknownModel, ModelChanged."""
        return Loaded(judgement.tables, self._model(judgement.spec))

    def _model(self, spec: JobSpec) -> bytes:
        """This party's half of the model that the job applies, or the one that its coordinator lets it start from."""
        models = self._shared.models
        if spec.applied_model:
            _, manifest_digest = self._trained(spec)
            return models.intact(spec.applied_model, manifest_digest)[1]
        digest = spec.first_model if self._me == spec.coordinator else ""
        return models.model(digest, self._store.manifests_of(digest)) if digest else b""

    def _trained(self, spec: JobSpec) -> tuple[JobSpec, str]:
        """(The specification of the job that trained the model which `spec` applies, the digest of its manifest).

        Raises UnknownModel.
        """
        job, key = spec.applied_model, "model.start_from" if spec.learns else "model.training"
        manifest_digest = self._store.manifest_of(job)
        if not manifest_digest or self._shared.models.manifest(job) is None:
            raise UnknownModel(f"{key}: {self._me} holds no model of a training {job!r}")
        return decode_spec(self._store.agreed(job)[0]), manifest_digest

    def agreement(self, job: str, spec: JobSpec, share: bytes, commitment: bytes) -> Agreement:
        signer = self._peers.own_keys.for_contract(spec)
        return Agreement(share, commitment, self._private_seed(), sign(signer, job, spec.digest()))

    def _private_seed(self) -> bytes:
        fixed = self._settings.acceptance.private_seed
        return fixed_private_seed(fixed) if fixed else secrets.token_bytes(32)

    # Proposed here, or by a peer

    def supervise(
        self,
        job: Job,
        spec: JobSpec,
        agreement: Agreement,
        idempotency_key: str | None = None,
        digest: str = "",
        in_commit: Callable[[Connection], None] = lambda _: None,
    ) -> Supervisor:
        """The job is stored before anybody may speak of it. Raises StorageFailed."""
        supervisor = self._supervisor(job, spec, agreement)
        # The draws of a run that needs this party are not written down unless it can go on from a checkpoint.
        outlives = spec.resumes or self._me not in spec.required_parties
        stored = agreement if outlives else msgspec.structs.replace(agreement, private_seed=b"")
        self._store.add(
            job,
            spec.encoded(),
            msgspec.msgpack.encode(stored),
            idempotency_key,
            digest,
            from_peer=self._me != spec.coordinator,
            in_commit=in_commit,
        )
        self._open.add(supervisor)
        return supervisor

    def consider(self, envelope: Envelope) -> Supervisor:
        """A peer proposes: what its bytes show is answered at once, tables and policy are looked at next."""
        header = envelope.header
        self._admit(header.sender)
        proposal, spec = read_proposal(envelope, self._me, self._peers.keys_of)
        job = new_job(header.job, spec, self._me)
        agreement = self.agreement(job.id, spec, secrets.token_bytes(SHARE_BYTES), proposal.commitment)
        supervisor = self.supervise(job, spec, agreement)
        supervisor.tasks.off_lock(lambda: self._answer(supervisor))
        return supervisor

    def _admit(self, peer: PartyId) -> None:
        """Raises TooManyJobs before anything is made of a proposal."""
        most = self._settings.server.jobs_per_peer
        if self._open.proposed_by(peer) >= most:
            raise TooManyJobs(f"{peer} has {most} jobs open at {self._me}, as many as it may")
        if not self._peers.quota(peer).take():
            raise TooManyJobs(f"{peer} proposes jobs faster than {self._me} takes them")

    def _answer(self, supervisor: Supervisor) -> None:
        """What was decided before holds. Else own rules refuse it, a grant approves it, or the operator must decide."""
        consent, decided = self._shared.consent, self._shared.consent.decision(supervisor.job)
        try:
            if decided is not None and decided.decision == "rejected":
                raise rejection(self._me, decided.reason)
            self._audit.check(supervisor.spec.peers_of(self._me))
            judgement = self.judgement(supervisor)
            request, loaded = judgement.request(self._me), self.loaded(judgement)
            missing = consent.ask(supervisor.job, request, judgement.warnings) if decided is None else ""
            consent.check_unchanged(supervisor.job, request)
        except JobError as error:
            supervisor.refuse(error)
            return
        if missing:
            supervisor.await_operator(missing)
        else:
            supervisor.take_part(loaded)

    def _supervisor(self, job: Job, spec: JobSpec, agreement: Agreement) -> Supervisor:
        own = OwnSettings.read(self._shared.folder, self._settings)

        def load() -> Loaded:
            judgement = self.judgement(supervisor)
            self._shared.consent.check_unchanged(job.id, judgement.request(self._me))
            return self.loaded(judgement)

        supervisor = Supervisor(job, spec, agreement, self._shared, own, load, self._end)
        return supervisor

    def _end(self, job: str) -> None:
        """Its end is stored."""
        self._shared.checkpoints.drop(job)
        self._open.drop(job)

    # Open when the server went away

    def recover(self) -> None:
        """Take up the jobs that go on. Raises StorageFailed."""
        failure = self._restarted()
        voted = {(word.job, word.peer) for word in self._store.words()}
        asking = set()
        for job in self._store.open_jobs():
            spec = decode_spec(self._store.agreed(job.id)[0])
            trusted = set(job.peers) <= self._peers.outboxes.keys()
            result = self._shared.models.result(job.id) if (job.id, spec.coordinator) in voted else None
            if trusted and result is not None:
                asking.add(job.id)
                _, stored = self._store.agreed(job.id)
                without = self.agreement(job.id, spec, b"", b"")
                agreement = msgspec.msgpack.decode(stored, type=Agreement) if stored else without
                self._opened(job, spec, agreement).await_word(result)
            elif (lowered := self._lowered(job)) or not trusted or not self._take_up(job, spec):
                states = self._shared.models.discard(job.id)
                failed = lowered or failure
                closed = msgspec.structs.replace(failed, safe=STATES_KEPT) if states else failed
                self._endings.close_unfinished(job, closed)
                self._shared.checkpoints.drop(job.id)
        self._endings.recall(self._peers.outboxes, frozenset(asking))

    def _lowered(self, job: Job) -> Failure | None:
        """Why a job of a restored database does not go on: a peer has, or may have, signed what is not in it."""
        try:
            self._audit.check_restored(job.peers)
        except JobError as error:
            return Failure.of(error, self._me)
        return None

    def _take_up(self, job: Job, spec: JobSpec) -> bool:
        _, stored = self._store.agreed(job.id)
        if stored is None:
            return False
        agreement = msgspec.msgpack.decode(stored, type=Agreement)
        decided = self._shared.consent.decision(job.id)
        if (negotiation := self._negotiation(job)) is not None:
            drawn = msgspec.structs.replace(agreement, private_seed=agreement.private_seed or self._private_seed())
            supervisor = self._opened(job, spec, drawn)
            supervisor.tasks.guard(lambda: supervisor.take_up(negotiation))
            if spec.coordinator in negotiation.words and not _is_answered(negotiation.words[spec.coordinator], decided):
                supervisor.tasks.off_lock(lambda: self._answer(supervisor))
            return True
        goes_on = bool(agreement.begun) if spec.resumes else self._me not in spec.required_parties
        if not goes_on or decided is None:
            return False
        supervisor = self._opened(job, spec, agreement)
        supervisor.tasks.guard(lambda: supervisor.resume(self._restarted()))
        return True

    def _restarted(self) -> Failure:
        return Failure.of(ServerRestarted(f"the server of {self._me} restarted"), self._me)

    def _negotiation(self, job: Job) -> Negotiation | None:
        """None where the job has begun at some party, or another release has stored what was said."""
        if job.state != PROPOSED or job.attempt != NEGOTIATION:
            return None
        try:
            negotiation = Negotiation(self._store.negotiated(job.id), self._me, job.peers)
        except (EnvelopeRefused, RemoteProtocolError):
            return None
        return None if negotiation.has_gone_further else negotiation

    def _opened(self, job: Job, spec: JobSpec, agreement: Agreement) -> Supervisor:
        supervisor = self._supervisor(job, spec, agreement)
        self._open.add(supervisor)
        return supervisor


def _is_answered(words: Words, decided: Approval | None) -> bool:
    """Whether the coordinator knows how this party stands to the job."""
    is_waiting = decided is None and words.first_said(Waiting) is not None
    return is_waiting or words.first_said(Acceptance) is not None


def rejection(me: PartyId, reason: str) -> JobRejected:
    text = f"the operator of {me} rejected the job"
    return JobRejected(f"{text}: {reason}" if reason else text)
