"""What another party can reach: one POST for envelopes, hello, checks, the meeting of an enrolment, a witness, new
keys, and which certificate this port shows."""

from collections.abc import Callable
from typing import TypeVar

import anyio
import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.errors import answer_http_error, answer_job_error
from api.limits import BodyLimit
from api.peer.certificate import add_certificate
from api.peer.check import add_check
from api.peer.known import KnownOnly
from api.peer.refusals import AuditedRefusals
from api.peer.rotation import add_rotation
from api.peer.witness import add_witness
from api.request_log import current_request
from parties.enrolment import ROUTE as ENROLMENT_ROUTE
from parties.party import Party
from parties.wire.envelopes import CONTROL_LIMIT, POST_LIMIT, WIRE_VERSION
from parties.wire.receipts import Reply
from vfl.errors import JobError

REQUESTS_AT_ONCE = 8

R = TypeVar("R")


def peer_app(party: Party) -> FastAPI:
    """Bytes in, receipts out; every check is the channel's."""
    app = FastAPI(title=f"{party.name}: peers", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(BodyLimit, limit_bytes=POST_LIMIT, whole_bodies=False)
    app.add_middleware(KnownOnly, party=party)
    app.add_middleware(AuditedRefusals, party=party)
    app.add_exception_handler(JobError, answer_job_error)
    app.add_exception_handler(HTTPException, answer_http_error)
    limiter = anyio.CapacityLimiter(REQUESTS_AT_ONCE)

    async def off_loop(task: Callable[[], R]) -> R:
        return await anyio.to_thread.run_sync(task, limiter=limiter)

    @app.post("/peer/v1/envelopes")
    async def envelopes(request: Request) -> Response:
        post = party.open_post()
        try:
            async for piece in request.stream():
                if post.add(piece):
                    await off_loop(post.act)
            answer = await off_loop(post.end)
        except ClientDisconnect:  # it tries again; nobody reads this answer
            return Response(status_code=400)
        finally:
            post.close()
        reply = msgspec.json.decode(answer.body, type=Reply)
        current_request().refusal, current_request().is_audited = reply.code, post.is_audited
        if reply.receipts and not reply.code and (connection := getattr(request.state, "connection", None)) is not None:
            connection.trust()
        return Response(answer.body, answer.status, media_type="application/json")

    @app.get("/peer/v1/hello")
    async def hello() -> dict[str, str | int]:
        return {"wire_version": WIRE_VERSION, "party": party.name}

    _add_meeting(app, party, limiter)
    add_check(app, party)
    add_witness(app, party, limiter)
    add_rotation(app, party, limiter)
    add_certificate(app, party, limiter)
    return app


def _add_meeting(app: FastAPI, party: Party, limiter: anyio.CapacityLimiter) -> None:
    @app.post(ENROLMENT_ROUTE)
    async def enrolment(request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > CONTROL_LIMIT:
                raise HTTPException(413, f"a meeting needs less than {CONTROL_LIMIT} bytes")
        issuer = request.state.connection.issuer
        answer = await anyio.to_thread.run_sync(party.enrolment.hear, bytes(body), issuer, limiter=limiter)
        return Response(answer, media_type="application/octet-stream")
