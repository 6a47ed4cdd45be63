"""What a job would take, told to this party's operator before anybody proposes it."""

from functools import partial
from typing import Any

import anyio
import msgspec
from fastapi import APIRouter
from pydantic import Field

from api.operator.description import refusals
from api.operator.schemas import Asked, body_of
from parties.estimates.estimate import Estimate
from parties.party import Party


class EstimateAsked(Asked):
    spec: str
    """A job specification as TOML text."""
    rows: int | None = Field(default=None, ge=1)
    """Of every table, its own too; by default its own are read, and a peer's are taken to be as many."""
    together: bool = False
    """Whether all parties run on this machine, as in a demonstration."""


EstimateBody = body_of(Estimate)


def estimates_router(party: Party) -> APIRouter:
    router = APIRouter()
    limiter = anyio.CapacityLimiter(1)  # two that measure at once would disturb each other

    @router.post("/estimates", response_model=EstimateBody, responses=refusals(400, 404, 408, 409, 413, 507))
    async def estimate(asked: EstimateAsked) -> Any:
        task = partial(party.estimator.estimate, asked.spec, asked.rows, together=asked.together)
        return msgspec.to_builtins(await anyio.to_thread.run_sync(task, limiter=limiter))

    return router
