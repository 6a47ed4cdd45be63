"""What can go wrong where organisations prove something to each other: enrolment, grants, alignments, audit logs
(errors.md)."""

from typing import ClassVar

from vfl.errors import JobError


class GrantInvalid(JobError):
    """A grant contradicts itself, is not signed by its owner, or is not good for another job."""

    code = "invalid_grant"
    safe = "Nothing was granted and nothing ran."
    fix = "`vfl grant create` makes another one."


class UnknownGrant(JobError):
    """No grant of this id at this party."""

    code = "unknown_grant"
    safe = "Nothing was changed."
    fix = "`vfl grant list` shows the grants of this party."


class NotWaiting(JobError):
    """The operator decides about a job that does not wait for a decision."""

    code = "not_waiting"
    safe = "Nothing was changed."
    fix = "A job waits while `vfl job show` says so: it was decided about already, or is over."


class RequestChanged(JobError):
    """What a job takes of this party is not what its operator was shown: a file changed meanwhile."""

    code = "request_changed"
    safe = "Nothing was approved; the job still waits."
    fix = "Read `vfl job diff` again, and decide then."


class JobRejected(JobError):
    """An operator does not let a job use the data of this party."""

    code = "job_rejected"
    safe = "Nothing was sent and nothing ran."
    fix = "Ask the operator of that party, or propose another job."


class BudgetSpent(JobError):
    """A message would reveal more than all parties agreed that the job may."""

    code = "reveal_budget_spent"
    safe = "The message did not leave. What had left before is counted in `vfl ledger`."
    fix = "The peer asks for more than the job allows, or steps were taken again too often: look at the job's events."


class MalformedNote(JobError):
    """A signed note, a checkpoint, a key or a proof is not written as its format says, byte for byte."""

    code = "malformed_note"
    safe = "Nothing of it was believed."
    status: ClassVar[int] = 400
    """What a witness answers."""


class NoteNotSigned(JobError):
    """The key that should have signed a note did not sign it, or signed another text."""

    code = "note_not_signed"
    safe = "Nothing of it was believed."
    status: ClassVar[int] = 403


class MalformedLeaf(JobError):
    """A leaf of the audit log is not written as its format says: a bug here, or another program wrote it."""

    code = "malformed_leaf"
    safe = "Nothing was appended to the log."
    fix = "See the log under logs/ in the party's folder and report it."


class UnknownLog(JobError):
    """A witness is asked about the log of a party that it does not know."""

    code = "unknown_log"
    safe = "Nothing was signed."
    status: ClassVar[int] = 404


class StaleHead(JobError):
    """The proof begins at another size than the one this witness signed last; `size` is that one."""

    code = "stale_head"
    safe = "Nothing was signed."
    fix = "Ask again with a proof from that size."
    status: ClassVar[int] = 409

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class RewrittenLog(JobError):
    """A log does not begin with the leaves that it had when this witness signed it last: its past was changed."""

    code = "rewritten_log"
    safe = "The head that was signed before is kept, and proves the change."
    fix = "Ask the log's owner for an explanation before any further job; keep both heads."

    def __init__(self, message: str, *, of_same_size: bool) -> None:
        super().__init__(message)
        self.status = 409 if of_same_size else 422


class AuditLogContradicted(JobError):
    """A peer has signed a head of this party's audit log that the log here does not continue: the database was put back
    from a copy, or changed."""

    code = "audit_log_contradicted"
    safe = "Nothing of this job was sent. Jobs with other peers go on."
    fix = (
        "Stop the server and put the newest copy of its folder in place, or the newest backup. If both are lost, the "
        "peer has to enrol a new party with a new key: what is counted for the old one can never be known again."
    )


class AuditLogUnconfirmed(JobError):
    """This party was restored from a backup, and a peer has not said yet whether it has signed a longer log."""

    code = "audit_log_unconfirmed"
    safe = "Nothing of this job was sent."
    fix = "Submit the job again as soon as the peer can be reached: `vfl doctor` tests the way to it."


class UnknownLeaf(JobError):
    """The audit log has no entry of this number."""

    code = "unknown_leaf"
    safe = "Nothing was changed."
    fix = "`vfl audit show` says how many entries there are."


class InvitationUnreadable(JobError):
    """The text is not an invitation, or not all of it arrived."""

    code = "invitation_unreadable"
    safe = "Nothing was sent, and no peer was added."
    fix = "Copy the whole line that `vfl peer invite` printed at the other side, or ask for a new one."


class InvitationExpired(JobError):
    """The invitation is no longer good: its time is over, or it was used."""

    code = "invitation_expired"
    safe = "No peer was added."
    fix = "Ask the other side for a new one: `vfl peer invite NAME` prints it."


class WordsDiffer(JobError):
    """The six words an operator was told are not those of the enrolment."""

    code = "words_differ"
    safe = "The peer is not trusted, and nothing else has changed."
    fix = (
        "Read all six words to each other once more. If they differ, somebody may stand in the middle: remove the peer "
        "with `vfl peer remove`, and begin again with a new invitation sent by another way."
    )


class EnrolmentFailed(JobError):
    """The two servers could not meet, or said what does not fit the invitation."""

    code = "enrolment_failed"
    safe = "No peer was added."
    fix = "Check the address, and that the other server runs; then use the same line again while it is good."


class PeerAlreadyKnown(JobError):
    """A party of this name is trusted already, with another key."""

    code = "peer_already_known"
    safe = "The peer that is trusted is untouched."
    fix = "If it really has a new key, remove it first with `vfl peer remove`, then enrol it again."


class PeerRemoved(JobError):
    """The operator removed a peer while a job with it ran."""

    code = "peer_removed"
    fix = "Enrol the peer again, and submit the job again."


class NoScores(JobError):
    """Scores are asked for of a job that has none here: no prediction, or not done, or another party has read them."""

    code = "no_scores"
    safe = "Nothing was changed."
    fix = "The label party of a prediction holds its scores once the job is done: `vfl job show` tells both."


class UnknownAlignment(JobError):
    """The specification names an alignment that this party does not hold."""

    code = "unknown_alignment"
    safe = "Nothing was sent."
    fix = "`vfl job show` of an alignment that is done names its result_digest; both parties hold it under that digest."


class AlignmentUnfit(JobError):
    """The alignment that the specification names is of another file, data set or party."""

    code = "alignment_unfit"
    safe = "Nothing was sent."
    fix = "Run an alignment on the present files of the parties of this job, and name its result_digest."


class RotationRefused(JobError):
    """A statement that one identity key follows another does not lead on from the key that is pinned.

    `rule` says why: unreadable, unsigned, foreign, older or forked.
    """

    code = "rotation_refused"
    safe = "The key that is pinned stays pinned."
    fix = (
        "Ask the other operator by telephone which key is the right one. If another key follows the old one already, "
        "somebody else has the old key: remove the peer with `vfl peer remove`, and enrol it anew."
    )

    def __init__(self, message: str, rule: str) -> None:
        super().__init__(message)
        self.rule = rule


class IdentityKeyDiffers(JobError):
    """A specification names another identity key of a party than the one that is pinned here."""

    code = "identity_key_differs"
    safe = "Nothing was sent and nothing ran."
    fix = (
        "Ask the operator of that party by telephone which key is the right one. If the party has rotated its key, one "
        "side has not heard of it yet: submit the job again later. Else somebody puts another key in its place."
    )
