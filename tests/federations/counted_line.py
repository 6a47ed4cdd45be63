"""A line between two real servers that notes every envelope which leaves one of them and every one the other takes."""

import threading
from collections import Counter
from typing import NamedTuple

import httpx
import msgspec
from faulty_line import Line

from parties.wire.envelopes import Envelope, read_post
from parties.wire.receipts import Reply

LOST_EVERY = 7
"""Of so many answers one is lost, so that the same bytes come again."""


class Seen(NamedTuple):
    """An envelope on the wire; the same bytes are the same envelope however often they travel."""

    job: str
    sender: str
    receiver: str
    kind: str
    digest: bytes


class CountedLine(Line):
    def __init__(self, ports: dict[str, int]) -> None:
        self.is_dark = False
        """Whether whatever leaves is lost."""
        self.posts = 0
        self._left: set[Seen] = set()
        self._entered: set[Seen] = set()
        self._noting = threading.Lock()
        super().__init__(ports)

    def carry(self, receiver: str, post: bytes) -> httpx.Response | None:
        envelopes = list(read_post(post, receiver))
        with self._noting:
            self.posts += bool(envelopes)
            is_lost = bool(envelopes) and self.posts % LOST_EVERY == 0
            self._left |= {_seen(envelope) for envelope in envelopes}
        answer = None if self.is_dark else self._forward(receiver, post)
        if answer is None:
            return None
        receipts = msgspec.json.decode(answer.content, type=Reply).receipts
        taken = {(receipt.job, receipt.attempt): receipt.next for receipt in receipts}
        with self._noting:
            self._entered |= {
                _seen(envelope)
                for envelope in envelopes
                if envelope.header.sequence < taken.get((envelope.header.job, envelope.header.attempt), 0)
            }
        return None if is_lost else answer

    def seen(self, job: str, party: str) -> dict[str, int]:
        """How many envelopes of each kind left a party, and how many entered it."""
        with self._noting:
            counts = Counter(f"sent {one.kind}" for one in self._left if (one.job, one.sender) == (job, party))
            counts += Counter(
                f"received {one.kind}" for one in self._entered if (one.job, one.receiver) == (job, party)
            )
            return dict(counts)


def _seen(envelope: Envelope) -> Seen:
    header = envelope.header
    return Seen(header.job, header.sender, header.receiver, header.kind, envelope.digest)
