"""Whether a party could take part in a job now: what a proposal would come to, found out without proposing it."""

from typing import Literal

import msgspec

from parties.disclosure import redacted_for_peer
from parties.errors import Failure


class Readiness(msgspec.Struct, frozen=True):
    failure: Failure | None
    """Why the party would refuse the job."""
    approval: Literal["", "submit", "grant", "operator"] = ""
    """Who approves it there: whoever proposes it, a grant, or the operator by hand."""
    missing: str = ""
    """Why no grant covers it."""

    def redacted_for_peer(self) -> "Readiness":
        """As much as a peer learns by proposing the job."""
        failure = None if self.failure is None else redacted_for_peer(self.failure)
        return Readiness(failure, self.approval)
