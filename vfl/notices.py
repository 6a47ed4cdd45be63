"""What a party tells its own operator beside results and errors: what was guessed, what looks wrong, what was done.

Codes stand in docs/notices.md. A notice about a party's own table never goes to a peer.
"""

from typing import Literal

import msgspec


class Notice(msgspec.Struct, frozen=True):
    kind: Literal["guess", "warning", "note"]
    """A guess was made for want of a setting; a warning may mean a poor result; a note says what was done."""
    code: str
    text: str
    """A sentence without its full stop."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"
