"""The pattern at the centre: a protocol role is a pure generator that yields effects, and something else performs them.

A role yields Send, Receive, Report or NextRequest and nothing else. `run_together` performs them in memory, for tests,
notebooks and benchmarks; `parties.worker.runner` performs them between processes. Neither knows any protocol. Helpers
are used with `yield from`, which is what gives a received message its type.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from vfl.errors import DeadlockError, RemoteProtocolError
from vfl.message import Message, decode, encode
from vfl.reports import Fact, without_state
from vfl.requests import ScoreRequest
from vfl.spec.sections import PartyId

M = TypeVar("M", bound=Message)
R = TypeVar("R")


class Send(NamedTuple):
    """Hand a message to one peer."""

    to: PartyId
    message: Message


class Receive(NamedTuple):
    """Wait for the next message of one peer; the answer is a Delivery."""

    frm: PartyId
    seconds: float | None = None
    """How long at most; None waits until the message comes or the job ends."""


class Report(NamedTuple):
    """Tell one's own party a fact; it never leaves."""

    fact: Fact


class NextRequest(NamedTuple):
    """Wait for what one's own operator asks next; the answer is a Delivery without a message."""


class Delivery(NamedTuple):
    """The answer to Receive, to NextRequest, and to Send, where only the size is of interest."""

    message: Message | None
    """None when the time was up, or when a peer the job can do without has left."""
    payload_bytes: int = 0
    waited_seconds: float = 0.0
    unreadable: str = ""
    """Why the bytes that came are no message; only where `seconds` was given, else that ends the job."""
    request: ScoreRequest | None = None
    """None in the answer to NextRequest when no more will be asked."""


Flow: TypeAlias = Generator[Send | Receive | Report | NextRequest, Delivery | None, R]


def send(to: PartyId, message: Message) -> Flow[int]:
    """Returns the payload's bytes."""
    answer = yield Send(to, message)
    return answer.payload_bytes if answer is not None else 0


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


def receive_any(kinds: tuple[type[M], ...], frm: PartyId) -> Flow[M]:
    """The peer's next message, which must be of one of these kinds. Raises RemoteProtocolError for anything else."""
    delivery = yield Receive(frm)
    message = delivery.message if delivery is not None else None
    if isinstance(message, kinds):
        return message
    due = " or ".join(kind.__name__ for kind in kinds)
    raise RemoteProtocolError(f"{frm} sent {type(message).__name__} where {due} was due")


def await_next(frm: PartyId, seconds: float) -> Flow[Delivery]:
    """The peer's next message of any kind, or what kept it from coming, within so many seconds."""
    delivery = yield Receive(frm, seconds)
    return delivery if delivery is not None else Delivery(None)


def gather(kind: type[M], frm: Iterable[PartyId], step: int | None = None) -> Flow[dict[PartyId, M]]:
    """One message of this kind from each peer, in the order of `frm`."""
    messages: dict[PartyId, M] = {}
    for peer in frm:
        messages[peer] = yield from receive(kind, peer, step)
    return messages


def report(fact: Fact) -> Flow[None]:
    yield Report(fact)


def next_request() -> Flow[ScoreRequest | None]:
    """What one's own operator asks next, waited for; None when no more will be asked."""
    delivery = yield NextRequest()
    return None if delivery is None else delivery.request


class Sent(NamedTuple):
    """One line of a transcript: what travelled, as encoded bytes."""

    sender: PartyId
    receiver: PartyId
    kind: str
    payload_bytes: int
    message: Message | None
    """None where a transcript keeps sizes only."""


@dataclass
class Together(Generic[R]):
    """What running roles in memory leaves behind."""

    results: dict[PartyId, R] = field(default_factory=dict)
    transcript: list[Sent] = field(default_factory=list)
    reports: dict[PartyId, list[Fact]] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(f"{s.sender} -> {s.receiver}: {s.kind} ({s.payload_bytes} bytes)" for s in self.transcript)


_Queues: TypeAlias = dict[tuple[PartyId, PartyId], deque[Delivery]]
"""What has arrived and is not read yet, by sender and receiver."""


def run_together(
    roles: Mapping[PartyId, Flow[R]],
    *,
    keep_messages: bool = True,
    requests: Mapping[PartyId, Iterable[ScoreRequest]] | None = None,
) -> Together[R]:
    """Run roles in one thread, each as far as it can go in turn, until all have returned.

    Messages are encoded and decoded on the way, as between processes. Time stands still while a role can go on; when
    none can, it passes to the end of the shortest wait that a role gave. Raises DeadlockError when every unfinished
    role waits without one; an exception of a role passes through unchanged. With `keep_messages` false a transcript
    keeps kinds and sizes and reports no states, so that a message is freed once it is read. `requests` are what the
    operators ask, each as soon as its role waits for it.
    """
    asked = {party: iter((requests or {}).get(party, ())) for party in roles}
    together: Together[R] = Together(reports={party: [] for party in roles})
    queues: _Queues = {}
    waiting: dict[PartyId, Receive | None] = dict.fromkeys(roles)
    since: dict[PartyId, float] = dict.fromkeys(roles, 0.0)
    now = 0.0

    def advance(party: PartyId, *, time_is_up: bool = False) -> bool:
        """Run one role until it waits or returns; False if it could not move."""
        awaited, answer = waiting[party], None
        if awaited is not None:
            queue = queues.get((awaited.frm, party))
            if queue:
                answer = queue.popleft()._replace(waited_seconds=now - since[party])
            elif time_is_up:
                answer = Delivery(None, waited_seconds=now - since[party])
            else:
                return False
        try:
            waiting[party] = _run(
                party, roles[party], answer, queues, together, asked[party], keep_messages=keep_messages
            )
            since[party] = now
        except StopIteration as stop:
            together.results[party] = stop.value
            del waiting[party]
        return True

    while waiting:
        moved = [advance(party) for party in list(waiting)]
        if any(moved):
            continue
        ends = {p: since[p] + at.seconds for p, at in waiting.items() if at is not None and at.seconds is not None}
        if not ends:
            lines = ", ".join(f"{party} waits for {at.frm}" for party, at in waiting.items() if at is not None)
            raise DeadlockError(f"no role can go on: {lines}")
        first = min(ends, key=ends.__getitem__)
        now = ends[first]
        advance(first, time_is_up=True)
    return together


def _run(
    party: PartyId,
    role: Flow[R],
    answer: Delivery | None,
    queues: _Queues,
    together: Together[R],
    requests: Iterator[ScoreRequest],
    *,
    keep_messages: bool,
) -> Receive:
    """Perform a role's effects until it waits; returns for what."""
    while True:
        effect = role.send(answer)
        answer = None
        match effect:
            case Send(to, message):
                body = encode(message)
                arrived = decode(party, message.kind(), body)
                queues.setdefault((party, to), deque()).append(Delivery(arrived, len(body)))
                recorded = arrived if keep_messages else None
                together.transcript.append(Sent(party, to, message.kind(), len(body), recorded))
                answer = Delivery(None, len(body))
            case Report(fact):
                together.reports[party].append(fact if keep_messages else without_state(fact))
            case NextRequest():
                answer = Delivery(None, request=next(requests, None))
            case Receive():
                return effect
