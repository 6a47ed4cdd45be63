"""Routes about models and what they have scored: list, one of them, to take away, the scores of a prediction."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import anyio
import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from api.operator.description import refusals
from api.operator.schemas import body_of
from parties.party import Party
from parties.storage.scores import as_rows
from parties.storage.trained_models import TrainedModel

AT_ONCE = 2
"""Each may read a large file."""

R = TypeVar("R")
ModelBody = body_of(TrainedModel)


class ModelsBody(BaseModel):
    models: list[ModelBody]  # type: ignore[valid-type]


class ScoresBody(BaseModel):
    job: str
    rows: list[dict[str, str | float | None]]
    """Of each row its ids and its scores, under the names of their columns; null for a row without a score."""


def models_router(party: Party) -> APIRouter:
    router = APIRouter()
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def off_loop(task: Callable[[], R]) -> R:
        return await anyio.to_thread.run_sync(task, limiter=limiter)

    @router.get("/models", response_model=ModelsBody, responses=refusals())
    async def models() -> Any:
        return {"models": msgspec.to_builtins(await off_loop(party.models.all))}

    @router.get("/models/{training}", response_model=ModelBody, responses=refusals(404))
    async def model(training: str) -> Any:
        return msgspec.to_builtins(await off_loop(partial(party.models.get, training)))

    @router.get(
        "/models/{training}/archive",
        response_class=Response,
        responses=refusals(404)
        | {200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}},
    )
    async def archive(training: str) -> Response:
        return Response(await off_loop(partial(party.models.archive, training)), media_type="application/zip")

    @router.get(
        "/jobs/{job}/scores",
        response_model=ScoresBody,
        responses=refusals(404) | {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
    )
    async def scores(job: str, form: Annotated[Literal["csv", "json"], Query()] = "csv") -> Any:
        table = await off_loop(partial(party.scores, job))
        if form == "csv":
            return Response(table, media_type="text/csv")
        return {"job": job, "rows": await off_loop(partial(as_rows, table))}

    return router
