"""A peer's proposal as its bytes show it: read and checked before anything is made of it."""

import time

from parties import limits
from parties.errors import ProposalOutOfTime, UnreadableBody
from parties.trust.contract import KeysOf, Signatures
from parties.wire.control import Proposal, decode_control, job_id
from parties.wire.envelopes import CONTROL_LIMIT, UNREADABLE, Envelope, Header, check_body
from vfl.errors import JobError
from vfl.kinds import decode_spec
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

OLDEST_SECONDS, EARLIEST_SECONDS = 300.0, 30.0
"""How old a proposal may be, and how far ahead the proposer's clock."""


def read_proposal(envelope: Envelope, me: PartyId, keys_of: KeysOf) -> tuple[Proposal, JobSpec]:
    """Raises ProposalOutOfTime, UnreadableBody, EnvelopeTooLarge, TamperedBody."""
    header = envelope.header
    _check_time(header)
    check_body(envelope, CONTROL_LIMIT)
    try:
        proposal = decode_control(header.sender, "Proposal", envelope.message)
        assert isinstance(proposal, Proposal)  # noqa: S101 - decoded as one
        spec = decode_spec(proposal.spec)
        limits.check_limits(spec)
        Signatures(header.job, spec, keys_of).check(header.sender, proposal.signed)
    except (JobError, *UNREADABLE) as error:
        raise UnreadableBody(str(error)) from error
    unknown_sender = me not in spec.parties or header.sender != spec.coordinator
    if unknown_sender or spec.digest() != header.job_digest:
        raise UnreadableBody("the proposal is not what its header says")
    if job_id(header.job_digest, proposal.commitment) != header.job:
        raise UnreadableBody("the job's id does not follow from the proposal")
    return proposal, spec


def _check_time(header: Header) -> None:
    """A proposal opens a job, so nothing that came before it says whether somebody sends an old one again."""
    age = time.time() - header.sent_at
    if not -EARLIEST_SECONDS <= age <= OLDEST_SECONDS:  # a time that is no number fails this too
        side = "after" if age > 0 else "before"
        raise ProposalOutOfTime(
            f"the proposal of {header.sender} came {abs(age):.0f} s {side} the time it was made: it is an old one that "
            "somebody sends again, or one of the two clocks is wrong"
        )
