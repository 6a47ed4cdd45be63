"""What a peer may read of why a job ended here: what depends on a table, a file or a limit of ours is told neutrally.

Every code is decided here, and one nobody has decided about is told neutrally: a peer that may choose columns, batches
and epochs of its proposals could otherwise ask our table questions by being refused.
"""

import re

from parties import errors as ours
from parties.database_errors import DatabaseBusy, DatabaseUnreachable
from parties.dataset_errors import LabelAmongInputs, NotATime, TooManyCategories
from parties.errors import Failure, PolicyRefused
from parties.model_errors import ModelChanged, UnknownModel
from parties.pause_errors import JobPaused
from parties.trust.errors import (
    AlignmentUnfit,
    AuditLogContradicted,
    AuditLogUnconfirmed,
    BudgetSpent,
    IdentityKeyDiffers,
    JobRejected,
    PeerRemoved,
    UnknownAlignment,
)
from vfl import errors as roles

ABOUT_TABLE = frozenset(
    error.code
    for error in (
        roles.InvalidData,
        ours.UnknownFile,
        ours.UnknownDataset,
        ours.UnreadableFile,
        ours.UnknownColumn,
        ours.NonNumericCell,
        ours.MissingValue,
        ours.NotFinite,
        TooManyCategories,
        NotATime,
        ours.DuplicateIds,
        ours.IdType,
        ours.DuplicateColumns,
        ours.IdAmongColumns,
        LabelAmongInputs,
        ours.LabelInFeatureFile,
        ours.LabelsNotBinary,
        ours.LabelsNotClasses,
        ours.WrongWidth,
        ours.ConstantLabel,
        ours.TaskUnclear,
        ours.TooFewRows,
    )
)
"""Told as `invalid_data`, all alike: which of them it is says which columns there are, or what stands in them."""

NEUTRAL = {
    roles.ImpossibleJob.code: "the job cannot run on {side}'s table; its operator sees why",
    roles.PaillierMissing.code: "{side} cannot train on Paillier ciphertexts: it lacks the extra `paillier`",
    roles.InvalidBottom.code: "{side}'s bottom model does not fit the job; its operator sees why",
    roles.Diverged.code: "training diverged at {side}; its operator sees by how much",
    roles.LocalProtocolError.code: "the role of {side} could not go on; its operator sees why",
    ours.InternalError.code: "a bug at {side} ended the job; its operator finds it in the log",
    ours.StorageFailed.code: "{side} could not store what it must keep",
    ours.ClusterUnreachable.code: "{side} could not use the processes that share its work",
    DatabaseBusy.code: "{side} could not store what it must keep",
    DatabaseUnreachable.code: "{side} could not store what it must keep",
    IdentityKeyDiffers.code: "the job names another identity key of a party than {side} knows",
    PeerRemoved.code: "{side} no longer works with a party of the job",
    AlignmentUnfit.code: "{side}'s table is not the one that was aligned: align again",
    UnknownAlignment.code: "{side} does not hold the alignment that the job names",
    UnknownModel.code: "{side} does not hold the model that the job names",
    ModelChanged.code: "{side} does not hold the model that the job names",
    roles.ModelUnfit.code: "{side}'s half of the model is not one of the training that the job names",
    AuditLogUnconfirmed.code: "{side} waits for what a peer has signed of its audit log",
    AuditLogContradicted.code: "the audit log of {side} does not continue what a peer has signed of it",
}
"""Told with their code, and these words."""

IN_FULL = frozenset(
    error.code
    for error in (
        roles.SpecError,
        roles.SpecConflict,
        roles.NotAvailable,
        roles.RowsDiffer,  # both sides compare the number of rows and a keyed digest, which travel
        roles.RemoteProtocolError,
        roles.PeerAborted,
        roles.PeerTimeout,
        roles.TooFewReplies,
        roles.SecureSumFailed,
        ours.PeerAway,
        ours.NoProgress,
        ours.PeerStorageFailed,
        ours.PeerWireVersion,
        ours.JobCancelled,
        JobPaused,
        ours.WorkerVanished,
        ours.ServerRestarted,
        ours.DeadlinePassed,
        ours.NeverBegun,
        ours.EndingUnknown,
        ours.TooFewParties,
        ours.JobOver,
        ours.TooManyJobs,
        ours.ProposalOutOfTime,
        ours.StaleAttempt,
        ours.Equivocation,
        JobRejected,  # in the words of that operator, meant for the peer
        BudgetSpent,  # in numbers that both sides have signed
    )
)
"""About the specification, which the peer has, about its own messages, or about nothing but that something happened."""


def redacted_for_peer(failure: Failure) -> Failure:
    """As a peer may read it."""
    if failure.code in ABOUT_TABLE:
        return Failure(
            roles.InvalidData.code,
            f"{failure.side}'s table does not fit the job; its operator sees where",
            fix=f"Compare what the specification asks of {failure.side} with what its operator reads there.",
        )
    if failure.code == PolicyRefused.code:
        return _rule_alone(failure)
    if failure.code in IN_FULL:
        return Failure(failure.code, failure.message)
    words = NEUTRAL.get(failure.code, "the job ended at {side}; its operator sees why")
    return Failure(failure.code, words.format(side=failure.side))


def rule_of(failure: Failure) -> str:
    """The rule of [acceptance] that refused a job; empty for another failure."""
    rule = re.search(r"acceptance\.\w+", failure.message + failure.fix)
    return rule[0] if rule and failure.code == PolicyRefused.code else ""


def _rule_alone(failure: Failure) -> Failure:
    """Which rule it is, and how to change it; no number of a table."""
    return Failure(failure.code, f"{failure.side} refuses by {rule_of(failure) or 'its policy'}", fix=failure.fix)
