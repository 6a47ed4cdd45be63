"""What is refused on the peer port stands in the audit log: whoever got past TLS left a name there, or a key.

Refused envelopes that a peer has signed are told of where they are checked, with their headers; of everything else, on
whatever route, it is told here. Who does not get past TLS is counted in the server's log (api/request_log.py).
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.request_log import current_request
from parties.errors import MailboxFull
from parties.party import Party

PATH_LETTERS = 100


class AuditedRefusals:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, party: Party) -> None:
        self._app, self._party = app, party

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def audited(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(scope, message["status"])
            await send(message)

        await self._app(scope, receive, audited if scope["type"] == "http" else send)

    def _note(self, scope: Scope, status: int) -> None:
        request = current_request()
        is_told = request.is_audited or request.refusal in {"", MailboxFull.code}  # who is only asked to come later
        if 400 <= status < 500 and not is_told:
            connection = scope.get("state", {}).get("connection")
            issuer = connection.issuer if connection is not None else ""
            self._party.audit.note_refusal(issuer, request.refusal, f"{scope['method']} {scope['path'][:PATH_LETTERS]}")
