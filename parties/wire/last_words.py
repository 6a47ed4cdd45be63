"""How jobs end, as one peer still has to hear it: each word is said again until the peer has received it.

A question is a last word too: a party whose role has returned says so until its coordinator answers how the job ends.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from parties.wire.envelopes import Envelope

FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.05, 5.0
WORD_DAYS = 7
"""For so long a word is said to a peer that does not answer."""
MOST_WORDS = 256
"""Words that wait for one peer's receipt; the oldest beyond are said only when it asks."""


@dataclass
class Word:
    envelope: Envelope
    since: float
    """Unix seconds, so that its age is known after a restart."""
    until_answered: bool
    due: float = 0.0
    said_while_closing: bool = False

    @property
    def job(self) -> str:
        return self.envelope.header.job


class LastWords:
    """One for each job. Used under its outbox's lock; times are those of the outbox's clock."""

    def __init__(self) -> None:
        self._words: dict[str, Word] = {}
        self._delay = FIRST_DELAY_SECONDS

    def owe(self, envelope: Envelope, since: float, *, until_answered: bool) -> None:
        """Takes the place of what was to be said of this job before."""
        self._words[envelope.header.job] = Word(envelope, since, until_answered)
        for job in [job for job, word in self._words.items() if not word.until_answered][:-MOST_WORDS]:
            del self._words[job]

    def replace(self, envelope: Envelope) -> None:
        """The same word in another envelope; nothing where it was received meanwhile."""
        if (word := self._words.get(envelope.header.job)) is not None:
            word.envelope, word.due = envelope, 0.0

    def remind(self, job: str, make: Callable[[], Envelope], since: float) -> None:
        """`make` is called where nothing is owed."""
        if job not in self._words:
            self._words[job] = Word(make(), since, until_answered=False)
        self._words[job].due = 0.0

    def settle(self, job: str) -> None:
        self._words.pop(job, None)

    def due(self, now: float, busy: Collection[str], *, closing: bool) -> Word | None:
        """The next to be said: after all else that its job has to say, and when the server closes once more only."""
        for word in self._sayable(busy, closing=closing):
            if word.due <= now or closing:
                word.said_while_closing = closing
                return word
        return None

    def next_at(self, busy: Collection[str]) -> list[float]:
        return [word.due for word in self._sayable(busy, closing=False)]

    def received(self, word: Word, again_at: float, *, answered: bool) -> bool:
        """Whether that settles it."""
        self._delay, word.due = FIRST_DELAY_SECONDS, again_at
        if self._words.get(word.job) is not word or (word.until_answered and not answered):
            return False
        del self._words[word.job]
        return True

    def put_off(self, now: float) -> None:
        """The peer is out of reach, for every word alike."""
        for word in self._words.values():
            word.due = max(word.due, now + self._delay)
        self._delay = min(2 * self._delay, LONGEST_DELAY_SECONDS)

    def drop_old(self) -> list[Word]:
        old = [word for word in self._words.values() if time.time() - word.since > WORD_DAYS * 86_400]
        for word in old:
            del self._words[word.job]
        return old

    def _sayable(self, busy: Collection[str], *, closing: bool) -> list[Word]:
        return [
            word for word in self._words.values() if word.job not in busy and not (closing and word.said_while_closing)
        ]
