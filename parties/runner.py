"""Drives one role: the only place where its effects meet the world, which for a worker is its pipe."""

from typing import TypeVar

from parties.mailbox import Mailbox
from parties.pipe import Delivered, FrameWriter, Sent, Stated
from vfl.flow import Delivery, Flow, Receive, Report, Send
from vfl.messages import decode, encode
from vfl.terms import PartyId

R = TypeVar("R")


class Inboxes:
    """What peers have sent and the role has not taken yet, one queue per peer."""

    def __init__(self, peers: tuple[PartyId, ...]) -> None:
        self._boxes: dict[PartyId, Mailbox[Delivered]] = {peer: Mailbox() for peer in peers}

    def put(self, delivered: Delivered) -> None:
        """Waits while that peer's queue is full: the pipe then fills, and the peer's server is told to slow down."""
        box = self._boxes[delivered.sender]
        box.wait_for_room()
        box.put(delivered, len(delivered.body))

    def take(self, peer: PartyId) -> Delivered | None:
        return self._boxes[peer].take()


def run(role: Flow[R], inboxes: Inboxes, pipe: FrameWriter) -> R:
    """Run a role to its end. An exception of the role passes through; OSError means that the server is gone."""
    answer: Delivery | None = None
    try:
        while True:
            effect = role.send(answer)
            answer = None
            match effect:
                case Send(to, message):
                    pipe.write(Sent(to, message.kind(), memoryview(encode(message))))
                case Report(fact):
                    pipe.write(Stated(fact))
                case Receive(frm):
                    delivered = inboxes.take(frm)
                    if delivered is None:
                        raise BrokenPipeError
                    answer = Delivery(decode(delivered.kind, bytes(delivered.body)))
    except StopIteration as stop:
        result: R = stop.value
        return result
    finally:
        role.close()
