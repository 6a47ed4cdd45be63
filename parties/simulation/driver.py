"""Hundreds of clients on one machine, without a server: the roles of a job, performed in one process or in several.

The aggregator's role runs here. Each client's role runs in this process, or in one of several spawned ones, which get
its tables through their pipe. A message is handed on at once and the answer is awaited where the aggregator waits for
it, so all processes work while it collects. Each role sees the same messages in the same order whatever the number of
processes, and all compute on one thread with the same numeric variables: results are the same bit for bit (rounds.md
R0.5).
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, Self

import msgspec
from threadpoolctl import threadpool_limits

from parties.errors import Failure, WorkerVanished
from parties.simulation.clients import Clients, ClientTurn, delivered, hosted, started, turn_of, written
from parties.worker.child import Child
from parties.worker.frames import OutgoingMessage
from vfl import errors
from vfl.errors import DeadlockError, JobError
from vfl.flow import Delivery, Receive, Report, Send
from vfl.kinds import flow_of
from vfl.message import decode, encode
from vfl.reports import Fact, Outcome, without_state
from vfl.setup import Setup
from vfl.spec.sections import PartyId


class Travelled(NamedTuple):
    """One message, without its body."""

    round: int
    """The newest round that any message has named until then; 0 before the first."""
    sender: PartyId
    receiver: PartyId
    kind: str
    payload_bytes: int


@dataclass
class Simulated:
    """What a simulation leaves behind."""

    results: dict[PartyId, Outcome] = field(default_factory=dict)
    """Of every party; equal states share their memory."""
    reports: dict[PartyId, list[Fact]] = field(default_factory=dict)
    """Without states, which only `watch` sees."""
    traffic: list[Travelled] = field(default_factory=list)


Watch = Callable[[Simulated, PartyId, Fact], None]
"""Told what has come of the simulation so far, and a party's fact with its state."""


def unwatched(_so_far: Simulated, _party: PartyId, _fact: Fact) -> None:
    """What a watcher does that does nothing."""


def simulate(setups: Mapping[PartyId, Setup[Any]], processes: int = 1, watch: Watch = unwatched) -> Simulated:
    """Run a job between its coordinator and its other parties, all on this machine.

    `processes` run the others' roles; with 1 it is this process. An exception of the coordinator's role passes
    through; a named one of another party names it. Raises WorkerVanished where a process dies, DeadlockError where the
    coordinator waits for a party that has nothing to say.
    """
    aggregator = next(iter(setups.values())).spec.coordinator
    others = [setup for party, setup in setups.items() if party != aggregator]
    with one_thread(), ExitStack() as open_hosts:
        hosts = _hosts(others, min(processes, len(others)), open_hosts)
        return _Simulation(setups[aggregator], hosts, watch).run()


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch and the libraries under numpy compute on one thread: they sum in another order on more."""
    from vfl.models.local_training import one_thread as torch_on_one_thread  # noqa: PLC0415 - torch, when it is needed

    with threadpool_limits(limits=1), torch_on_one_thread():
        yield


class Host(Protocol):
    """Where some clients run. Each client answers once to being started, and once to each message, in that order."""

    def deliver(self, client: PartyId, kind: str, body: bytes) -> None: ...

    def answer(self, client: PartyId) -> ClientTurn: ...


class _Simulation:
    """The coordinator's effects, performed."""

    def __init__(self, aggregator: Setup[Any], hosts: Mapping[PartyId, Host], watch: Watch) -> None:
        self._name, self._role, self._hosts, self._watch = aggregator.me, flow_of(aggregator), hosts, watch
        self._owed = dict.fromkeys(hosts, 1)  # each is started
        self._outgoing: dict[PartyId, deque[OutgoingMessage]] = {client: deque() for client in hosts}
        self._states: dict[bytes, bytes] = {}
        self._round = 0
        self._simulated = Simulated(reports={party: [] for party in (aggregator.me, *hosts)})

    def run(self) -> Simulated:
        answer: Delivery | None = None
        try:
            while True:
                effect = self._role.send(answer)
                answer = None
                match effect:
                    case Send(to, message):
                        body = encode(message)
                        self._travelled(self._name, to, message, len(body))
                        self._hosts[to].deliver(to, message.kind(), body)
                        self._owed[to] += 1
                        answer = Delivery(None, len(body))
                    case Report(fact):
                        self._reported(self._name, fact)
                    case Receive(frm, seconds):
                        answer = self._received(frm, seconds)
        except StopIteration as stop:
            self._finish(stop.value)
        finally:
            self._role.close()
        return self._simulated

    def _received(self, client: PartyId, seconds: float | None) -> Delivery:
        """There is no clock: the time a role gave is up when the client has nothing left to do."""
        while not self._outgoing[client] and self._owed[client]:
            self._take(client)
        if self._outgoing[client]:
            encoded = self._outgoing[client].popleft()
            message = decode(client, encoded.kind, encoded.body)
            self._travelled(client, self._name, message, len(encoded.body))
            return Delivery(message, len(encoded.body))
        if seconds is None:
            raise DeadlockError(f"no role can go on: {self._name} waits for {client}")
        return Delivery(None, waited_seconds=seconds)

    def _take(self, client: PartyId) -> None:
        answer = self._hosts[client].answer(client)
        self._owed[client] -= 1
        for fact in answer.facts:
            self._reported(client, fact)
        if answer.failure is not None:
            raise _raised(answer.failure)
        if answer.outcome is not None:
            self._returned(client, answer.outcome)
        self._outgoing[client].extend(answer.outgoing)

    def _finish(self, outcome: Outcome) -> None:
        self._returned(self._name, outcome)
        for client, owed in self._owed.items():
            for _ in range(owed):
                self._take(client)
            if client not in self._simulated.results:
                raise DeadlockError(f"no role can go on: {client} waits for {self._name}")

    def _returned(self, party: PartyId, outcome: Outcome) -> None:
        state = self._states.setdefault(outcome.state, outcome.state)  # hundreds may keep the same model
        self._simulated.results[party] = msgspec.structs.replace(outcome, state=state)

    def _reported(self, party: PartyId, fact: Fact) -> None:
        self._watch(self._simulated, party, fact)
        self._simulated.reports[party].append(without_state(fact))

    def _travelled(self, sender: PartyId, receiver: PartyId, message: Any, payload_bytes: int) -> None:
        self._round = max(self._round, getattr(message, "round", 0))
        self._simulated.traffic.append(Travelled(self._round, sender, receiver, message.kind(), payload_bytes))


