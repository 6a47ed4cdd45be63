"""Routes about consent: grants, the decision about a job that waits for it, its summary, and the ledger."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import anyio
import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.operator.description import refusals
from api.operator.schemas import Asked, JobBody, body_of
from parties.party import Party
from parties.storage.grants import StoredGrant
from parties.storage.lifetime import LedgerLine
from parties.trust.grants import DEFAULT_DAYS, MOST_DAYS, PURPOSE_LETTERS
from parties.trust.summary import Section

AT_ONCE = 4
REASON_LIMIT = 500
MOST = 1 << 62
"""Of a number in a grant; what the database can count to."""

R = TypeVar("R")
Count = Annotated[int, Field(ge=0, le=MOST)]


class Terms(Asked):
    """What a grant allows beyond the job that it is made for; a term that is left out stays as narrow as that job."""

    others: list[str] | None = None
    columns: list[str] | None = None
    purpose: Annotated[str | None, Field(max_length=PURPOSE_LETTERS)] = None
    """Empty for every purpose."""
    maximum_epochs: Count | None = None
    minimum_rows: Count | None = None
    maximum_opened_values: Count | None = None
    maximum_rho: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None


class GrantAsked(Asked):
    spec: str = ""
    """A job specification as TOML text that the grants are to cover; or else"""
    job: str = ""
    """a job that was proposed to this party."""
    days: Annotated[int, Field(ge=1, le=MOST_DAYS)] = DEFAULT_DAYS
    uses: Annotated[int, Field(ge=1, le=MOST)] | Literal["standing"] = 1
    terms: Terms = Terms()


class GrantBody(BaseModel):
    id: str
    owner: str
    peer: str
    others: list[str]
    other_keys: dict[str, str]
    dataset: str
    dataset_digest: str
    columns: list[str]
    label: str
    purpose: str
    protocol: str
    scheme: str
    maximum_epochs: int
    minimum_rows: int
    maximum_opened_values: int
    maximum_rho: float
    created_at: str
    expires_at: str
    uses: int | Literal["standing"]
    used: int
    """How many jobs it has approved."""
    revoked_at: str | None


class GrantsBody(BaseModel):
    grants: list[GrantBody]


class Decision(Asked):
    reason: Annotated[str, Field(max_length=REASON_LIMIT)] = ""
    """Stored with the decision; of a rejection also read by the coordinator."""


class SummaryBody(BaseModel):
    job: str
    sections: list[body_of(Section)]  # type: ignore[valid-type]
    text: str
    """The same for a terminal of 80 columns."""


class LedgerBody(BaseModel):
    maximum_rho: float
    """The cap of every column with every peer, over the life of a file."""
    lines: list[body_of(LedgerLine)]  # type: ignore[valid-type]


def grants_router(party: Party) -> APIRouter:
    router = APIRouter()
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def off_loop(task: Callable[[], R]) -> R:
        return await anyio.to_thread.run_sync(task, limiter=limiter)

    _add_grants(router, party, off_loop)
    _add_decisions(router, party, off_loop)
    return router


def _add_grants(router: APIRouter, party: Party, off_loop: Any) -> None:
    @router.get("/grants", responses=refusals())
    async def grants() -> GrantsBody:
        return GrantsBody(grants=[_grant(each) for each in await off_loop(party.consent.grants)])

    @router.post("/grants", status_code=201, responses=refusals(404, 409, 507))
    async def grant(asked: GrantAsked) -> GrantsBody:
        terms = asked.terms.model_dump(exclude_none=True)
        changes = {name: tuple(value) if isinstance(value, list) else value for name, value in terms.items()}

        def make() -> list[StoredGrant]:
            request = party.request(asked.spec, asked.job)
            return party.consent.grant(request, days=asked.days, uses=asked.uses, changes=changes)

        return GrantsBody(grants=[_grant(each) for each in await off_loop(make)])

    @router.delete("/grants/{grant_id}", responses=refusals(404, 507))
    async def revoke(grant_id: str) -> GrantBody:
        return _grant(await off_loop(partial(party.consent.revoke, grant_id)))


def _add_decisions(router: APIRouter, party: Party, off_loop: Any) -> None:
    @router.post("/jobs/{job}/approve", response_model=JobBody, responses=refusals(404, 409, 507))
    async def approve(job: str, decision: Decision) -> Any:
        return msgspec.to_builtins(await off_loop(partial(party.approve, job, decision.reason)))

    @router.post("/jobs/{job}/reject", response_model=JobBody, responses=refusals(404, 409, 507))
    async def reject(job: str, decision: Decision) -> Any:
        return msgspec.to_builtins(await off_loop(partial(party.reject, job, decision.reason)))

    @router.get("/jobs/{job}/summary", response_model=SummaryBody, responses=refusals(404, 409))
    async def summary(job: str) -> Any:
        await off_loop(partial(party.job, job))
        made = await off_loop(partial(party.consent.summary, job))
        return msgspec.to_builtins(made) | {"text": made.text()}

    @router.get("/ledger", response_model=LedgerBody, responses=refusals())
    async def ledger() -> Any:
        lines = msgspec.to_builtins(await off_loop(party.consent.accounts))
        return {"maximum_rho": party.settings.acceptance.maximum_rho, "lines": lines}


def _grant(stored: StoredGrant) -> GrantBody:
    terms = msgspec.to_builtins(stored.grant)
    for left_out in ("version", "created", "expires"):
        del terms[left_out]
    return GrantBody(
        created_at=_time(stored.grant.created),
        expires_at=_time(stored.grant.expires),
        used=stored.used,
        revoked_at=None if stored.revoked is None else _time(stored.revoked),
        **terms,
    )


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
