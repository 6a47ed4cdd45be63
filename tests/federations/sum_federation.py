"""Secure sums for tests: an aggregator and clients in one thread, with clients that vanish or change what they send."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crypto.masking import modulo
from vfl.flow import Flow, Send, Together, receive, run_together, send
from vfl.message import Message
from vfl.messages import Published, SumTask
from vfl.protocols.secure_sum import contribute, sum_of
from vfl.secure_sum.aggregator import Collection
from vfl.secure_sum.client import Member
from vfl.secure_sum.terms import SumLog, SumResult, SumTerms, majority

AGGREGATOR = "hub"
SECONDS = 60.0
Vector = NDArray[np.uint64]
Change = Callable[[Message], Message]


def names(clients: int) -> tuple[str, ...]:
    return tuple(f"c{number}" for number in range(clients))


def terms(clients: int = 5, words: int = 50, word_bits: int = 16, threshold: int = 0) -> SumTerms:
    job = hashlib.sha256(b"specification").digest()
    return SumTerms(job, 3, "updates", names(clients), words, word_bits, threshold or majority(clients))


def vectors(agreed: SumTerms, seed: int = 0) -> dict[str, Vector]:
    """Words over the whole range, so that sums wrap."""
    generator = np.random.default_rng(seed)
    return {
        client: modulo(generator.integers(0, 2**64 - 1, agreed.words, np.uint64, endpoint=True), agreed.word_bits)
        for client in agreed.roster
    }


def plain_sum(agreed: SumTerms, given: Mapping[str, Vector], contributors: Sequence[str]) -> Vector:
    """In Python's integers, as the reference."""
    total = sum(given[client].astype(object) for client in contributors) % 2**agreed.word_bits
    return np.asarray(total, dtype=np.uint64)


def client(agreed: SumTerms, me: str, words: Vector, sums: int = 1) -> Flow[Message | None]:
    """Gives the same words to so many sums."""
    over: Message | None = None
    for _ in range(sums):
        task = over if isinstance(over, SumTask) else (yield from receive(SumTask, AGGREGATOR))
        over = yield from contribute(agreed, task, words, me, AGGREGATOR)
    return over


def aggregator(agreed: SumTerms, number: int = 1, seen: SumLog | None = None) -> Flow[SumResult]:
    """Takes one sum and then ends the job, for those that were left out as well."""
    result = yield from sum_of(agreed, number, agreed.roster, SECONDS, seen)
    for each in agreed.roster:
        yield from send(each, Published(agreed.round, b"", b""))
    return result


def vanishing(flow: Flow[Any], after: int) -> Flow[Any]:
    """The same role, gone for ever after so many messages."""
    return changing(flow, lambda message: message, after)


def changing(flow: Flow[Any], change: Change, after: int = 1 << 30) -> Flow[Any]:
    """The same role with every message it sends changed."""
    sent, answer = 0, None
    while sent < after:
        try:
            effect = flow.send(answer)
        except StopIteration as stop:
            return stop.value
        if isinstance(effect, Send):
            effect, sent = Send(effect.to, change(effect.message)), sent + 1
        answer = yield effect
    return None


def run(
    agreed: SumTerms,
    given: Mapping[str, Vector],
    *,
    vanish: Mapping[str, int] | None = None,
    change: Mapping[str, Change] | None = None,
    seen: SumLog | None = None,
    number: int = 1,
) -> Together[Any]:
    """One sum. `vanish` says after how many of its four messages a client goes, `change` how it changes them."""
    roles: dict[str, Flow[Any]] = {AGGREGATOR: aggregator(agreed, number, seen)}
    for me in agreed.roster:
        flow = client(agreed, me, given[me])
        roles[me] = changing(flow, (change or {}).get(me, lambda message: message), (vanish or {}).get(me, 1 << 30))
    return run_together(roles)


class Group:
    """All members of one sum, driven by hand: an aggregator that may ask anything of any of them."""

    def __init__(self, agreed: SumTerms, given: Mapping[str, Vector], number: int = 1) -> None:
        self.agreed, self.given = agreed, given
        task = SumTask(number, agreed.round, agreed.purpose)
        self.members = {me: Member(agreed, task, me, AGGREGATOR) for me in agreed.roster}
        self.side = Collection(agreed, number, SumLog())
        for me, member in self.members.items():
            self.side.take_key(me, member.key())
        self.keys = self.side.keys()

    def deal(self) -> "Group":
        self.dealt = {me: member.deal(self.keys) for me, member in self.members.items()}
        for me, sent in self.dealt.items():
            self.side.take_boxes(me, sent)
        return self

    def mask(self) -> "Group":
        self.masked = {me: member.mask(self.side.boxes_for(me), self.given[me]) for me, member in self.members.items()}
        return self


def group(clients: int = 5) -> Group:
    agreed = terms(clients)
    return Group(agreed, vectors(agreed))
