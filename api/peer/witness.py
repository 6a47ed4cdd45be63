"""This party as a witness of its peers' audit logs: exactly what c2sp.org/tlog-witness says."""

import anyio
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from api.errors import problem_body
from api.request_log import current_request
from parties.party import Party
from parties.trust.errors import MalformedNote, NoteNotSigned, RewrittenLog, StaleHead, UnknownLog
from parties.trust.notes import NOTE_LIMIT
from parties.trust.witness import SIZE_TYPE
from parties.wire.transport import WITNESS_ROUTE

REQUEST_LIMIT = NOTE_LIMIT + (8 << 10)
"""A note and a proof."""


def add_witness(app: FastAPI, party: Party, limiter: anyio.CapacityLimiter) -> None:
    @app.post(WITNESS_ROUTE)
    async def add_checkpoint(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > REQUEST_LIMIT:
                raise HTTPException(413, f"a checkpoint and its proof need less than {REQUEST_LIMIT} bytes")
        connection = request.state.connection
        try:
            line = await anyio.to_thread.run_sync(party.audit.cosign, connection.issuer, bytes(body), limiter=limiter)
        except StaleHead as stale:
            return Response(f"{stale.size}\n", stale.status, media_type=SIZE_TYPE)
        except (MalformedNote, NoteNotSigned, UnknownLog, RewrittenLog) as error:
            current_request().is_audited = isinstance(error, RewrittenLog)  # with the head that contradicts
            return problem_body(error.status, error.code, str(error))
        connection.trust()
        return Response(line, media_type="text/plain")
