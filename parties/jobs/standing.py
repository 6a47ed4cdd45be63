"""How one job stands at this party at one moment: plain data, from which coordinator and participant decide.

No lock, no clock, no connection: the supervisor makes a new one for each event.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

from parties.trust.contract import Signed
from parties.wire.control import Control
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
    departures: int = 0
    """How often this party has left the job and meant to come back."""

    def agreed(self, peer: PartyId, share: bytes, signed: Signed | None) -> "Standing":
        """The same once a party has agreed, for the first time or again."""
        signatures = self.signed if signed is None else {peer: signed, **self.signed}
        return replace(self, shares={peer: share, **self.shares}, signed=signatures)

    @property
    def newest(self) -> int:
        """The highest attempt of any link."""
        return max(peer.newest for peer in self.peers.values())

    def in_state(self, *states: PeerState) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.state in states]

    def having(self, peer: PartyId, **changes: Any) -> "Standing":
        """The same with another view of one peer."""
        return replace(self, peers={**self.peers, peer: replace(self.peers[peer], **changes)})
