"""How one job stands at this party at one moment: plain data, from which coordinator and participant decide.

No lock, no clock, no connection: the supervisor makes a new one for each event.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from parties.storage.checkpoints import Names
from parties.trust.contract import Signed
from parties.wire.control import CheckpointName, Control
from parties.wire.peer_state import Peer, PeerState
from vfl.spec.sections import PartyId

C = TypeVar("C", bound=Control)


class Words(NamedTuple):
    """About a job before its run, between this party and one peer, in order."""

    said: tuple[Control, ...] = ()
    heard: tuple[Control, ...] = ()

    def first_said(self, kind: type[C]) -> C | None:
        return next((word for word in self.said if isinstance(word, kind)), None)

    def first_heard(self, kind: type[C]) -> C | None:
        return next((word for word in self.heard if isinstance(word, kind)), None)


@dataclass(frozen=True)
class Standing:
    peers: Mapping[PartyId, Peer]
    returned: bool = False
    """Whether the role of this party has returned and its result is stored."""
    shares: Mapping[PartyId, bytes] = field(default_factory=dict)
    """Of the joint seed, by the parties that have ever agreed; at the coordinator only."""
    signed: Mapping[PartyId, Signed] = field(default_factory=dict)
    """Signatures under the contract, by the same parties."""
    begun: Mapping[PartyId, bytes] = field(default_factory=dict)
    """The shares the run began with; empty before."""
    gathering_is_over: bool = False
    """Whether the time in which the others could agree has passed."""
    others_wait: bool = False
    """Whether the coordinator has said that another party's operator must approve the job first."""
    checkpoints: Mapping[int, Names] = field(default_factory=dict)
    """By step, those that this party holds."""
    offered: Mapping[PartyId, tuple[CheckpointName, ...]] = field(default_factory=dict)
    """By the parties that have joined again, those that they hold; at the coordinator only."""
    runs: bool = False
    """Whether this party's role is at work, or its worker is being prepared."""
    step: int = 0
    """After which this party's run began, or the one before it."""
    fruitless: int = 0
    """How many runs in turn have begun after that step."""
    departures: int = 0
    """How often this party has left the job and meant to come back."""
    paused: frozenset[PartyId] = frozenset()
    """Whose operators have paused the job, as far as this party has heard."""

    def agreed(
        self, peer: PartyId, share: bytes, signed: Signed | None, checkpoints: tuple[CheckpointName, ...] = ()
    ) -> "Standing":
        """The same once a party has agreed, for the first time or again."""
        signatures = self.signed if signed is None else {peer: signed, **self.signed}
        shares, offered = {peer: share, **self.shares}, {**self.offered, peer: checkpoints}
        return replace(self, shares=shares, signed=signatures, offered=offered)

    def beginning_after(self, step: int) -> "Standing":
        """The same with another run on its way."""
        fruitless = 1 if step > self.step else self.fruitless + 1
        return replace(self, runs=True, step=step, fruitless=fruitless)

    def pausing(self, party: PartyId) -> "Standing":
        """The same once that party's operator has paused the job."""
        return replace(self, paused=self.paused | {party})

    def resuming(self, party: PartyId) -> "Standing":
        return replace(self, paused=self.paused - {party})

    def left(self, *, is_paused: bool) -> "Standing":
        """The same once this party has left its run; one that a pause ends is not fruitless."""
        fruitless = max(0, self.fruitless - 1) if is_paused and self.runs else self.fruitless
        return replace(self, departures=self.departures + 1, runs=False, fruitless=fruitless)

    def common_checkpoint(self) -> int:
        """The newest that this party and all its peers hold; 0 where there is none."""
        common = (
            step
            for step, names in self.checkpoints.items()
            if all(names.get(peer) in self.offered.get(peer, ()) for peer in self.peers)
        )
        return max(common, default=0)

    @property
    def newest(self) -> int:
        """The highest attempt of any link."""
        return max(peer.newest for peer in self.peers.values())

    def in_state(self, *states: PeerState) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.state in states]

    def having(self, peer: PartyId, **changes: Any) -> "Standing":
        """The same with another view of one peer."""
        return replace(self, peers={**self.peers, peer: replace(self.peers[peer], **changes)})
