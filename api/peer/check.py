"""The route by which a trusted peer asks how things look from here (parties/doctor/half.py)."""

from collections import defaultdict
from functools import partial

import anyio
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from api.release import RELEASE
from parties.doctor.half import QUESTION_LIMIT, ROUTE, PeersHalf
from parties.errors import UnknownSender
from parties.party import Party

CHECKS_AT_ONCE = 2
"""Each holds a thread while it calls back. Of one peer one check is read at a time: it may hold a few megabytes, and
come as slowly as that peer likes."""


def add_check(app: FastAPI, party: Party) -> None:
    half, limiter = PeersHalf(party.peers, RELEASE, party.readiness), anyio.CapacityLimiter(CHECKS_AT_ONCE)
    of_peer = defaultdict[str, anyio.CapacityLimiter](lambda: anyio.CapacityLimiter(1))

    @app.post(ROUTE)
    async def check(request: Request) -> Response:
        asking = party.peers.issued_by(request.state.connection.issuer)
        if asking is None:  # removed since the request began
            raise UnknownSender("the other end is not known here")
        half.admit(asking)
        async with of_peer[asking.name]:
            body = bytearray()
            async for piece in request.stream():
                body += piece
                if len(body) > QUESTION_LIMIT:
                    raise HTTPException(413, f"a check needs less than {QUESTION_LIMIT} bytes")
            answer = await anyio.to_thread.run_sync(partial(half.answer, bytes(body), asking), limiter=limiter)
        return Response(answer, media_type="application/octet-stream")
