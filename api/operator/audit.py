"""Routes for the audit log of this party: its head, its entries, a proof for one of them, a bundle for an auditor."""

import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import IO, Annotated, Any, TypeVar

import anyio
import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import PlainTextResponse, StreamingResponse
from pydantic import BaseModel

from api.operator.description import refusals
from parties.party import Party

AT_ONCE = 4
ENTRIES_IN_A_PAGE, MOST_ENTRIES_IN_A_PAGE = 100, 1000
LAST_ENTRY = (1 << 63) - 1
PIECE_BYTES = 1 << 20

R = TypeVar("R")


class WitnessBody(BaseModel):
    name: str
    url: str
    cosigned: int
    """How many entries the newest head counts that it has cosigned."""
    problem: str
    """Why it has not cosigned a newer one; empty where nothing is wrong."""
    contradicts: bool
    """Whether it has cosigned another log than there is here: then no new job begins."""


class HeadBody(BaseModel):
    size: int
    """How many entries the log has."""
    root: str
    """Of the hash tree over them, hex."""
    checkpoint: str
    """The same, signed by this party: a signed note (c2sp.org/tlog-checkpoint)."""
    key: str
    """That signs heads of this log, as a witness needs it: a verifier key (c2sp.org/signed-note)."""
    cosigned: dict[str, int]
    """By trusted peer: how many entries the newest head counts that it has cosigned."""
    witnesses: list[WitnessBody]
    """Those that party.toml names."""


class EnvelopeBody(BaseModel):
    sender: str
    receiver: str
    kind: str
    attempt: int
    sequence: int
    part: int
    parts: int
    body_bytes: int
    body_digest: str
    digest: str
    """SHA-256 of the header as it travelled, hex."""


class EntryBody(BaseModel):
    index: int
    time: str
    event: str
    job: str
    peer: str
    detail: dict[str, str | int]
    envelope: EnvelopeBody | None
    hash: str
    """Of the leaf (RFC 6962), hex."""


class EntriesBody(BaseModel):
    entries: list[EntryBody]
    next: int
    """`after` of the page that follows."""


class ZipResponse(StreamingResponse):
    media_type = "application/zip"


def audit_router(party: Party) -> APIRouter:
    router = APIRouter(prefix="/audit")
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def off_loop(task: Callable[[], R]) -> R:
        return await anyio.to_thread.run_sync(task, limiter=limiter)

    @router.get("/head", response_model=HeadBody, responses=refusals(507))
    async def head() -> Any:
        return msgspec.to_builtins(await off_loop(party.audit.head))

    @router.get("/entries", response_model=EntriesBody, responses=refusals(507))
    async def entries(
        after: Annotated[int, Query(ge=0, le=LAST_ENTRY)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_ENTRIES_IN_A_PAGE)] = ENTRIES_IN_A_PAGE,
    ) -> Any:
        page = await off_loop(partial(party.audit.entries, after, limit))
        return {"entries": msgspec.to_builtins(page), "next": after + len(page)}

    @router.get("/proof/{index}", response_class=PlainTextResponse, responses=refusals(404, 507))
    async def proof(index: int) -> str:
        return await off_loop(partial(party.audit.proof, index))

    @router.get("/bundle", response_class=ZipResponse, responses=refusals(507))
    async def bundle() -> ZipResponse:
        return ZipResponse(_pieces(await off_loop(lambda: _zipped(party.audit.bundle()))))

    return router


def _zipped(files: dict[str, bytes]) -> IO[bytes]:
    """In a temporary file without a name, so that a bundle has no second place in memory."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it has been sent
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    file.seek(0)
    return file


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(PIECE_BYTES):
            yield piece
