"""What can go wrong at a party outside a role, each with its stable code (errors.md)."""

from typing import ClassVar

import msgspec

from vfl.errors import InvalidData, JobError, PeerTimeout
from vfl.spec.sections import PartyId

MESSAGE_LIMIT = 4000


class Failure(msgspec.Struct, frozen=True):
    """Why a job ended, as it is stored and shown; `side` is the party it happened at, or whose fault it is."""

    code: str
    message: str
    safe: str = ""
    fix: str = ""
    side: PartyId = ""

    @classmethod
    def of(cls, error: JobError, side: PartyId) -> "Failure":
        return cls(error.code, printable(str(error)), error.safe, printable(error.fix), side)

    def as_stored(self) -> dict[str, str]:
        fields: dict[str, str] = msgspec.to_builtins(self)
        return fields


def printable(text: str) -> str:
    """Files and peers choose some of the words of an error: none of their letters may steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:MESSAGE_LIMIT])


class SettingsError(JobError):
    """party.toml or a VFL_* variable cannot be read or contradicts itself."""

    code = "invalid_settings"
    safe = "Nothing was started."


class PortInUse(JobError):
    """Another process listens on a port of this party."""

    code = "port_in_use"
    safe = "Nothing was started."


class PartyInUse(JobError):
    """Another server process already runs on this party's folder."""

    code = "party_in_use"
    safe = "Nothing was started; the running server is untouched."
    fix = "Stop the other `vfl party serve` of this folder first."


class NotTheCoordinator(JobError):
    """Only the coordinator of a job proposes it: the label party, or the aggregator."""

    code = "not_the_coordinator"
    fix = "Submit the job at that party's server."


class TooFewParties(JobError):
    """Fewer parties agreed to a job, or in time, than it needs to begin."""

    code = "too_few_parties"
    fix = "See why the others refused or did not answer, then submit the job again."


class PolicyRefused(JobError):
    """A rule of this party's own [acceptance] refuses the job; the message names the rule, the number and the limit."""

    code = "policy_refused"
    safe = "Nothing was sent and nothing ran."


class PeerUnreachable(JobError):
    """A peer's server cannot be reached."""

    code = "peer_unreachable"
    fix = (
        "Its operator starts its server (`vfl party serve`) and confirms your six words; "
        "`vfl peer address` corrects an address."
    )


class UnknownPeer(JobError):
    """This party does not know or does not trust a party of this name."""

    code = "unknown_peer"
    safe = "Nothing was sent."
    fix = "Enrol it: `vfl peer invite` at one side, `vfl peer accept` at the other; `vfl peer list` shows who is known."


class PeerMisnamed(JobError):
    """A party calls itself otherwise than this operator expects."""

    code = "peer_misnamed"
    fix = "Ask the other operator for the name in the peer's party.toml, and enrol it under that name."


class PeerWireVersion(JobError):
    """The peer speaks another wire version."""

    code = "wire_version_differs"
    fix = "Bring both parties to the same release of this software."


class JobCancelled(JobError):
    """An operator ended the job."""

    code = "cancelled"


class WorkerVanished(JobError):
    """The worker process of a job died: killed, out of memory, or crashed."""

    code = "worker_vanished"
    fix = "See the worker's log under logs/ in the party's folder; submit the job again."


class ClusterUnreachable(JobError):
    """The Dask cluster that party.toml names cannot be used: not reached, not trusted, empty, or of another release."""

    code = "cluster_unreachable"
    fix = "Run `vfl doctor`; start the cluster and its workers, or remove pool.scheduler from party.toml."


class InternalError(JobError):
    """A bug: details stand in this party's own log, never in a message."""

    code = "internal_error"
    fix = "See the log under logs/ in the party's folder and report it."


class ServerRestarted(JobError):
    """The server process ended while the job ran."""

    code = "server_restarted"
    fix = "Submit the job again."


class DeadlinePassed(JobError):
    """The job did not end within its job.deadline_seconds."""

    code = "deadline_passed"
    fix = "Raise job.deadline_seconds."


class StorageFailed(JobError):
    """A file could not be written: disk full, or no permission."""

    code = "storage_failed"
    status: ClassVar[int] = 507
    """What a peer is answered."""
    fix = "Free space in the party's folder, or correct its owner, and try again."


class PeerStorageFailed(PeerTimeout):
    """The peer is there, but can store nothing: its disk is full, or its database is locked."""

    code = "peer_storage_failed"
    fix = "The peer's operator frees space or closes what locks the database; then submit the job again."


class EndingUnknown(JobError):
    """The coordinator never said how a job ended whose role had returned here."""

    code = "ending_unknown"
    fix = "Ask the coordinator's operator how the job ended, and submit it again."


class NeverBegun(JobError):
    """The coordinator did not begin a job that this party had accepted."""

    code = "never_begun"
    fix = "The coordinator's operator sees what it waited for; submit the job again."


