"""The route by which a trusted peer asks how things look from here (parties/doctor/half.py)."""

from functools import partial

import anyio
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from api.release import RELEASE
from parties.doctor.half import QUESTION_LIMIT, ROUTE, PeersHalf
from parties.errors import UnknownSender
from parties.party import Party

CHECKS_AT_ONCE = 2
"""Each may hold a few megabytes of padding, and a thread while it calls back."""


def add_check(app: FastAPI, party: Party) -> None:
    half, limiter = PeersHalf(party.peers, RELEASE, party.readiness), anyio.CapacityLimiter(CHECKS_AT_ONCE)

    @app.post(ROUTE)
    async def check(request: Request) -> Response:
        asking = party.peers.issued_by(request.state.connection.issuer)
        if asking is None:  # removed since the request began
            raise UnknownSender("the other end is not known here")
        half.admit(asking)
        async with limiter:
            body = bytearray()
            async for piece in request.stream():
                body += piece
                if len(body) > QUESTION_LIMIT:
                    raise HTTPException(413, f"a check needs less than {QUESTION_LIMIT} bytes")
            answer = await anyio.to_thread.run_sync(partial(half.answer, bytes(body), asking))
        return Response(answer, media_type="application/octet-stream")
