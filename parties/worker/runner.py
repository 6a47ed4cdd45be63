"""Drives one role: the only place where its effects meet the world, which for a worker is its pipe and a clock."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import TypeVar

from parties.worker.frames import Checkpointed, Delivered, FrameWriter, OutgoingMessage, Reported
from parties.worker.mailbox import LIMIT_BYTES
from parties.worker.transcripts import Transcripts
from vfl.errors import RemoteProtocolError
from vfl.flow import Delivery, Flow, NextRequest, Receive, Report, Send
from vfl.message import Message, decode, encode
from vfl.reports import CheckpointReached
from vfl.requests import ScoreRequest
from vfl.spec.sections import PartyId

R = TypeVar("R")

FEW_MESSAGES, MOST_MESSAGES = 4, 64
"""Of a peer the job can do without so many may lie unread: few of any size, more while they are small."""


class _Inbox:
    """What one peer has sent and the role has not taken yet."""

    def __init__(self) -> None:
        self.unread: deque[Delivered] = deque()
        self.held_bytes = 0
        self.away = self.role_knows = False
        """Whether the peer has left, and whether the role knows."""
        self.flooded = False

    @property
    def full(self) -> bool:
        return self.held_bytes >= LIMIT_BYTES


class Inboxes:
    """One queue per peer; filled by the thread that reads the pipe, taken from by the role's."""

    def __init__(
        self, peers: Collection[PartyId], required_parties: Collection[PartyId], transcripts: Transcripts | None = None
    ) -> None:
        self._boxes = {peer: _Inbox() for peer in peers}
        self._required = frozenset(required_parties)
        self._on_taken = transcripts.taken if transcripts else lambda *_: None
        self._changed = threading.Condition()

    def put(self, delivered: Delivered) -> None:
        """A full queue of a required peer is waited for: the pipe then fills, and that peer is slowed down.

        Another peer must not slow the rest: what it sends beyond its queue is dropped, and the role is told.
        """
        box = self._boxes[delivered.sender]
        with self._changed:
            if delivered.sender in self._required:
                self._changed.wait_for(lambda: not box.full)
            elif len(box.unread) >= (FEW_MESSAGES if box.full else MOST_MESSAGES):
                box.flooded = True
                return
            box.unread.append(delivered)
            box.held_bytes += len(delivered.body)
            self._changed.notify_all()

    def leave(self, peer: PartyId) -> None:
        """What it sent before is still taken; then whoever waits for it is answered at once.

        A role that gives time is told once that a peer has left; whoever gives it time again waits for its return. A
        required peer leaves when its role has returned: whoever still waits for it has been let down.
        """
        with self._changed:
            self._boxes[peer].away = True
            self._changed.notify_all()

    def start_afresh(self, peer: PartyId) -> None:
        """A peer begins, or has come back. One the job needs begins once: a role that waits for it waits on."""
        if peer in self._required:
            return
        with self._changed:
            self._boxes[peer] = _Inbox()
            self._changed.notify_all()

    def is_away(self, peer: PartyId) -> bool:
        return self._boxes[peer].away and peer not in self._required

    def take(self, peer: PartyId, seconds: float | None) -> Delivery:
        """The peer's next message, waited for. Raises RemoteProtocolError for an unreadable one if no time is set."""
        began = time.monotonic()
        with self._changed:
            box = self._boxes[peer]

            def answered() -> bool:
                left = box.away and not (box.role_knows and bool(seconds))
                # one that starts afresh meanwhile had nothing to take
                return bool(box.unread) or box.flooded or left or self._boxes[peer] is not box

            in_time = self._changed.wait_for(answered, seconds)
            delivered = box.unread.popleft() if box.unread else None
            flooded = box.flooded and delivered is None
            if delivered is not None:
                box.held_bytes -= len(delivered.body)
            elif flooded:
                box.flooded = False
            elif box.away and peer in self._required:
                raise RemoteProtocolError(f"{peer} says that its role has returned, but what it owes did not come")
            elif box.away and seconds:
                box.role_knows = True
            self._changed.notify_all()
        waited = time.monotonic() - began
        if not in_time and seconds is not None:
            waited = max(waited, seconds)
        message: Message | None = None
        unreadable = f"{peer} sent more than was asked of it" if flooded else ""
        if delivered is not None:
            self._on_taken(peer, delivered.kind, delivered.body)
            try:
                message = decode(peer, delivered.kind, bytes(delivered.body))
            except RemoteProtocolError as error:
                unreadable = str(error)
        if unreadable and seconds is None:
            raise RemoteProtocolError(unreadable)
        size = 0 if delivered is None else len(delivered.body)
        return Delivery(message, size, waited, unreadable)


def run(
    role: Flow[R],
    inboxes: Inboxes,
    pipe: FrameWriter,
    on_sent: Callable[[], None] = lambda: None,
    requests: "queue.SimpleQueue[ScoreRequest | None] | None" = None,
    transcripts: Transcripts | None = None,
) -> R:
    """Run a role to its end; `on_sent` is called whenever it has sent something. `requests` are what the operator asks,
    None after the last one. `transcripts` are of a role that can go on from a checkpoint.

    An exception of the role passes through; OSError means that the server is gone.
    """
    answer: Delivery | None = None
    last_heard: PartyId = ""
    try:
        while True:
            effect = role.send(answer)
            answer = None
            match effect:
                case Send(to, message):
                    answer = Delivery(None, 0 if inboxes.is_away(to) else _send(to, message, pipe, transcripts))
                    on_sent()
                case Report(CheckpointReached() as reached):
                    if transcripts is not None:
                        pipe.write(Checkpointed(reached, transcripts.cut()))
                case Report(fact):
                    pipe.write(Reported(fact))
                case NextRequest():
                    answer = Delivery(None, request=None if requests is None else requests.get())
                case Receive(frm, seconds):
                    last_heard = frm
                    answer = inboxes.take(frm, seconds)
    except RemoteProtocolError as error:
        error.peer = last_heard
        raise
    except StopIteration as stop:
        result: R = stop.value
        return result
    finally:
        role.close()


def _send(to: PartyId, message: Message, pipe: FrameWriter, transcripts: Transcripts | None) -> int:
    body = encode(message)
    if transcripts is not None:
        transcripts.sent(to, message.kind(), body)
    pipe.write(OutgoingMessage(to, message.kind(), memoryview(body)))
    return len(body)
