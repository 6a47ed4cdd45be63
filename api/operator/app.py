"""The control API: jobs, their events, health and version. Every route but health asks for the operator's token."""

import hashlib
import hmac
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any, TypeVar

import anyio
import msgspec
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.errors import Unauthorised, answer_bad_request, answer_bug, answer_http_error, answer_job_error
from api.limits import BodyLimit
from api.loopback import LoopbackOnly
from api.operator.schemas import EventsBody, HealthBody, JobBody, JobsBody, Submission, VersionBody
from parties.channel import WIRE_VERSION
from parties.party import Party
from vfl.errors import JobError

BODY_LIMIT = 1 << 20
LONGEST_WAIT_SECONDS = 25.0
LAST_EVENT = (1 << 63) - 1
"""What the database can count to."""
REQUESTS_AT_ONCE, WATCHERS_AT_ONCE = 8, 32
DISTRIBUTION = "vertical-federated-learning"

R = TypeVar("R")


def operator_app(party: Party, token_hash: bytes) -> FastAPI:
    """`token_hash` is the SHA-256 of the operator's token."""
    # The interactive pages would load scripts of another host; the description itself stands behind the token.
    app = FastAPI(
        title=f"{party.name}: control API",
        version=version(DISTRIBUTION),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.add_middleware(BodyLimit, limit_bytes=BODY_LIMIT)
    app.add_middleware(LoopbackOnly)
    app.add_exception_handler(JobError, answer_job_error)
    app.add_exception_handler(RequestValidationError, answer_bad_request)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(Exception, answer_bug)

    async def authorised(authorization: Annotated[str, Header()] = "") -> None:
        scheme, _, token = authorization.partition(" ")
        given = hashlib.sha256(token.strip().encode()).digest()
        if not hmac.compare_digest(given, token_hash) or scheme.lower() != "bearer":
            raise Unauthorised(f"the token for {party.name} is missing or wrong")

    app.include_router(_health(party))
    app.include_router(_jobs(party), prefix="/v1", dependencies=[Depends(authorised)])

    @app.get("/openapi.json", include_in_schema=False, dependencies=[Depends(authorised)])
    async def description() -> dict[str, Any]:
        return app.openapi()

    return app


def _health(party: Party) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> HealthBody:
        return HealthBody(status="ok", party=party.name)

    return router


def _jobs(party: Party) -> APIRouter:
    router = APIRouter()
    requests = anyio.CapacityLimiter(REQUESTS_AT_ONCE)
    # Whoever waits for events holds a thread of its own kind, so that waiting never keeps a request or a peer out.
    watchers = anyio.CapacityLimiter(WATCHERS_AT_ONCE)

    async def off_loop(task: Callable[[], R], limiter: anyio.CapacityLimiter = requests) -> R:
        return await anyio.to_thread.run_sync(task, limiter=limiter)

    @router.get("/version")
    async def versions() -> VersionBody:
        return VersionBody(version=version(DISTRIBUTION), wire_version=WIRE_VERSION)

    @router.post("/jobs", status_code=202, response_model=JobBody)
    async def submit(
        submission: Submission, response: Response, idempotency_key: Annotated[str | None, Header()] = None
    ) -> Any:
        job = await off_loop(partial(party.submit, submission.spec, idempotency_key))
        response.headers["location"] = f"/v1/jobs/{job.id}"
        return msgspec.to_builtins(job)

    @router.get("/jobs", response_model=JobsBody)
    async def jobs() -> Any:
        return {"jobs": msgspec.to_builtins(await off_loop(party.jobs))}

    @router.get("/jobs/{job}", response_model=JobBody)
    async def show(job: str) -> Any:
        return msgspec.to_builtins(await off_loop(partial(party.job, job)))

    @router.get("/jobs/{job}/events", response_model=EventsBody)
    async def events(
        job: str,
        after: Annotated[int, Query(ge=0, le=LAST_EVENT)] = 0,
        wait_seconds: Annotated[float, Query(ge=0, le=LONGEST_WAIT_SECONDS)] = 0,
    ) -> Any:
        found = await off_loop(partial(party.events, job, after, wait_seconds), watchers)
        state = (await off_loop(partial(party.job, job))).state
        last = found[-1].number if found else after
        return {"events": msgspec.to_builtins(found), "last": last, "state": state}

    @router.post("/jobs/{job}/cancel", response_model=JobBody)
    async def cancel(job: str) -> Any:
        return msgspec.to_builtins(await off_loop(partial(party.cancel, job)))

    return router
