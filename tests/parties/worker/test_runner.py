"""What a role's effects become between processes: messages in order, time that runs out, peers that come and go."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import pytest

from parties.worker.frames import Delivered, FrameReader, FrameWriter, FromWorker, OutgoingMessage
from parties.worker.mailbox import LIMIT_BYTES
from parties.worker.runner import MOST_MESSAGES, Inboxes, run
from vfl.errors import RemoteProtocolError
from vfl.flow import Delivery, Flow, Receive, Send, next_request, send
from vfl.message import encode
from vfl.messages import ClientReady
from vfl.requests import ScoreRequest
from vfl.spec.sections import PartyId

AGGREGATOR, CLIENT, OTHER = "hub", "client", "other"
LONG, SHORT = 30.0, 0.02


@pytest.fixture
def inboxes() -> Inboxes:
    """Of a role that can do without its clients and not without the aggregator."""
    return Inboxes((AGGREGATOR, CLIENT, OTHER), frozenset({AGGREGATOR}))


def ready(sender: PartyId, backbone: bytes = b"") -> Delivered:
    message = ClientReady(backbone)
    return Delivered(sender, message.kind(), memoryview(encode(message)))


@contextmanager
def taking(inboxes: Inboxes, peer: PartyId, seconds: float | None) -> Iterator[list[Delivery]]:
    """Somebody waits for a peer's next message while the block runs; what came stands in the list afterwards."""
    came: list[Delivery] = []
    waits = threading.Thread(target=lambda: came.append(inboxes.take(peer, seconds)))
    waits.start()
    yield came
    waits.join(LONG)
    assert not waits.is_alive()


def test_a_message_that_is_there_costs_no_time(inboxes: Inboxes) -> None:
    inboxes.put(ready(CLIENT, b"first"))
    inboxes.put(ready(CLIENT, b"second"))
    for backbone in (b"first", b"second"):
        delivery = inboxes.take(CLIENT, LONG)
        assert delivery.message == ClientReady(backbone)
        assert delivery.waited_seconds < LONG
        assert delivery.payload_bytes == len(encode(ClientReady(backbone)))


def test_time_that_runs_out_is_all_of_it(inboxes: Inboxes) -> None:
    for seconds in (0.0, SHORT):
        delivery = inboxes.take(CLIENT, seconds)
        assert delivery.message is None
        assert delivery.waited_seconds >= seconds
        assert not delivery.unreadable


def test_nobody_waits_for_a_peer_that_has_left(inboxes: Inboxes) -> None:
    with taking(inboxes, CLIENT, None) as came:
        inboxes.leave(CLIENT)
    assert came[0].message is None
    delivery = inboxes.take(CLIENT, LONG)
    assert delivery.message is None
    assert delivery.waited_seconds < LONG
    assert inboxes.take(CLIENT, None).message is None


def test_who_knows_that_a_peer_has_left_can_wait_for_its_return(inboxes: Inboxes) -> None:
    inboxes.leave(CLIENT)
    assert inboxes.take(CLIENT, 0.0).message is None
    assert inboxes.take(CLIENT, LONG).waited_seconds < LONG, "told once, to who gave it time"
    assert inboxes.take(CLIENT, SHORT).waited_seconds >= SHORT
    with taking(inboxes, CLIENT, LONG) as came:
        inboxes.start_afresh(CLIENT)
        inboxes.put(ready(CLIENT))
    assert came[0].message in {None, ClientReady()}


def test_what_a_peer_said_before_it_left_still_counts(inboxes: Inboxes) -> None:
    inboxes.put(ready(CLIENT))
    inboxes.leave(CLIENT)
    assert inboxes.take(CLIENT, LONG).message == ClientReady()
    delivery = inboxes.take(CLIENT, LONG)
    assert delivery.message is None
    assert delivery.waited_seconds < LONG


def test_a_peer_that_returns_starts_afresh(inboxes: Inboxes) -> None:
    inboxes.put(ready(CLIENT, b"before"))
    inboxes.leave(CLIENT)
    inboxes.start_afresh(CLIENT)
    inboxes.put(ready(CLIENT, b"after"))
    assert inboxes.take(CLIENT, LONG).message == ClientReady(b"after")


def test_whoever_waits_for_a_peer_that_starts_afresh_is_answered(inboxes: Inboxes) -> None:
    with taking(inboxes, CLIENT, None) as came:
        inboxes.start_afresh(CLIENT)
        inboxes.put(ready(CLIENT, b"after"))
    assert came[0].message in {None, ClientReady(b"after")}


