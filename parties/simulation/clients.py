"""The clients of a simulation that live in one process: the parent's own, or a child (parties.worker.child).

They are the roles that run between servers. What one does with a message, up to its next wait, is one answer. A child
is told by closed unions, as a worker by its server; nothing is ever unpickled.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np

from parties.errors import Failure
from parties.worker.frames import Frame, OutgoingMessage, RawTable
from vfl.errors import JobError
from vfl.flow import Delivery, Flow, Receive, Report, Send
from vfl.kinds import decode_spec, flow_of
from vfl.message import decode, encode
from vfl.reports import Fact, Outcome
from vfl.setup import Setup, Table
from vfl.spec.sections import PartyId


class Client(msgspec.Struct, frozen=True):
    """What one simulated client is given."""

    name: PartyId
    tables: dict[str, RawTable]
    private_seed: bytes
    saved: bytes


class HostedClients(Frame, frozen=True):
    """What the process is given once."""

    spec: bytes
    joint_seed: bytes
    clients: list[Client]


class StartClient(Frame, frozen=True):
    """To the process, once for each client."""

    client: PartyId


class DeliverTo(Frame, frozen=True):
    """To the process: a message for one of its clients, encoded."""

    to: PartyId
    kind: str
    body: memoryview


class ClientTurn(Frame, frozen=True):
    """From the process: what a client did when it was started or given a message, until it waited again."""

    client: PartyId
    outgoing: tuple[OutgoingMessage, ...] = ()
    facts: tuple[Fact, ...] = ()
    outcome: Outcome | None = None
    """Once it has returned."""
    failure: Failure | None = None
    """Once a named error has left it."""


ToClients: TypeAlias = StartClient | DeliverTo


class Clients:
    """Generators of some clients, each run when it has something to go on with."""

    def __init__(self, setups: Iterable[Setup[Any]]) -> None:
        self._roles: dict[PartyId, Flow[Outcome]] = {setup.me: flow_of(setup) for setup in setups}

    def start(self, client: PartyId) -> ClientTurn:
        return self._answer(client, None)

    def deliver(self, client: PartyId, kind: str, body: bytes | memoryview) -> ClientTurn:
        """Nothing happens where the client has returned: its job is done."""
        if client not in self._roles:
            return ClientTurn(client)
        return self._answer(client, Delivery(decode("the aggregator", kind, body), len(body)))

    def _answer(self, client: PartyId, delivery: Delivery | None) -> ClientTurn:
        outgoing = list[OutgoingMessage]()
        facts = list[Fact]()
        try:
            while True:
                effect = self._roles[client].send(delivery)
                delivery = None
                match effect:
                    case Send(to, message):
                        outgoing.append(OutgoingMessage(to, message.kind(), memoryview(encode(message))))
                        delivery = Delivery(None, len(outgoing[-1].body))
                    case Report(fact):
                        facts.append(fact)
                    case Receive():
                        return ClientTurn(client, tuple(outgoing), tuple(facts))
        except StopIteration as stop:
            del self._roles[client]
            return ClientTurn(client, tuple(outgoing), tuple(facts), outcome=stop.value)
        except JobError as error:
            del self._roles[client]
            return ClientTurn(client, tuple(outgoing), tuple(facts), failure=Failure.of(error, client))


def written(setups: Sequence[Setup[Any]]) -> bytes:
    """What gives a process these clients."""
    spec, seed = setups[0].spec, setups[0].joint_seed
    clients = [Client(s.me, {use: _raw(t) for use, t in s.tables.items()}, s.private_seed, s.saved) for s in setups]
    return msgspec.msgpack.encode(HostedClients(spec.encoded(), seed, clients))


def started(client: PartyId) -> bytes:
    return msgspec.msgpack.encode(StartClient(client))


def delivered(client: PartyId, kind: str, body: bytes) -> bytes:
    return msgspec.msgpack.encode(DeliverTo(client, kind, memoryview(body)))


def turn_of(answer: bytes) -> ClientTurn:
    return msgspec.msgpack.decode(answer, type=ClientTurn)


def hosted(shared: bytes) -> Callable[[bytes], bytes]:
    """KeepingWork: what each client does when it is started, or given a message."""
    clients, decoder = Clients(_setups(shared)), msgspec.msgpack.Decoder[ToClients](ToClients)

    def answer(piece: bytes) -> bytes:
        match decoder.decode(piece):
            case StartClient(client):
                turn = clients.start(client)
            case DeliverTo(client, kind, body):
                turn = clients.deliver(client, kind, body)
        return msgspec.msgpack.encode(turn)

    return answer


def _setups(shared: bytes) -> Iterable[Setup[Any]]:
    host = msgspec.msgpack.decode(shared, type=HostedClients)
    spec = decode_spec(host.spec)
    for client in host.clients:
        tables = {use: _table(raw) for use, raw in client.tables.items()}
        yield Setup(spec, client.name, tables, host.joint_seed, client.private_seed, saved=client.saved)


def _raw(table: Table) -> RawTable:
    labels = None if table.labels is None else table.labels.astype(np.float64).tobytes()
    columns = table.columns.astype(np.float64, copy=False)
    return RawTable(len(table.columns), columns.tobytes(), labels, table.ids_digest)


def _table(raw: RawTable) -> Table:
    return Table(
        ids_digest=raw.ids_digest,
        columns=raw.matrix,
        labels=None if raw.labels is None else np.frombuffer(raw.labels, np.float64),
    )
