"""Who may speak to a port of this machine: programs, not pages in a browser.

A page of any site can make its visitor's browser send requests to 127.0.0.1, and after DNS rebinding read the answers
too. The peer port takes no token until envelopes are signed, so this is checked on both ports before anything is read.
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import problem_body

NAMES = {"127.0.0.1", "localhost", "[::1]"}


class LoopbackOnly:
    """ASGI middleware: 421 for a request meant for another host, 403 for one a page has made."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        name, _, port = host.rpartition(":")
        if (name if port.isdigit() else host).lower() not in NAMES:
            refusal = problem_body(421, "http_error", "this server answers for 127.0.0.1 only")
        elif b"origin" in headers:
            refusal = problem_body(403, "http_error", "pages in a browser may not use this server")
        else:
            await self._app(scope, receive, send)
            return
        refusal.headers["connection"] = "close"
        await refusal(scope, receive, send)
