"""Where a peer stands in a job, as plain data.

asked -> waiting -> agreed -> live -> away -> agreed -> live ...          gone is for good
"""

import enum
from dataclasses import dataclass

from parties.wire.control import NEGOTIATION, RUN
from vfl.spec.sections import PartyId


class PeerState(enum.Enum):
    ASKED = "asked"
    """It has not answered the proposal; at a party that was asked: it has not answered yet itself."""
    WAITING = "waiting"
    """Nothing refuses the job there, and the operator of that party has not approved it yet."""
    AGREED = "agreed"
    LIVE = "live"
    """Its run has begun, and it is there as far as we know."""
    AWAY = "away"
    """Its run has ended early; it may come back."""
    GONE = "gone"


@dataclass(frozen=True)
class Peer:
    """What a link knows of its peer at one moment."""

    name: PartyId
    state: PeerState = PeerState.ASKED
    finished: bool = False
    """Whether the peer has said Finish in this run."""
    attempt: int = NEGOTIATION
    """The attempt this party speaks in."""
    begun: int = NEGOTIATION
    """The attempt in which its run last began."""
    newest: int = NEGOTIATION
    """The highest attempt the link has seen, in either direction."""

    @property
    def next_run(self) -> int:
        """The attempt in which its run begins next."""
        return max(RUN, self.newest)
