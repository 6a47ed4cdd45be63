"""The bound on request bodies: bytes are counted as they stream in, whatever a header says (uvicorn has no limit)."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem_body


class BodyLimit:
    """ASGI middleware: a body above the limit is answered 413 and not read further."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app, self._limit = app, limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        if not claimed.isdigit() or int(claimed) > self._limit:
            await self._refuse(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                # Through whatever reads the body, to the application's own handler.
                raise HTTPException(413, self._detail)
            return message

        await self._app(scope, counted, send)

    @property
    def _detail(self) -> str:
        return f"the body has more than {self._limit} bytes"

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = problem_body(413, "too_large", self._detail)
        answer.headers["connection"] = "close"
        await answer(scope, receive, send)
