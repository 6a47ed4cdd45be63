"""The pattern at the centre: a protocol role is a pure generator that yields effects, and something else performs them.

A role yields Send, Receive or Report and nothing else. `run_together` performs them in memory, for tests, notebooks and
benchmarks; `parties.runner` performs them between processes. Neither knows any protocol. Helpers are used with
`yield from`, which is what gives a received message its type.
"""

from collections import deque
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from vfl.errors import DeadlockError, RemoteProtocolError
from vfl.job import PartyId
from vfl.messages import Message, decode, encode
from vfl.reports import Fact

M = TypeVar("M", bound=Message)
R = TypeVar("R")


class Send(NamedTuple):
    """Hand a message to one peer."""

    to: PartyId
    message: Message


class Receive(NamedTuple):
    """Wait for the next message of one peer; the answer is a Delivery."""

    frm: PartyId


class Report(NamedTuple):
    """Tell one's own party a fact; it never leaves."""

    fact: Fact


class Delivery(NamedTuple):
    message: Message


Flow: TypeAlias = Generator[Send | Receive | Report, Delivery | None, R]


def send(to: PartyId, message: Message) -> Flow[None]:
    yield Send(to, message)


def receive(kind: type[M], frm: PartyId, step: int | None = None) -> Flow[M]:
    """The peer's next message, which must be of this kind and, if a step is given, of this step.

    Raises RemoteProtocolError, naming the peer, for anything else.
    """
    delivery = yield Receive(frm)
    message = delivery.message if delivery is not None else None
    if not isinstance(message, kind):
        raise RemoteProtocolError(f"{frm} sent {type(message).__name__} where {kind.__name__} was due")
    at = getattr(message, "step", None)
    if step is not None and at != step:
        raise RemoteProtocolError(f"{frm} sent {kind.__name__} of step {at} where step {step} was due")
    return message


def gather(kind: type[M], frm: Iterable[PartyId], step: int | None = None) -> Flow[dict[PartyId, M]]:
    """One message of this kind from each peer, in the order of `frm`."""
    messages: dict[PartyId, M] = {}
    for peer in frm:
        messages[peer] = yield from receive(kind, peer, step)
    return messages


def report(fact: Fact) -> Flow[None]:
    yield Report(fact)


class Sent(NamedTuple):
    """One line of a transcript: what travelled, as encoded bytes."""

    sender: PartyId
    receiver: PartyId
    kind: str
    payload_bytes: int
    message: Message


@dataclass
class Together(Generic[R]):
    """What running roles in memory leaves behind."""

    results: dict[PartyId, R] = field(default_factory=dict)
    transcript: list[Sent] = field(default_factory=list)
    reports: dict[PartyId, list[Fact]] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(f"{s.sender} -> {s.receiver}: {s.kind} ({s.payload_bytes} bytes)" for s in self.transcript)


def run_together(roles: Mapping[PartyId, Flow[R]]) -> Together[R]:
    """Run roles in one thread, each as far as it can go in turn, until all have returned.

    Messages are encoded and decoded on the way, as between processes. Raises DeadlockError when every unfinished role
    waits; an exception of a role passes through unchanged.
    """
    together: Together[R] = Together(reports={party: [] for party in roles})
    queues: dict[tuple[PartyId, PartyId], deque[Message]] = {}
    waiting: dict[PartyId, PartyId | None] = dict.fromkeys(roles)

    def advance(party: PartyId) -> bool:
        """Run one role until it waits or returns; False if it could not move."""
        frm, answer = waiting[party], None
        if frm is not None:
            if not queues.get((frm, party)):
                return False
            answer = Delivery(queues[frm, party].popleft())
        try:
            waiting[party] = _run(party, roles[party], answer, queues, together)
        except StopIteration as stop:
            together.results[party] = stop.value
            del waiting[party]
        return True

    while waiting:
        moved = [advance(party) for party in list(waiting)]
        if not any(moved):
            lines = ", ".join(f"{party} waits for {frm}" for party, frm in waiting.items())
            raise DeadlockError(f"no role can go on: {lines}")
    return together


def _run(
    party: PartyId,
    role: Flow[R],
    answer: Delivery | None,
    queues: dict[tuple[PartyId, PartyId], deque[Message]],
    together: Together[R],
) -> PartyId:
    """Perform a role's effects until it waits; returns for whom."""
    while True:
        effect = role.send(answer)
        answer = None
        match effect:
            case Send(to, message):
                body = encode(message)
                queues.setdefault((party, to), deque()).append(decode(message.kind(), body))
                together.transcript.append(Sent(party, to, message.kind(), len(body), message))
            case Report(fact):
                together.reports[party].append(fact)
            case Receive(frm):
                return frm
