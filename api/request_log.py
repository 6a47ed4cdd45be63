"""Every request has an id: it stands in the answer, and in every line of the log that is about the request.

Refusals are logged in our own words, and so many for one address and minute only: a flood must not fill the disk.
"""

import logging
import secrets
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parties.errors import printable

HEADER = b"x-request-id"
MINUTE = 60.0
UNREADABLE_LINES, REFUSED_LINES = 1, 20
"""A minute, about one address: what is no HTTP, or gets no connection, and requests that are refused."""
ADDRESSES = 1000
OTHERS = "other addresses"
TOO_FAST = 429
"""The answer to a peer that is asked to come later: ordinary, and not logged."""

_LOG = logging.getLogger("api")


def new_request_id() -> str:
    return secrets.token_hex(8)


@dataclass
class RequestNote:
    """What is known of the request that is being answered."""

    id: str = field(default_factory=new_request_id)
    refusal: str = ""
    """The code it is refused with."""
    is_audited: bool = False
    """Whether the audit log has been told of the refusal."""


_CURRENT: ContextVar[RequestNote | None] = ContextVar("request", default=None)


def current_request() -> RequestNote:
    """The request being answered; one of its own outside of any."""
    return _CURRENT.get() or RequestNote()


class RefusalLog:
    """Warnings about one port, bounded by address, kind and minute; what was left out is counted."""

    def __init__(self, port: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`port` is its name: whose port it is."""
        self._port, self._clock = port, clock
        self._minutes: dict[tuple[str, int], tuple[float, int]] = {}

    def unreadable(self, address: str, text: str) -> None:
        """Something that is no request, or has got no connection."""
        self._note(address, UNREADABLE_LINES, text)

    def refused(self, address: str, text: str) -> None:
        """A request that was answered with an error."""
        self._note(address, REFUSED_LINES, text)

    def _note(self, address: str, most: int, text: str) -> None:
        at = self._clock()
        if len(self._minutes) >= ADDRESSES:
            self._minutes = {key: minute for key, minute in self._minutes.items() if at - minute[0] < MINUTE}
        if len(self._minutes) >= ADDRESSES and (address, most) not in self._minutes:
            address = OTHERS
        began, count = self._minutes.get((address, most), (at, 0))
        left_out = ""
        if at - began >= MINUTE:
            left_out = f"; {count - most} more like it were not logged" if count > most else ""
            began, count = at, 0
        self._minutes[address, most] = (began, count + 1)
        if count < most:
            _LOG.warning("%s, from %s: %s%s", self._port, address, printable(text), left_out)


class RequestIds:
    """ASGI middleware: gives each request its id, and logs it when it is refused."""

    def __init__(self, app: ASGIApp, log: RefusalLog) -> None:
        self._app, self._log = app, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        note = RequestNote()
        _CURRENT.set(note)  # of this request's own task

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (HEADER, note.id.encode())]
                status: int = message["status"]
                if status >= 400 and status != TOO_FAST:
                    address = scope["client"][0] if scope.get("client") else "nowhere"
                    what = f"{scope['method']} {scope['path'][:100]}"
                    self._log.refused(address, f"{what} refused: {status} {note.refusal}".rstrip())
            await send(message)

        await self._app(scope, receive, marked)


class RequestInLine(logging.Filter):
    """Gives each line of the log the id of the request it is about."""

    def filter(self, record: logging.LogRecord) -> bool:
        note = _CURRENT.get()
        record.request = f" [request {note.id}]" if note else ""
        return True
