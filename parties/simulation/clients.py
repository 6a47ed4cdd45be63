"""The clients of a simulation that live in one process: the parent's own, or `python -m parties.simulation.clients`.

They are the roles that run between servers. What one does with a message, up to its next wait, is one answer. Over the
pipe both ends speak closed unions, as a worker and its server do; nothing is ever unpickled.
"""

import os
import sys
import threading
from collections.abc import Iterable
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

import msgspec
import numpy as np

from parties.errors import Failure
from parties.processes import exit_at_hang_up
from parties.worker.frames import Frame, FrameReader, FrameWriter, OutgoingMessage, RawTable
from vfl.errors import JobError
from vfl.flow import Delivery, Flow, Receive, Report, Send
from vfl.kinds import decode_spec, flow_of
from vfl.message import decode, encode
from vfl.reports import Fact, Outcome
from vfl.setup import Setup, Table
from vfl.spec.sections import PartyId

F = TypeVar("F")


class Client(msgspec.Struct, frozen=True):
    """What one simulated client is given."""

    name: PartyId
    tables: dict[str, RawTable]
    private_seed: bytes
    saved: bytes


class StartClients(Frame, frozen=True):
    """To the process, first and once."""

    spec: bytes
    joint_seed: bytes
    clients: list[Client]


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


ToClients: TypeAlias = StartClients | DeliverTo


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


def begin_with(setups: list[Setup[Any]]) -> StartClients:
    """The frame that gives a process these clients."""
    spec, seed = setups[0].spec, setups[0].joint_seed
    return StartClients(
        spec.encoded(),
        seed,
        [Client(s.me, {use: _raw(t) for use, t in s.tables.items()}, s.private_seed, s.saved) for s in setups],
    )


def pump(reader: FrameReader[F], into: "SimpleQueue[F | None]") -> None:
    """Empty a pipe into a queue, so that neither end ever waits for the other to read; None comes last."""
    try:
        while (frame := reader.read()) is not None:
            into.put(frame)
    except (msgspec.DecodeError, OSError):
        pass  # an end that cannot be understood has ended
    into.put(None)


def main() -> None:
    import torch  # noqa: PLC0415 - only the process of simulated clients sets its threads

    torch.set_num_threads(1)
    # A stray print must not get into a frame.
    incoming, outgoing = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    exit_at_hang_up(incoming)
    frames: SimpleQueue[ToClients | None] = SimpleQueue()
    reader: FrameReader[ToClients] = FrameReader(incoming, ToClients)
    threading.Thread(target=pump, args=(reader, frames), daemon=True).start()
    writer = FrameWriter(outgoing)
    begin = frames.get()
    if not isinstance(begin, StartClients):
        sys.exit(0)
    clients = Clients(_setups(begin))
    names = [client.name for client in begin.clients]
    del begin
    try:
        for name in names:
            writer.write(clients.start(name))
        while isinstance(message := frames.get(), DeliverTo):
            writer.write(clients.deliver(message.to, message.kind, message.body))
    except BrokenPipeError:
        pass  # whoever wanted the answers is gone
    os._exit(0)


def _setups(begin: StartClients) -> Iterable[Setup[Any]]:
    spec = decode_spec(begin.spec)
    for client in begin.clients:
        tables = {use: _table(raw) for use, raw in client.tables.items()}
        yield Setup(spec, client.name, tables, begin.joint_seed, client.private_seed, saved=client.saved)


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


if __name__ == "__main__":
    main()
