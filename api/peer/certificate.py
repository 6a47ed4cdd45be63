"""The route by which a caller asks which certificate this port shows (parties/trust/shown_certificate.py)."""

import anyio
from fastapi import FastAPI, Request, Response

from parties.party import Party
from parties.trust.shown_certificate import NONCE_BYTES
from parties.wire.transport import CERTIFICATE_ROUTE


def add_certificate(app: FastAPI, party: Party, limiter: anyio.CapacityLimiter) -> None:
    @app.post(CERTIFICATE_ROUTE)
    async def certificate(request: Request) -> Response:
        nonce = bytearray()
        async for piece in request.stream():
            nonce += piece
            if len(nonce) > NONCE_BYTES:
                break
        answer = await anyio.to_thread.run_sync(party.peers.sign_certificate, bytes(nonce), limiter=limiter)
        return Response(answer, media_type="application/octet-stream")
