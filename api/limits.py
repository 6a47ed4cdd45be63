"""The bounds on request bodies: bytes are counted as they stream in, whatever a header says (uvicorn has no limit).

A body may not be slow either (envelopes.md). Where bodies are held until they are whole they have a bound together.
"""

import asyncio
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem_body

SILENT_SECONDS, BODY_SECONDS = 30.0, 600.0
"""Without a byte, and in all."""
BODIES_AT_ONCE = 8
"""As many full bodies as this may be held before they are acted on."""


class BodyLimit:
    """ASGI middleware: a body above the limit is answered 413 and not read further, one too slow 408."""

    def __init__(
        self, app: ASGIApp, limit_bytes: int, silent_seconds: float = SILENT_SECONDS, *, whole_bodies: bool = True
    ) -> None:
        """`whole_bodies`: the application takes a body as a whole, not piece by piece."""
        self._app, self._limit, self._silent = app, limit_bytes, silent_seconds
        self._most = BODIES_AT_ONCE * limit_bytes if whole_bodies else None
        self._bytes_held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        if not claimed.isdigit() or int(claimed) > self._limit:
            await self._refuse(scope, receive, send)
            return
        bytes_arrived, whole, deadline = 0, False, time.monotonic() + BODY_SECONDS

        async def counted() -> Message:
            nonlocal bytes_arrived, whole
            if whole:  # what comes now is the peer hanging up, which may take as long as the answer
                return await receive()
            try:
                timeout = min(self._silent, max(0.0, deadline - time.monotonic()))
                message = await asyncio.wait_for(receive(), timeout)
            except TimeoutError:
                raise HTTPException(408, "the body came too slowly", {"connection": "close"}) from None
            arrived = len(message.get("body", b""))
            whole = not message.get("more_body", False)
            bytes_arrived += arrived
            self._bytes_held += arrived
            # Through whatever reads the body, to the application's own handler.
            if bytes_arrived > self._limit:
                raise HTTPException(413, self._detail)
            if self._most is not None and self._bytes_held > self._most:
                raise HTTPException(503, "too many bodies are on their way; try again")
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._bytes_held -= bytes_arrived

    @property
    def _detail(self) -> str:
        return f"the body has more than {self._limit} bytes"

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = problem_body(413, "too_large", self._detail)
        answer.headers["connection"] = "close"
        await answer(scope, receive, send)
