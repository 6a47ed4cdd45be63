"""What can go wrong inside a job, named by whose side it is on.

Every error carries the four things a reader needs (errors.md): what happened and whose side (the message), what is
safe now, how to fix it, and a code from a closed list that a pipeline can match.
"""

from typing import ClassVar


class JobError(Exception):
    """A job cannot go on. `code` is stable, `safe` and `fix` are sentences for a person."""

    code: ClassVar[str] = "job_failed"
    safe: str = "Nothing was stored."
    fix: str = ""

    def __init__(self, message: str, *, fix: str = "", safe: str = "") -> None:
        super().__init__(message)
        self.fix = fix or type(self).fix
        self.safe = safe or type(self).safe


class LocalProtocolError(JobError):
    """Our own side broke the protocol: a bug here, or a role that cannot go on."""

    code = "local_protocol_error"


class RemoteProtocolError(JobError):
    """The peer sent something the protocol does not allow. The message names the peer."""

    code = "remote_protocol_error"
    peer: str = ""
    """Whoever drives a role fills it in: the peer whose message the role had taken last."""
    fix = "Compare versions with the peer; its log names the job and the step."


class PeerAborted(JobError):
    """The peer ended the job; the message carries its reason."""

    code = "peer_aborted"
    fix = "The peer's operator sees the cause in `vfl job show`."


class PeerTimeout(JobError):
    """The peer stopped answering."""

    code = "peer_timeout"
    fix = "Check that the peer's server runs and can be reached, then submit the job again."


class TooFewReplies(JobError):
    """A round got too few usable replies, however often it was tried."""

    code = "too_few_replies"
    fix = "See the job's events for who was late, lost or refused; raise rounds.deadline_seconds or lower min_clients."


class SecureSumFailed(JobError):
    """A secure sum could not be opened; nothing was learned of any client's vector."""

    code = "secure_sum_failed"
    fix = "See the job's events for who was late, lost or refused; the round can be repeated, with fresh keys."


class RowsDiffer(JobError):
    """The two sides do not hold the same rows in the same order."""

    code = "rows_differ"
    fix = (
        "Align the rows first (`vfl align`) and name the result in rows.alignment, or bring both files to the same ids "
        "in the same order; no id was sent, only a keyed digest."
    )


class Diverged(JobError):
    """Weights or gradients left the range the agreed parameters can hold."""

    code = "diverged"
    fix = "Lower train.optimiser.rate or momentum; clip or check the input columns."


class InvalidData(JobError):
    """A table does not fit the job: the message names the table, the column and the row."""

    code = "invalid_data"


class InvalidBottom(JobError):
    """A party's own bottom module cannot be loaded, cannot be made, or has another width than the job says."""

    code = "invalid_bottom"
    fix = "The function named under [bottom] in party.toml takes (columns, width) and returns a torch module."


class ModelUnfit(JobError):
    """The half of a model that a party holds does not fit the training that the job names."""

    code = "model_unfit"
    safe = "Nothing was scored and nothing is stored."
    fix = "`vfl model list` shows the models that this party holds; all parties name the one of the same training."


class SpecError(JobError):
    """The job specification cannot be read or contradicts itself."""

    code = "invalid_spec"
    fix = "docs/job_specification.md explains every key; `vfl job check` says what is wrong before a job is submitted."


class SpecConflict(SpecError):
    """Settings that cannot work together; the message names the clash, `fix` the ways out (refused_settings.md)."""

    code = "spec_conflict"


class NotAvailable(SpecError):
    """The specification asks for something this release does not do yet."""

    code = "not_available"


class ImpossibleJob(JobError):
    """The specification is well formed, but no run could satisfy it: too deep, too wide, too few rows."""

    code = "impossible_job"


class PaillierMissing(ImpossibleJob):
    """A training on Paillier ciphertexts is asked for where the packages of the extra `paillier` are not installed."""

    code = "paillier_missing"
    safe = "Nothing was sent."
    fix = "Install the extra `paillier` of this program, or `pip install phe gmpy2`, or take encryption.scheme = ckks."


class DeadlockError(Exception):
    """In memory every role waits for another; the message says who waits for whom."""
