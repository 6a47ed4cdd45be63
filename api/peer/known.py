"""Who may ask anything of the peer port: trusted peers, and whoever holds an open invitation.

The second may ask for their meeting alone, and before it which certificate the port shows.

TLS has verified by then that a key we trust issued the other end's certificate; here it counts which key that was.
"""

import anyio.to_thread
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import problem_body
from parties.enrolment import ROUTE as ENROLMENT_ROUTE
from parties.errors import UnknownSender
from parties.party import Party
from parties.wire.transport import CERTIFICATE_ROUTE


class KnownOnly:
    """ASGI middleware: 401 for everybody else, in the same words."""

    def __init__(self, app: ASGIApp, party: Party) -> None:
        self._app, self._party = app, party

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or await self._is_known(scope):
            await self._app(scope, receive, send)
            return
        refusal = problem_body(UnknownSender.status, UnknownSender.code, "the other end is not known here")
        refusal.headers["connection"] = "close"
        await refusal(scope, receive, send)

    async def _is_known(self, scope: Scope) -> bool:
        connection = scope.get("state", {}).get("connection")
        issuer: str = connection.issuer if connection is not None else ""
        is_peer = self._party.peers.issued_by(issuer) is not None
        if scope["path"] == ENROLMENT_ROUTE or (scope["path"] == CERTIFICATE_ROUTE and not is_peer):
            return await anyio.to_thread.run_sync(self._party.enrolment.guest, issuer) is not None
        return is_peer
