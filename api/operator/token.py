"""The operator's token, asked for before anything else of a request is read."""

import hashlib
import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import Unauthorised, problem

OPEN_PATHS = {"/healthz"}


class TokenRequired:
    """ASGI middleware: 401 for every route but health where the bearer token is missing or wrong."""

    def __init__(self, app: ASGIApp, party: str, token_hash: bytes) -> None:
        """`token_hash` is the SHA-256 of the operator's token."""
        self._app, self._party, self._token_hash = app, party, token_hash

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        if not self._knows(dict(scope["headers"]).get(b"authorization", b"")):
            answer = problem(Unauthorised(f"the token for {self._party} is missing or wrong"))
            answer.headers["www-authenticate"] = "Bearer"
            await answer(scope, receive, send)
            return
        if (connection := scope.get("state", {}).get("connection")) is not None:
            connection.trust()
        await self._app(scope, receive, send)

    def _knows(self, authorization: bytes) -> bool:
        scheme, _, token = authorization.partition(b" ")
        presented = hashlib.sha256(token.strip()).digest()
        return hmac.compare_digest(presented, self._token_hash) and scheme.lower() == b"bearer"
