"""Routes about models and what they score: list, one of them, to take away and to bring back, the scores of a
prediction, and a session that scores what is asked for."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import anyio
import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from api.errors import InvalidRequest
from api.operator.description import refusals
from api.operator.schemas import Asked, JobBody, body_of
from parties.jobs.scoring_session import Prediction, Wanted
from parties.party import Party
from parties.storage.scores import as_rows
from parties.storage.trained_models import TrainedModel
from vfl.requests import MOST_ROWS
from vfl.spec.prediction import MOST_DECIMALS

AT_ONCE, ASKED_AT_ONCE = 2, 16
"""Of the first each may read a large file; the others wait for a session."""
LONGEST_PATH = 4096

R = TypeVar("R")
ModelBody = body_of(TrainedModel)


class ModelsBody(BaseModel):
    models: list[ModelBody]  # type: ignore[valid-type]


IdOfRow = str | list[str]
"""As it is written in the label party's file; a list where several columns make it."""
PredictionBody = body_of(Prediction)


class OwnRow(Asked):
    id: IdOfRow
    columns: dict[str, Annotated[float, Field(strict=True)] | str | None]
    """Every column of this party that the model takes; null is an empty cell."""


class PredictionRequest(Asked):
    ids: list[IdOfRow] = Field(default=[], max_length=MOST_ROWS)
    """Rows of the session, with the values of its data set."""
    rows: list[OwnRow] = Field(default=[], max_length=MOST_ROWS)
    """Or rows of it with other values of this party's columns."""
    job: str = ""
    """The session, where several of the model are open."""

    def wanted(self) -> list[Wanted]:
        """Raises InvalidRequest."""
        if bool(self.ids) == bool(self.rows):
            raise InvalidRequest("body: give either `ids` or `rows`, and at least one")
        by_id = [Wanted(_parts(each)) for each in self.ids]
        return by_id or [Wanted(_parts(each.id), each.columns) for each in self.rows]


class ImportAsked(Asked):
    folder: str = Field(max_length=LONGEST_PATH)
    """Of an exported half, on the machine of the server; relative to the party's folder, or absolute."""


class ScoresBody(BaseModel):
    job: str
    rows: list[dict[str, str | float | None]]
    """Of each row its ids and its scores, under the names of their columns; null for a row without a score."""


class OwnColumnsAsked(Asked):
    dataset: str = Field(max_length=LONGEST_PATH)
    """Of this party, with the new rows."""
    decimals: int = Field(default=4, ge=0, le=MOST_DECIMALS)


class OwnColumnsScoresBody(BaseModel):
    model: str
    basis: Literal["own_columns_only"]
    """Not a joint score: no peer was asked."""
    rows: list[dict[str, str | float | None]]
    """Of each row its ids, and `own_columns_score`, or `own_columns_score_CLASS` for each class."""


def models_router(party: Party) -> APIRouter:
    router = APIRouter()
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def off_loop(task: Callable[[], R]) -> R:
        return await anyio.to_thread.run_sync(task, limiter=limiter)

    _add_models(router, party, off_loop)
    _add_session(router, party)
    _add_scores(router, party, off_loop)
    return router


def _add_models(router: APIRouter, party: Party, off_loop: Any) -> None:
    @router.get("/models", response_model=ModelsBody, responses=refusals())
    async def models() -> Any:
        return {"models": msgspec.to_builtins(await off_loop(party.models.all))}

    @router.post("/models", status_code=201, response_model=ModelBody, responses=refusals(409, 507))
    async def bring_back(asked: ImportAsked) -> Any:
        folder = party.folder / asked.folder
        return msgspec.to_builtins(await off_loop(partial(party.models.import_half, folder)))

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


def _add_session(router: APIRouter, party: Party) -> None:
    limiter = anyio.CapacityLimiter(ASKED_AT_ONCE)

    async def off_loop(task: Callable[[], R]) -> R:
        return await anyio.to_thread.run_sync(task, limiter=limiter)

    @router.post(
        "/models/{training}/predictions", response_model=PredictionBody, responses=refusals(400, 404, 408, 409, 413)
    )
    async def predict(training: str, asked: PredictionRequest) -> Any:
        task = partial(party.predict, training, asked.wanted(), asked.job)
        return msgspec.to_builtins(await off_loop(task))

    @router.post("/jobs/{job}/end", response_model=JobBody, responses=refusals(404, 409))
    async def end_session(job: str) -> Any:
        return msgspec.to_builtins(await off_loop(partial(party.end_session, job)))


def _add_scores(router: APIRouter, party: Party, off_loop: Any) -> None:
    @router.post(
        "/models/{training}/own-columns-scores",
        response_model=OwnColumnsScoresBody,
        responses=refusals(404, 507) | {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
    )
    async def own_columns_scores(
        training: str, asked: OwnColumnsAsked, form: Annotated[Literal["csv", "json"], Query()] = "json"
    ) -> Any:
        table = await off_loop(partial(party.own_columns_scores.table, training, asked.dataset, asked.decimals))
        if form == "csv":
            return Response(table, media_type="text/csv")
        return {"model": training, "basis": "own_columns_only", "rows": await off_loop(partial(as_rows, table))}

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


def _parts(name: IdOfRow) -> tuple[str, ...]:
    return (name,) if isinstance(name, str) else tuple(name)
