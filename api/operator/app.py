"""The control API: jobs, their events, health and version. Every route but health asks for the operator's token."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar

import anyio
import msgspec
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Response, Security
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.browser_guard import BrowserGuard
from api.errors import answer_bad_request, answer_bug, answer_http_error, answer_job_error
from api.limits import BodyLimit
from api.operator.audit import audit_router
from api.operator.datasets import datasets_router
from api.operator.description import LOGIN, describe, known_parameters_only, refusals
from api.operator.doctor import doctor_router
from api.operator.estimates import estimates_router
from api.operator.grants import grants_router
from api.operator.keys import keys_router
from api.operator.models import models_router
from api.operator.peers import peers_router
from api.operator.progress import progress
from api.operator.schemas import EventsBody, HealthBody, JobBody, JobsBody, ReportBody, Submission, VersionBody
from api.operator.token import TokenRequired
from api.release import RELEASE
from parties.party import JOBS_IN_A_PAGE, Party
from parties.wire.envelopes import WIRE_VERSION
from vfl.errors import JobError
from vfl.notices import Notice

BODY_LIMIT = 1 << 20
LONGEST_WAIT_SECONDS = 25.0
MOST_JOBS_IN_A_PAGE = 200
LAST_EVENT = (1 << 63) - 1
"""What the database can count to."""
SUBMITS_AT_ONCE, READS_AT_ONCE, CANCELS_AT_ONCE, WATCHERS_AT_ONCE = 4, 8, 8, 32
"""Threads of their own each: a submit waits for peers, and nobody who looks or cancels may wait for it."""

R = TypeVar("R")


def operator_app(party: Party, token_hash: bytes) -> FastAPI:
    """`token_hash` is the SHA-256 of the operator's token."""
    # The interactive pages would load scripts of another host; the description itself stands behind the token.
    app = FastAPI(
        title=f"{party.name}: control API",
        version=RELEASE,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.add_middleware(BodyLimit, limit_bytes=BODY_LIMIT)
    app.add_middleware(TokenRequired, party=party.name, token_hash=token_hash)
    app.add_middleware(BrowserGuard)
    app.add_exception_handler(JobError, answer_job_error)
    app.add_exception_handler(RequestValidationError, answer_bad_request)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(Exception, answer_bug)

    # The token itself is asked for earlier; here the description says so.
    app.include_router(_health(party), dependencies=[Depends(known_parameters_only)])
    app.include_router(_jobs(party), prefix="/v1", dependencies=[Depends(known_parameters_only), Security(LOGIN)])

    routers = (
        peers_router,
        keys_router,
        datasets_router,
        models_router,
        grants_router,
        doctor_router,
        estimates_router,
    )
    for router in (make(party) for make in routers):
        app.include_router(router, prefix="/v1", dependencies=[Depends(known_parameters_only), Security(LOGIN)])

    app.include_router(
        audit_router(party), prefix="/v1", dependencies=[Depends(known_parameters_only), Security(LOGIN)]
    )

    @app.get("/openapi.json", include_in_schema=False)
    async def description() -> dict[str, Any]:
        return describe(app)

    return app


def _health(party: Party) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz", responses=refusals())
    async def healthz() -> HealthBody:
        return HealthBody(status="ok", party=party.name)

    return router


def _jobs(party: Party) -> APIRouter:
    router = APIRouter()
    submits, reads, cancels, watchers = map(
        anyio.CapacityLimiter, (SUBMITS_AT_ONCE, READS_AT_ONCE, CANCELS_AT_ONCE, WATCHERS_AT_ONCE)
    )

    async def off_loop(task: Callable[[], R], limiter: anyio.CapacityLimiter = reads) -> R:
        return await anyio.to_thread.run_sync(task, limiter=limiter)

    @router.get("/version", responses=refusals())
    async def versions() -> VersionBody:
        return VersionBody(version=RELEASE, wire_version=WIRE_VERSION)

    @router.post(
        "/jobs", status_code=202, response_model=JobBody, responses=refusals(400, 404, 408, 409, 413, 502, 507)
    )
    async def submit(
        submission: Submission, response: Response, idempotency_key: Annotated[str | None, Header()] = None
    ) -> Any:
        guesses = msgspec.convert([notice.model_dump() for notice in submission.notices], list[Notice])
        job = await off_loop(partial(party.submit, submission.spec, idempotency_key, guesses), submits)
        response.headers["location"] = f"/v1/jobs/{job.id}"
        return msgspec.to_builtins(job)

    @router.get("/jobs", response_model=JobsBody, responses=refusals(404))
    async def jobs(
        limit: Annotated[int, Query(ge=1, le=MOST_JOBS_IN_A_PAGE)] = JOBS_IN_A_PAGE,
        after: Annotated[str, Query()] = "",
    ) -> Any:
        listed = await off_loop(partial(party.jobs, limit + 1, after))
        page = listed[:limit]
        return {"jobs": msgspec.to_builtins(page), "next": page[-1].id if len(listed) > limit else None}

    @router.get("/jobs/{job}", response_model=JobBody, responses=refusals(404))
    async def show(job: str) -> Any:
        return msgspec.to_builtins(await off_loop(partial(party.job, job)))

    @router.get("/jobs/{job}/events", response_model=EventsBody, responses=refusals(404))
    async def events(
        job: str,
        after: Annotated[int, Query(ge=0, le=LAST_EVENT)] = 0,
        wait_seconds: Annotated[float, Query(ge=0, le=LONGEST_WAIT_SECONDS)] = 0,
    ) -> Any:
        new_events = await off_loop(partial(party.events, job, after, wait_seconds), watchers)
        state = (await off_loop(partial(party.job, job))).state
        last = new_events[-1].number if new_events else after
        return {"events": msgspec.to_builtins(new_events), "last": last, "state": state}

    @router.get("/jobs/{job}/report", response_model=ReportBody, responses=refusals(404))
    async def report(job: str) -> Any:
        measured = await off_loop(partial(progress, party, job))
        return {"job": msgspec.to_builtins(await off_loop(partial(party.job, job))), "progress": measured}

    _add_stops(router, party, partial(off_loop, limiter=cancels))
    return router


def _add_stops(router: APIRouter, party: Party, off_loop: Any) -> None:
    @router.post("/jobs/{job}/pause", response_model=JobBody, responses=refusals(404, 409, 507))
    async def pause(job: str) -> Any:
        return msgspec.to_builtins(await off_loop(partial(party.pause, job)))

    @router.post("/jobs/{job}/resume", response_model=JobBody, responses=refusals(404, 409, 507))
    async def resume(job: str) -> Any:
        return msgspec.to_builtins(await off_loop(partial(party.resume, job)))

    @router.post("/jobs/{job}/cancel", response_model=JobBody, responses=refusals(404))
    async def cancel(job: str) -> Any:
        return msgspec.to_builtins(await off_loop(partial(party.cancel, job)))
