"""The route of a witness of audit logs: exactly what c2sp.org/tlog-witness says, whoever is asked."""

from collections.abc import Callable
from functools import partial

import anyio
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from api.errors import problem_body
from parties.trust.errors import MalformedNote, NoteNotSigned, RewrittenLog, StaleHead, UnknownLog
from parties.trust.notes import NOTE_LIMIT
from parties.trust.witness import SIZE_TYPE

REQUEST_LIMIT = NOTE_LIMIT + (8 << 10)
"""A note and a proof."""


def add_witness_route(
    app: FastAPI, route: str, cosign: Callable[[Request, bytes], str], limiter: anyio.CapacityLimiter
) -> None:
    """`cosign` answers the line of a cosignature, or raises why there is none."""

    @app.post(route)
    async def add_checkpoint(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > REQUEST_LIMIT:
                raise HTTPException(413, f"a checkpoint and its proof need less than {REQUEST_LIMIT} bytes")
        try:
            line = await anyio.to_thread.run_sync(partial(cosign, request, bytes(body)), limiter=limiter)
        except StaleHead as stale:
            return Response(f"{stale.size}\n", stale.status, media_type=SIZE_TYPE)
        except (MalformedNote, NoteNotSigned, UnknownLog, RewrittenLog) as error:
            return problem_body(error.status, error.code, str(error))
        request.state.connection.trust()
        return Response(line, media_type="text/plain")
