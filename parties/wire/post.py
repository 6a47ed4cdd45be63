"""One POST of envelopes as it comes in: each is taken once it is whole, and no body is kept that may not come now."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from parties.errors import EnvelopeRefused, InternalError, MailboxFull, StorageFailed
from parties.trust.signer import Signer
from parties.wire.envelopes import CONTROL_LIMIT, PART_LIMIT, WIRE_VERSION, Bytes, Envelope, EnvelopeReader
from parties.wire.receipts import Receipt, Reply
from parties.wire.transport import Answer
from parties.worker.mailbox import Room
from vfl.spec.sections import PartyId

SENDER_BYTES, ALL_BYTES = 4 * PART_LIMIT, 16 * PART_LIMIT
"""Of bodies on their way to us at one time: of one sender, and of all."""

_LOG = logging.getLogger("parties")


class _Outcome(NamedTuple):
    status: int
    code: str = ""
    detail: str = ""
    expected: int | None = None


ACCEPTED = _Outcome(202)


class ReceivingRoom:
    """Room for bodies that are on their way."""

    def __init__(self) -> None:
        self._of_one: dict[PartyId, Room] = {}
        self._of_all = Room(ALL_BYTES)

    def of(self, sender: PartyId) -> tuple[Room, ...]:
        """`sender` is a peer."""
        return self._of_one.setdefault(sender, Room(SENDER_BYTES)), self._of_all


class Post:
    """Used by one thread at a time. `act` and `end` may wait for a job; `add` never does."""

    def __init__(
        self,
        me: Signer,
        wants: Callable[[Envelope], bool],
        receive: Callable[[Envelope], Receipt],
        room: ReceivingRoom,
        note_refusal: Callable[[Envelope, str], bool] = lambda _envelope, _code: False,
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        """`wants` is asked about a large body when its header is here, and may raise EnvelopeRefused. `note_refusal`
        hears of an envelope that was refused, and why, and answers whether the audit log tells of it; `flush` stores
        what was received before a receipt leaves."""
        self._signer, self._me = me, me.name
        self._wants, self._receive, self._receiving_room = wants, receive, room
        self._note_refusal, self._flush = note_refusal, flush
        self._reader = EnvelopeReader(self._me)
        self._asked = False
        self._taken: list[tuple[Room, int]] = []
        self._receipts: dict[tuple[PartyId, str, int], Receipt] = {}
        """The newest by sender, job and attempt."""
        self._current: Envelope | None = None
        """The one that is looked at."""
        self._refusal: _Outcome | None = None
        self.is_audited = False
        """Whether the audit log tells of the refusal."""

    def add(self, piece: Bytes) -> bool:
        """Whether it is time to `act`. After a refusal what comes is read and dropped, so that the answer arrives."""
        if self._refusal is not None:
            return False
        self._reader.add(piece)
        return self._reader.is_due

    def act(self) -> None:
        """Take what is whole, and decide about the body that comes next."""
        if self._refusal is None:
            self._refusal = self._guarded(self._act)

    def end(self) -> Answer:
        """All has come."""
        self.act()
        if self._refusal is None:
            self._refusal = self._guarded(self._reader.end)
        self.close()
        # (11) what the receipts acknowledge is stored
        not_stored = self._guarded(self._flush)
        if not_stored is not None:
            self._refusal, self._receipts = not_stored, {}
        return self._answer(self._refusal or ACCEPTED)

    def close(self) -> None:
        """Also for a POST that breaks off."""
        for room, size in self._taken:
            room.give_back(size)
        self._taken = []

    def _act(self) -> None:
        while (head := self._reader.head()) is not None:
            self._current = head
            if not self._asked and head.header.body_bytes > CONTROL_LIMIT:
                if self._wants(head):
                    self._take_room(head)
                else:
                    self._reader.drop_body()
                self._asked = True
            envelope = self._reader.take()
            if envelope is None:
                return
            receipt = self._receive(envelope)
            self._receipts[envelope.header.sender, receipt.job, receipt.attempt] = receipt
            self._asked, self._current = False, None
            self.close()

    def _take_room(self, head: Envelope) -> None:
        for room in self._receiving_room.of(head.header.sender):
            if not room.try_take(head.header.body_bytes):
                raise MailboxFull("too many bodies are on their way")
            self._taken.append((room, head.header.body_bytes))

    def _guarded(self, step: Callable[[], None]) -> _Outcome | None:
        """Why what came cannot be taken."""
        try:
            step()
        except EnvelopeRefused as refused:
            if self._current is not None and not isinstance(refused, MailboxFull):
                self.is_audited = self._note_refusal(self._current, refused.code)
            return self._refused(refused.status, refused.code, str(refused), refused.expected)
        except StorageFailed as error:
            _LOG.warning("an envelope: %s", error)
            # One code for a full disk and a locked database: which of them it is, is for this party's operator alone.
            return self._refused(StorageFailed.status, StorageFailed.code, "this party cannot store anything now")
        except Exception:  # noqa: BLE001 - a bug must not be told to a peer, who tries again
            _LOG.exception("an envelope")
            return self._refused(500, InternalError.code, "see this party's log")
        return None

    def _refused(self, status: int, code: str, detail: str, expected: int | None = None) -> _Outcome:
        self._reader = EnvelopeReader(self._me)  # and what it held is gone
        self.close()
        return _Outcome(status, code, detail, expected)

    def _answer(self, why: "_Outcome") -> Answer:
        receipts = tuple(
            receipt.signed_by(self._signer.for_peer(sender), sender) for (sender, *_), receipt in self._receipts.items()
        )
        reply = Reply(self._me, WIRE_VERSION, receipts, why.code, why.detail, why.expected)
        return Answer(why.status, msgspec.json.encode(reply))
