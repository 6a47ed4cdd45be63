"""Who may say which control word in which state, and the state after it: everything a word can change, as data.

The state is the other party's, the one that is not the coordinator; both sides see it alike. A word that fits no row
breaks the rules. docs/protocols/job.md shows these rows, and a test compares the two.

A party that is gone stands in no row: whatever it says changes nothing, and it is told again how the job ended for it.
"""

import enum
from typing import NamedTuple

from parties.wire.control import (
    NEGOTIATION,
    RUN,
    Abort,
    Acceptance,
    Ask,
    Begin,
    Control,
    Detach,
    Finish,
    Join,
    Proposal,
    Refusal,
    Waiting,
)
from parties.wire.envelopes import Header
from parties.wire.peer_state import Peer, PeerState
from vfl.errors import RemoteProtocolError
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId


class Speaker(enum.Enum):
    """Who speaks about a job: the party that proposed it, or one of the others."""

    COORDINATOR = "coordinator"
    OTHER = "other party"


class State(enum.Enum):
    """Of a party that was asked to a job."""

    ASKED = "asked"
    WAITING = "waiting"
    """Its operator has yet to approve the job."""
    AGREED = "agreed"
    LIVE = "live"
    """Its role is at work."""
    RETURNED = "returned"
    """Its role has returned, and it has said Finish."""
    AWAY = "away"
    GONE = "gone"
    """It has left the job for good; where the job needs it, the job is over."""
    DONE = "done"


class Bond(enum.Enum):
    """What becomes of the job when the other party leaves before its end."""

    NEEDED = "needed"
    """It fails."""
    AWAITED = "awaited"
    """It waits, and goes on from a checkpoint when that party is back."""
    REPLACEABLE = "replaceable"
    """It goes on without that party, which may come back."""


class Row(NamedTuple):
    speaker: Speaker
    word: type[Control]
    attempt: int | None
    """NEGOTIATION, or RUN, which stands for all that follow; None is any."""
    states: tuple[State, ...]
    then: State | None = None
    """The state after it; None where the word changes nothing."""
    bonds: tuple[Bond, ...] = tuple(Bond)
    """Of the other party to the job."""


ASKED, WAITING, AGREED, LIVE, RETURNED, AWAY, GONE, DONE = State
EVERY = (ASKED, WAITING, AGREED, LIVE, RETURNED, AWAY)
REPLACEABLE, AWAITED, RETURNING = (Bond.REPLACEABLE,), (Bond.AWAITED,), (Bond.AWAITED, Bond.REPLACEABLE)
COORDINATOR, OTHER = Speaker

LEGAL = (
    Row(COORDINATOR, Proposal, NEGOTIATION, EVERY),
    Row(OTHER, Waiting, NEGOTIATION, (ASKED,), WAITING),
    Row(OTHER, Acceptance, NEGOTIATION, (ASKED, WAITING), AGREED),
    Row(OTHER, Refusal, NEGOTIATION, (ASKED, WAITING), GONE),
    Row(COORDINATOR, Waiting, None, EVERY),
    Row(COORDINATOR, Begin, RUN, (AGREED,), LIVE),
    Row(OTHER, Finish, RUN, (LIVE,), RETURNED),
    Row(OTHER, Finish, RUN, (RETURNED,)),
    Row(OTHER, Finish, RUN, (AWAY,), GONE, (Bond.NEEDED, Bond.REPLACEABLE)),
    Row(OTHER, Finish, RUN, (AGREED, AWAY), bonds=AWAITED),  # of a run that is over
    Row(COORDINATOR, Finish, RUN, (RETURNED,), DONE),
    Row(COORDINATOR, Finish, RUN, (LIVE,), LIVE, REPLACEABLE),  # done once its own role has returned
    Row(COORDINATOR, Finish, RUN, (ASKED, WAITING, AGREED, AWAY), GONE, REPLACEABLE),
    Row(OTHER, Abort, None, EVERY, GONE),
    Row(COORDINATOR, Abort, None, EVERY, GONE),
    Row(OTHER, Ask, None, EVERY),
    Row(COORDINATOR, Ask, None, EVERY),
    Row(OTHER, Detach, RUN, (AGREED, LIVE, RETURNED), AWAY, RETURNING),
    Row(OTHER, Detach, RUN, (ASKED, WAITING, AWAY), bonds=RETURNING),
    Row(COORDINATOR, Detach, RUN, (AGREED, LIVE), AWAY, RETURNING),
    Row(COORDINATOR, Detach, RUN, (RETURNED,), GONE, REPLACEABLE),
    Row(COORDINATOR, Detach, RUN, (RETURNED,), AWAY, AWAITED),
    Row(COORDINATOR, Detach, RUN, (ASKED, WAITING, AWAY), bonds=RETURNING),
    Row(OTHER, Join, RUN, EVERY, AGREED, RETURNING),
)


def state_of(peer: Peer, *, returned: bool) -> State:
    """As the table has it; `returned` is of the party that was asked."""
    return RETURNED if returned and peer.state is PeerState.LIVE else State(peer.state.value)


def bond_of(spec: JobSpec, party: PartyId) -> Bond:
    """Of a party that is not the coordinator."""
    if party not in spec.required_parties:
        return Bond.REPLACEABLE
    return Bond.AWAITED if spec.resumes else Bond.NEEDED


def legal(speaker: Speaker, sender: PartyId, word: Control, state: State, bond: Bond) -> Row:
    """The row that allows this word now. Raises RemoteProtocolError."""
    for row in LEGAL:
        fits = row.speaker is speaker and isinstance(word, row.word) and state in row.states
        if fits and bond in row.bonds:
            return row
    whose = "this party" if speaker is COORDINATOR else "it"
    raise RemoteProtocolError(f"{sender} sent {word.kind} out of turn: not while {whose} is {state.value}")


def may_send(spec: JobSpec, header: Header, receiver: PartyId) -> bool:
    """Whether a control word of this kind may come from its sender in this attempt, in whatever state."""
    speaker = COORDINATOR if header.sender == spec.coordinator else OTHER
    bond = bond_of(spec, receiver if speaker is COORDINATOR else header.sender)
    return header.parts == 1 and any(
        row.speaker is speaker
        and row.word.__name__ == header.kind
        and row.attempt in {None, min(header.attempt, RUN)}
        and bond in row.bonds
        for row in LEGAL
    )