class PeerAway(JobError):
    """A party was away while the job ran, and the job goes on from a checkpoint."""

    code = "peer_away"


class NoProgress(JobError):
    """A job was taken up again and again, and never came to its next checkpoint."""

    code = "no_progress"
    safe = "No model was stored."
    fix = "The events of the job say how each attempt ended: `vfl job show`, at both sides."


class UnknownJob(JobError):
    """No job of this id at this party."""

    code = "unknown_job"
    safe = "Nothing was changed."


class IdempotencyKeyReused(JobError):
    """The same Idempotency-Key came with another specification."""

    code = "idempotency_key_reused"
    safe = "Nothing was submitted."
    fix = "Use a fresh key for a new job."


class UnknownFile(InvalidData):
    code = "unknown_file"


class UnknownDataset(InvalidData):
    code = "unknown_dataset"


class UnreadableFile(InvalidData):
    code = "unreadable_file"


class UnknownColumn(InvalidData):
    code = "unknown_column"


class NonNumericCell(InvalidData):
    code = "non_numeric_cell"


class MissingValue(InvalidData):
    code = "missing_value"


class NotFinite(InvalidData):
    code = "not_finite"


class DuplicateIds(InvalidData):
    code = "duplicate_ids"


class IdType(InvalidData):
    """An id column holds another type than the specification says."""

    code = "id_type"


class DuplicateColumns(InvalidData):
    code = "duplicate_columns"


class IdAmongColumns(InvalidData):
    code = "id_among_columns"


class LabelInFeatureFile(InvalidData):
    code = "label_in_feature_file"


class LabelsNotBinary(InvalidData):
    code = "labels_not_binary"
    positive: str = ""
    """A value to name as positive, where that is all that is missing."""


class LabelsNotClasses(InvalidData):
    code = "labels_not_classes"


class TaskUnclear(InvalidData):
    """Labels that may be classes or amounts, and nobody said which."""

    code = "task_unclear"


class WrongWidth(InvalidData):
    code = "wrong_width"


class ConstantLabel(InvalidData):
    code = "constant_label"


class TooFewRows(InvalidData):
    code = "too_few_rows"


class EnvelopeRefused(JobError):
    """A peer's envelope is not accepted; `status` is the HTTP answer, `expected` the next sequence where that helps."""

    code = "envelope_refused"
    status: ClassVar[int] = 400
    expected: int | None = None


class MalformedEnvelope(EnvelopeRefused):
    code = "malformed_envelope"


class EnvelopeWireVersion(EnvelopeRefused):
    code = "wire_version_differs"
    status = 426


class UnknownSender(EnvelopeRefused):
    code = "unknown_sender"
    status = 401


class NoSuchJob(EnvelopeRefused):
    """The job is not known here, or over since before this server started."""

    code = "no_such_job"
    status = 422


class IllegalRoute(EnvelopeRefused):
    code = "illegal_route"
    status = 403


class TooManyJobs(EnvelopeRefused):
    """A peer has as many jobs open here as it may, or proposes them too fast."""

    code = "too_many_jobs"
    status = 409
    fix = "Wait until a job with this peer has ended, then submit it again; `server.jobs_per_peer` is the peer's bound."


class JobOver(EnvelopeRefused):
    """A party comes back to a job, or agrees to one, that has ended or goes on without it."""

    code = "job_over"
    status = 422
    fix = "Submit a new job to train with this party again."


class TooManyJoins(EnvelopeRefused):
    """A peer comes back to a job too often; the same bytes may be tried later."""

    code = "too_many_joins"
    status = 429


class StaleAttempt(EnvelopeRefused):
    code = "stale_attempt"
    status = 409


class ProposalOutOfTime(EnvelopeRefused):
    """A proposal is older than five minutes, or comes from the future."""

    code = "proposal_out_of_time"
    status = 409
    fix = "`vfl doctor` shows how far the two clocks are apart; set the wrong one, and submit the job again."


class SequenceGap(EnvelopeRefused):
    code = "sequence_gap"
    status = 409


class Equivocation(EnvelopeRefused):
    """Two different envelopes of one number: proof that the sender says two things."""

    code = "equivocation"
    status = 409


class BrokenChain(EnvelopeRefused):
    code = "broken_chain"
    status = 422


class TamperedBody(EnvelopeRefused):
    code = "tampered_body"
    status = 422


class UnreadableBody(EnvelopeRefused):
    code = "unreadable_body"
    status = 422


class EnvelopeTooLarge(EnvelopeRefused):
    code = "too_large"
    status = 413


class MailboxFull(EnvelopeRefused):
    code = "mailbox_full"
    status = 429


def known_codes(error: type[JobError] = JobError) -> set[str]:
    """Of every error of this release that can end a job or refuse an envelope."""
    return {error.code}.union(*map(known_codes, error.__subclasses__()))