def _raised(failure: Failure) -> JobError:
    """The error of a client's role, by its code, naming the client."""
    kinds = (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, JobError))
    kind = next((kind for kind in kinds if kind.code == failure.code), JobError)
    return kind(f"{failure.side}: {failure.message}", fix=failure.fix, safe=failure.safe)


def _hosts(others: Sequence[Setup[Any]], processes: int, open_hosts: ExitStack) -> dict[PartyId, Host]:
    """Where each client runs. They are dealt in turn, so that all processes work however a cohort is drawn."""
    if processes <= 1:
        here = _Here(others)
        return {setup.me: here for setup in others}
    dealt = [others[number::processes] for number in range(processes)]
    spawned = [open_hosts.enter_context(ClientProcess(clients)) for clients in dealt]
    return {setup.me: spawned[number % processes] for number, setup in enumerate(others)}


class _Here:
    """This process."""

    def __init__(self, setups: Sequence[Setup[Any]]) -> None:
        self._clients = Clients(setups)
        self._answers = {setup.me: deque([self._clients.start(setup.me)]) for setup in setups}

    def deliver(self, client: PartyId, kind: str, body: bytes) -> None:
        self._answers[client].append(self._clients.deliver(client, kind, body))

    def answer(self, client: PartyId) -> ClientTurn:
        return self._answers[client].popleft()


class ClientProcess:
    """A child process and the clients in it. Raises WorkerVanished, naming them, where it dies."""

    def __init__(self, setups: Sequence[Setup[Any]]) -> None:
        names = [setup.me for setup in setups]
        which = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        self._child = Child(f"the process of simulated clients {which}")
        self.pid = self._child.pid
        self._answers: dict[PartyId, deque[ClientTurn]] = {name: deque() for name in names}
        self._child.begin(hosted, written(setups), keeps=True)
        for setup in setups:
            self._child.give(started(setup.me))

    def deliver(self, client: PartyId, kind: str, body: bytes) -> None:
        self._child.give(delivered(client, kind, body))

    def answer(self, client: PartyId) -> ClientTurn:
        while not self._answers[client]:
            turn = self._next()
            self._answers[turn.client].append(turn)
        return self._answers[client].popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close()

    def _next(self) -> ClientTurn:
        try:
            return turn_of(self._child.result())
        except WorkerVanished as error:
            error.safe = "States written before it are kept."
            error.fix = "Run fewer processes if memory ran out; --resume goes on from the last state."
            raise