def test_a_role_that_waits_already_when_a_peer_it_needs_begins_waits_on(inboxes: Inboxes) -> None:
    for number in range(50):  # the role may wait before or after
        with taking(inboxes, AGGREGATOR, None) as came:
            inboxes.start_afresh(AGGREGATOR)
            inboxes.put(ready(AGGREGATOR, b"%d" % number))
        assert came[0].message == ClientReady(b"%d" % number)


def test_an_unreadable_message_is_the_roles_to_judge_where_time_is_set(inboxes: Inboxes) -> None:
    noise = Delivered(CLIENT, "ClientReady", memoryview(b"\xff\xfe"))
    inboxes.put(noise)
    delivery = inboxes.take(CLIENT, LONG)
    assert delivery.message is None
    assert f"of {CLIENT} cannot be read" in delivery.unreadable
    inboxes.put(noise)
    with pytest.raises(RemoteProtocolError, match="cannot be read"):
        inboxes.take(CLIENT, None)


def test_a_flood_of_one_client_is_cut_and_named_and_slows_nobody(inboxes: Inboxes) -> None:
    for _ in range(MOST_MESSAGES + 10):
        inboxes.put(ready(CLIENT))
    inboxes.put(ready(OTHER))
    assert inboxes.take(OTHER, LONG).message == ClientReady()
    taken = [inboxes.take(CLIENT, LONG) for _ in range(MOST_MESSAGES + 1)]
    assert all(delivery.message == ClientReady() for delivery in taken[:-1])
    assert taken[-1].message is None
    assert "more than was asked" in taken[-1].unreadable
    inboxes.put(ready(CLIENT))
    assert inboxes.take(CLIENT, LONG).message == ClientReady()


def test_large_messages_of_a_client_lie_unread_a_few_at_a_time(inboxes: Inboxes) -> None:
    body = memoryview(bytes(LIMIT_BYTES))
    for _ in range(6):
        inboxes.put(Delivered(CLIENT, "RoundReply", body))
    unreadable = [inboxes.take(CLIENT, LONG).unreadable for _ in range(5)]
    assert all("cannot be read" in text for text in unreadable[:4])
    assert "more than was asked" in unreadable[4]


def test_an_indispensable_peer_is_slowed_down_instead(inboxes: Inboxes) -> None:
    inboxes.put(Delivered(AGGREGATOR, "RoundTask", memoryview(bytes(LIMIT_BYTES))))
    puts = threading.Thread(target=inboxes.put, args=(ready(AGGREGATOR),))
    puts.start()
    assert inboxes.take(AGGREGATOR, LONG).unreadable
    puts.join(LONG)
    assert inboxes.take(AGGREGATOR, LONG).message == ClientReady()


def asking(peer: PartyId) -> Flow[list[int]]:
    first = yield from send(peer, ClientReady())
    second = yield from send(peer, ClientReady())
    yield Receive(peer, 0.0)
    return [first, second]


def test_sending_answers_with_the_bytes_that_travel(inboxes: Inboxes) -> None:
    reading, writing = os.pipe()
    pipe, frames = FrameWriter(writing), FrameReader[FromWorker](reading, FromWorker)
    body = encode(ClientReady())
    assert run(asking(CLIENT), inboxes, pipe) == [len(body)] * 2
    for _ in range(2):
        frame = frames.read()
        assert isinstance(frame, OutgoingMessage)
        assert (frame.to, frame.kind, bytes(frame.body)) == (CLIENT, "ClientReady", body)
    inboxes.leave(OTHER)
    assert run(asking(OTHER), inboxes, pipe) == [0, 0]
    os.close(writing)
    assert frames.read() is None
    os.close(reading)


def test_a_role_is_closed_when_it_cannot_go_on(inboxes: Inboxes) -> None:
    closed = threading.Event()

    def role() -> Flow[None]:
        try:
            yield Send(CLIENT, ClientReady())
        finally:
            closed.set()

    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        run(role(), inboxes, FrameWriter(writing))
    assert closed.is_set()
    os.close(writing)


def test_a_role_is_given_what_its_operator_asks_in_order_and_then_hears_that_no_more_comes(inboxes: Inboxes) -> None:
    def role() -> Flow[list[int]]:
        numbers: list[int] = []
        while (request := (yield from next_request())) is not None:
            numbers.append(request.number)
        return numbers

    requests: SimpleQueue[ScoreRequest | None] = SimpleQueue()
    for number in (1, 2):
        requests.put(ScoreRequest(number, b""))
    requests.put(None)
    reading, writing = os.pipe()
    assert run(role(), inboxes, FrameWriter(writing), requests=requests) == [1, 2]
    os.close(reading)
    os.close(writing)
