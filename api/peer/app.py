"""What another party can reach: one POST for envelopes, and hello."""

from functools import partial

import anyio
import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.errors import answer_http_error
from api.limits import BodyLimit
from api.loopback import LoopbackOnly
from api.request_log import current_request
from parties.channel import POST_LIMIT, WIRE_VERSION
from parties.courier import Reply
from parties.party import Party

REQUESTS_AT_ONCE = 8


def peer_app(party: Party) -> FastAPI:
    """Bytes in, receipts out; every check is the channel's."""
    app = FastAPI(title=f"{party.name}: peers", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(BodyLimit, limit_bytes=POST_LIMIT)
    app.add_middleware(LoopbackOnly)
    app.add_exception_handler(HTTPException, answer_http_error)
    limiter = anyio.CapacityLimiter(REQUESTS_AT_ONCE)

    @app.post("/peer/v1/envelopes")
    async def envelopes(request: Request) -> Response:
        try:
            post = await request.body()
        except ClientDisconnect:  # it tries again; nobody reads this answer
            return Response(status_code=400)
        answer = await anyio.to_thread.run_sync(partial(party.deliver, post), limiter=limiter)
        reply = msgspec.json.decode(answer.body, type=Reply)
        current_request().refusal = reply.code
        if reply.receipts and not reply.code and (connection := getattr(request.state, "connection", None)) is not None:
            connection.trust()
        return Response(answer.body, answer.status, media_type="application/json")

    @app.get("/peer/v1/hello")
    async def hello() -> dict[str, str | int]:
        return {"wire_version": WIRE_VERSION, "party": party.name}

    return app
