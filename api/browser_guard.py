"""Who may speak to the operator port: programs, not pages in a browser.

A page of any site can make its visitor's browser send requests to 127.0.0.1, and after DNS rebinding read the answers
too. Over TLS the name that a certificate is for keeps the second kind away.
"""

import ipaddress

from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import problem_body


class BrowserGuard:
    """ASGI middleware: 403 for a request that a page has made, 421 for one in clear that is meant for another host."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        name, _, port = host.rpartition(":")
        if scope["scheme"] != "https" and not _is_this_machine(name if port.isdigit() else host):
            refusal = problem_body(421, "http_error", "this server answers for this machine only")
        elif b"origin" in headers:
            refusal = problem_body(403, "http_error", "pages in a browser may not use this server")
        else:
            await self._app(scope, receive, send)
            return
        refusal.headers["connection"] = "close"
        await refusal(scope, receive, send)


def _is_this_machine(host: str) -> bool:
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
