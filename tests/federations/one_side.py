"""One side of a job without a server: a test makes the standing, lets the side hear a word, and reads the actions."""

import msgspec
from identities import identity_of, signed_by
from played_peers import spec as rounds_spec

from parties.errors import Failure
from parties.jobs.actions import Actions, Agree, AwaitOperator, BeginPeer, BeginRun, Done, EndAttempt, MarkFinished
from parties.jobs.coordinator import Coordinator
from parties.jobs.participant import Participant
from parties.jobs.standing import Standing
from parties.jobs.state_table import COORDINATOR, OTHER, Bond, Speaker, State, state_of
from parties.trust.contract import Signatures, Signed
from parties.wire.control import (
    CONTROLS,
    NEGOTIATION,
    Abort,
    Acceptance,
    Agreement,
    Ask,
    Begin,
    Control,
    Detach,
    Finish,
    Join,
    Proposal,
    Refusal,
    Waiting,
    commitment_to,
)
from parties.wire.peer_state import Peer, PeerState
from vfl.kinds import read_spec_as
from vfl.spec.encryption import PaillierEncryption
from vfl.spec.job import JobSpec
from vfl.spec.training import TrainingSpec

TRAINING = read_spec_as(
    TrainingSpec,
    """
job = {name = "test", task = "binary"}
roster = {label = "bank", features = ["telco"]}
train = {epochs = 1, batch_rows = 64}
[data]
bank = {dataset = "table", label = "y"}
telco = {dataset = "other", columns = ["a"]}
""",
)
NEEDING = msgspec.structs.replace(TRAINING, encryption=PaillierEncryption())
SPECS = {Bond.REPLACEABLE: rounds_spec(), Bond.AWAITED: TRAINING, Bond.NEEDED: NEEDING}
COORDINATOR_SHARE, OWN_SHARE = b"h" * 32, b"o" * 32
JOB = "job"
STATES = [state for state in State if state not in {State.GONE, State.DONE}]
ATTEMPT = 5
FAILURE = Failure("worker_vanished", "its worker died", side="ada")


def other_of(spec: JobSpec) -> str:
    """The other party whose state the table is about."""
    return spec.peers_of(spec.coordinator)[0]


def signed(name: str, spec: JobSpec) -> Signed:
    return signed_by(name, JOB, spec.digest())


def agreement(name: str, spec: JobSpec) -> Agreement:
    return Agreement(OWN_SHARE, commitment_to(COORDINATOR_SHARE), b"", signed(name, spec))


def signatures(spec: JobSpec) -> Signatures:
    return Signatures(JOB, spec, lambda name: (identity_of(name).key,))


def coordinator(spec: JobSpec) -> Coordinator:
    return Coordinator(spec, spec.coordinator, agreement(spec.coordinator, spec), signatures(spec))


def participant(spec: JobSpec, name: str) -> Participant:
    return Participant(spec, name, agreement(name, spec), signatures(spec))


def peer(name: str, state: State) -> Peer:
    attempt = NEGOTIATION if state in {State.ASKED, State.WAITING, State.AGREED} else ATTEMPT - 1
    known = PeerState.LIVE if state is State.RETURNED else PeerState(state.value)
    return Peer(name, known, attempt=attempt, begun=attempt, newest=attempt)


def word(kind: str, spec: JobSpec) -> Control:
    shares = dict.fromkeys(spec.parties, OWN_SHARE) | {spec.coordinator: COORDINATOR_SHARE}
    words = (
        Proposal(spec.encoded(), commitment_to(COORDINATOR_SHARE), signed(spec.coordinator, spec)),
        Waiting(),
        Acceptance(OWN_SHARE, signed(other_of(spec), spec)),
        Refusal("policy_refused", "no", ""),
        Begin(shares, {party: signed(party, spec) for party in spec.parties}),
        Finish(),
        Abort("cancelled", "never mind"),
        Ask(),
        Detach("peer_timeout", "it was away"),
        Join(OWN_SHARE, signed(other_of(spec), spec)),
    )
    assert {type(one).__name__ for one in words} == set(CONTROLS)
    return next(one for one in words if one.kind == kind)


class Heard:
    """One side of a job in which the other party is in some state, and hears a word."""

    def __init__(self, speaker: Speaker, state: State, bond: Bond) -> None:
        spec: JobSpec = SPECS[bond]
        self.spec, self.speaker, self.other = spec, speaker, other_of(spec)
        self.side: Coordinator | Participant
        if speaker is OTHER:
            self.side = coordinator(spec)
            peers = {name: peer(name, State.ASKED) for name in spec.peers_of(spec.coordinator)}
            self.standing = Standing(peers | {self.other: peer(self.other, state)})
            if state is State.RETURNED:
                self.standing = self.standing.having(self.other, finished=True)
            self.sender = self.other
        else:
            self.side = participant(spec, self.other)
            self.sender = spec.coordinator
            self.standing = Standing({self.sender: peer(self.sender, state)}, returned=state is State.RETURNED)

    def hear(self, kind: str) -> Actions:
        aggregator = self.standing.peers[self.sender]
        attempt = aggregator.next_run if kind == "Begin" else ATTEMPT
        return self.side.hear(self.standing, self.sender, word(kind, self.spec), attempt)

    def state_after(self, actions: Actions) -> State:
        standing, done = self._after(self.standing, actions)
        if not done and self.side.conclude(standing):
            return State.DONE
        seen = standing.peers[self.sender]
        return state_of(seen, returned=seen.finished if self.speaker is OTHER else standing.returned)

    def _after(self, standing: Standing, actions: Actions) -> tuple[Standing, bool]:
        """As the supervisor would leave it."""
        done = False
        for action in actions:
            match action:
                case Agree(name):
                    standing = standing.having(name, state=PeerState.AGREED)
                case AwaitOperator(name):
                    standing = standing.having(name, state=PeerState.WAITING)
                case EndAttempt(name, state):
                    standing = standing.having(name, state=state)
                case MarkFinished(name):
                    standing = standing.having(name, finished=True)
                case BeginPeer(name):
                    standing = standing.having(name, state=PeerState.LIVE, finished=False)
                case BeginRun() if self.speaker is COORDINATOR:  # at once; a coordinator prepares its worker first
                    standing, done = self._after(standing, self.side.begin(standing))
                case Done():
                    done = True
        return standing, done
