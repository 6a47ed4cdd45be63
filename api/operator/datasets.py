"""Routes about data sets: add a table, list what was added, its profile, take it away."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import anyio
import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from api.operator.description import refusals
from api.operator.schemas import Asked, NoticeBody, body_of
from parties.party import Party
from parties.storage.datasets import StoredDataset
from parties.tables.addition import Addition
from parties.tables.mock import mock_table
from parties.tables.profile import ColumnProfile
from parties.tables.text_format import StatedFormat, TextFormat

AT_ONCE = 2
"""Each may read a large table."""
LONGEST_TEXT, MOST_NAMES = 4096, 64
MOST_MOCK_ROWS, LARGEST_SEED = 100_000, (1 << 63) - 1

R = TypeVar("R")
Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Names = Annotated[list[Text], Field(max_length=MOST_NAMES)]


class DatasetAsked(Asked):
    name: Text
    """What specifications call it."""
    source: Text
    """Path of a CSV, Parquet or Arrow file, relative to the party's folder or absolute; with a query, the URL of its
    database: sqlite:////folder/file.db or postgresql://user@host/name."""
    query: Text = ""
    """An SQL query; its answer is kept as the table."""
    id: Names
    """The column of ids, or several that make an id together."""
    label: Text = ""
    """A column that no job may take as an input."""
    encoding: Text | None = None
    separator: Text | None = None
    quote: Text | None = None
    decimal: Literal[".", ","] | None = None
    """How a CSV file is written; what is left out is found."""
    missing: Names | None = None
    """Words that stand for an empty cell; left out: those that are found."""
    replace: bool = False
    """Put it in place of a data set of that name."""


class DatasetBody(BaseModel):
    name: str
    source: str
    id: list[str]
    label: str
    text: body_of(TextFormat) | None  # type: ignore[valid-type]
    """How its CSV file is read; null for other files."""
    missing: list[str]
    database: str
    """Whose answer to `query` the file holds; empty for other files. Its password is not kept."""
    query: str
    digest: str
    """SHA-256 of the file when it was added."""
    rows: int
    columns: int
    notices: list[NoticeBody]
    """What was guessed, and what is worth a look."""
    added_at: str


class DatasetsBody(BaseModel):
    datasets: list[DatasetBody]


class ProfileBody(BaseModel):
    name: str
    rows: int
    columns: list[body_of(ColumnProfile)]  # type: ignore[valid-type]


def datasets_router(party: Party) -> APIRouter:
    router = APIRouter()
    limiter, catalogue = anyio.CapacityLimiter(AT_ONCE), party.catalogue

    async def off_loop(task: Callable[[], R]) -> R:
        return await anyio.to_thread.run_sync(task, limiter=limiter)

    @router.get("/datasets", responses=refusals())
    async def datasets() -> DatasetsBody:
        return DatasetsBody(datasets=[_dataset(each) for each in await off_loop(catalogue.all)])

    @router.post("/datasets", status_code=201, responses=refusals(404, 409, 507))
    async def add(asked: DatasetAsked) -> DatasetBody:
        def examined() -> StoredDataset:
            stated = StatedFormat(
                encoding=asked.encoding, separator=asked.separator, quote=asked.quote, decimal=asked.decimal
            )
            missing = None if asked.missing is None else tuple(asked.missing)
            addition = Addition(
                source=asked.source,
                id=tuple(asked.id),
                query=asked.query,
                label=asked.label,
                stated=stated,
                missing=missing,
            )
            return catalogue.add(asked.name, addition, replace=asked.replace)

        return _dataset(await off_loop(examined))

    @router.get("/datasets/{name}", responses=refusals(404))
    async def dataset(name: str) -> DatasetBody:
        return _dataset(await off_loop(partial(catalogue.get, name)))

    @router.delete("/datasets/{name}", responses=refusals(404, 507))
    async def remove(name: str) -> DatasetBody:
        return _dataset(await off_loop(partial(catalogue.remove, name)))

    @router.get("/datasets/{name}/profile", response_model=ProfileBody, responses=refusals(404))
    async def profile(name: str) -> Any:
        return {"name": name, **msgspec.to_builtins((await off_loop(partial(catalogue.get, name))).profile)}

    @router.get(
        "/datasets/{name}/mock",
        response_class=Response,
        responses=refusals(404) | {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
    )
    async def mock(
        name: str,
        rows: Annotated[int, Query(ge=1, le=MOST_MOCK_ROWS)] = 1000,
        seed: Annotated[int, Query(ge=0, le=LARGEST_SEED)] = 0,
    ) -> Response:
        def made() -> str:
            stored = catalogue.get(name)
            return mock_table(stored.registered, stored.profile, rows, seed).write_csv()

        return Response(await off_loop(made), media_type="text/csv")

    return router


def _dataset(stored: StoredDataset) -> DatasetBody:
    return DatasetBody(
        name=stored.name,
        digest=stored.digest,
        rows=stored.profile.rows,
        columns=len(stored.profile.columns),
        notices=msgspec.to_builtins(stored.notices),
        added_at=stored.added_at,
        **msgspec.to_builtins(stored.registered),
    )
