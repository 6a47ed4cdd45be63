"""What a coordinator or a participant may ask its supervisor to do: frozen values, as Send, Receive and Report are
between a protocol role and its runner (`vfl/flow.py`).

The supervisor performs them in the order of the list, under its lock. The actions `Done`, `End`, `RequestEnd` and
`Exclude` store what they say before they say it.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from parties.errors import DeadlinePassed, Failure
from parties.jobs.standing import Standing
from parties.trust.contract import Signed
from parties.wire.control import Abort, Begin, CheckpointName, Control
from parties.wire.peer_state import PeerState
from parties.worker.frames import Left, NoMoreRequests, Returned
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

LastWords: TypeAlias = Mapping[PartyId, Control | None]
"""By peer, the last word it is owed; None where it need not hear anything any more."""


class Timer(enum.Enum):
    """What a job waits for with a limit of its own."""

    DEADLINE = "the job may still end in its time"
    GATHERING = "the others may still agree"
    BEGINNING = "the coordinator may still begin"
    RETURNING = "this party pauses before it comes back"
    FINISHING = "the others' roles may still return"
    SESSION = "the coordinator's operator may still ask"


# To a peer


@dataclass(frozen=True)
class Send:
    """A numbered word about the job, in a newer attempt if one is named."""

    peer: PartyId
    word: Control
    attempt: int | None = None


@dataclass(frozen=True)
class SendUntilAcknowledged:
    """The same, and again while the peer is out of reach."""

    peer: PartyId
    word: Control
    attempt: int | None = None


@dataclass(frozen=True)
class Retransmit:
    """Say once more what was to be sent until it is acknowledged."""

    peer: PartyId


@dataclass(frozen=True)
class Watch:
    """The peer must stay within reach and know of the job."""

    peer: PartyId


# Where a peer stands


@dataclass(frozen=True)
class Agree:
    """A party agrees to the job; a share of the joint seed counts as it was given first, and so does a signature."""

    peer: PartyId
    share: bytes = b""
    signed: Signed | None = None
    checkpoints: tuple[CheckpointName, ...] = ()
    """Of a party that joins again: from these its role can go on."""


@dataclass(frozen=True)
class AwaitOperator:
    """That party's operator has yet to approve the job: this one's, where the peer is the coordinator."""

    peer: PartyId


@dataclass(frozen=True)
class BeginPeer:
    """Its run begins in the attempt that was agreed, with this word before any message of the role."""

    peer: PartyId
    word: Begin | None = None


@dataclass(frozen=True)
class MarkFinished:
    """It has said Finish, or is not waited for any longer."""

    peer: PartyId


@dataclass(frozen=True)
class EndAttempt:
    """Nothing more is sent to it in this attempt, and what still lies in the outbox is dropped."""

    peer: PartyId
    state: PeerState


# This party


@dataclass(frozen=True)
class Record:
    """An event for the operator; a new attempt is stored with it, before anything is sent in that attempt."""

    kind: str
    text: str
    data: Mapping[str, str] = field(default_factory=dict)
    attempt: int | None = None
    waits_for: str | None = None
    """What the job waits for from now on; None where that stays as it is."""

    @property
    def changes(self) -> dict[str, Any]:
        """Columns of the job that change with the event."""
        columns = {"attempt": self.attempt, "waits_for": self.waits_for}
        return {name: value for name, value in columns.items() if value is not None}


@dataclass(frozen=True)
class StartTimer:
    timer: Timer
    seconds: float


@dataclass(frozen=True)
class EndGathering:
    """Whoever has not agreed by now is not waited for."""


@dataclass(frozen=True)
class AwaitOthers:
    """An operator elsewhere has yet to approve the job: the coordinator need not begin it in the usual time."""


@dataclass(frozen=True)
class BeginRun:
    """Enough have agreed: store the contract, prepare the worker, then begin."""

    shares: Mapping[PartyId, bytes]
    signed: Mapping[PartyId, Signed]
    step: int = 0
    """After which the role goes on, from a checkpoint that this party holds; 0 begins anew."""


@dataclass(frozen=True)
class TellWorker:
    news: Left | Returned | NoMoreRequests


@dataclass(frozen=True)
class LeaveRun:
    """This party is away for a while: its worker ends, and another may begin later."""

    failure: Failure
    attempt: int


@dataclass(frozen=True)
class LoadTables:
    """Read this party's tables anew, then ask to be taken back."""


# How it ends


@dataclass(frozen=True)
class Exclude:
    """The job goes on without this peer, which has to hear it."""

    peer: PartyId
    word: Abort


@dataclass(frozen=True)
class RequestEnd:
    """This party has said Finish: the coordinator is asked to end the job, and answers how it ended."""

    text: str
    failure: Failure
    words: LastWords


@dataclass(frozen=True)
class End:
    """The job has failed or was cancelled."""

    failure: Failure
    words: LastWords


@dataclass(frozen=True)
class Done:
    words: LastWords


Action: TypeAlias = (
    Send
    | SendUntilAcknowledged
    | Retransmit
    | Watch
    | Agree
    | AwaitOperator
    | BeginPeer
    | MarkFinished
    | EndAttempt
    | Record
    | StartTimer
    | EndGathering
    | AwaitOthers
    | BeginRun
    | TellWorker
    | LeaveRun
    | LoadTables
    | Exclude
    | RequestEnd
    | End
    | Done
)
Actions: TypeAlias = list[Action]


def end_for_all(standing: Standing, failure: Failure, knowing: PartyId | None) -> Actions:
    """Every peer that is not out of the job yet hears that it has ended, but for the one that told us."""
    here = [name for name, peer in standing.peers.items() if peer.state is not PeerState.GONE]
    leave = [EndAttempt(peer, PeerState.GONE) for peer in here]
    return [*leave, End(failure, {peer: None if peer == knowing else Abort.of(failure) for peer in here})]


def overdue(spec: JobSpec, me: PartyId) -> Failure:
    text = f"the job did not end within its {spec.job.deadline_seconds} s at {me}"
    return Failure.of(DeadlinePassed(text), me)
