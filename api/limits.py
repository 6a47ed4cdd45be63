"""The bound on request bodies: bytes are counted as they stream in, whatever a header says (uvicorn has no limit)."""

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
        seen, answered = 0, False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise _TooLargeError
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except _TooLargeError:
            if not answered:
                await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = problem_body(413, "too_large", f"the body has more than {self._limit} bytes")
        answer.headers["connection"] = "close"
        await answer(scope, receive, send)


class _TooLargeError(Exception):
    """Leaves the application through whatever was reading the body."""
