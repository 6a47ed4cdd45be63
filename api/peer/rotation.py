"""The route by which a trusted peer says that another key follows the one that is pinned of it."""

import anyio
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from api.request_log import current_request
from parties.party import Party
from parties.trust.errors import RotationRefused
from parties.wire.envelopes import CONTROL_LIMIT
from parties.wire.transport import ROTATION_ROUTE


def add_rotation(app: FastAPI, party: Party, limiter: anyio.CapacityLimiter) -> None:
    @app.post(ROTATION_ROUTE)
    async def rotation(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > CONTROL_LIMIT:
                raise HTTPException(413, f"statements about keys need less than {CONTROL_LIMIT} bytes")
        issuer = request.state.connection.issuer
        try:
            await anyio.to_thread.run_sync(party.key_rotation.hear, issuer, bytes(body), limiter=limiter)
        except RotationRefused:
            current_request().is_audited = True  # with the rule
            raise
        return Response(status_code=200)
