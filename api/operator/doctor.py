"""Routes of `vfl doctor`: the own server's half, and what it finds of a peer and on the way to it."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import anyio
from fastapi import APIRouter
from pydantic import BaseModel

from api.operator.description import refusals
from api.operator.schemas import Asked
from api.release import RELEASE
from parties.doctor.findings import Finding
from parties.doctor.job import JobCheck
from parties.doctor.peer import PeerCheck
from parties.doctor.server import server
from parties.party import Party

AT_ONCE = 2

R = TypeVar("R")


class FindingBody(BaseModel):
    area: str
    """`own machine`, `own server`, `network`, `peer` or `job`."""
    check: str
    result: str
    """`ok`, `warning`, `failed` or `not checked`."""
    side: str
    """Where it is put right: `here`, the peer's name, or `between`."""
    text: str
    fix: str


class AskedJob(Asked):
    spec: str
    """TOML."""


class FindingsBody(BaseModel):
    findings: list[FindingBody]


def doctor_router(party: Party) -> APIRouter:
    router = APIRouter()
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def off_loop(task: Callable[[], R]) -> R:
        return await anyio.to_thread.run_sync(task, limiter=limiter)

    @router.get("/doctor", responses=refusals())
    async def own_half() -> FindingsBody:
        return _body(
            await off_loop(lambda: server(party.folder, party.settings, party.peers, party.audit.witnesses(), RELEASE))
        )

    @router.post("/doctor/{peer}/job", responses=refusals(413))
    async def of_job(peer: str, asked: AskedJob) -> FindingsBody:
        check = JobCheck(party.peers, peer, party.resolved, party.readiness)
        return _body(await off_loop(partial(check.findings, asked.spec)))

    @router.post("/doctor/{peer}", responses=refusals())
    async def of_peer(peer: str) -> FindingsBody:
        check = PeerCheck(party.peers, peer, party.settings.server.told_address, RELEASE)
        return _body(await off_loop(check.findings))

    return router


def _body(findings: Iterable[Finding]) -> FindingsBody:
    return FindingsBody(
        findings=[
            FindingBody(
                area=each.area, check=each.check, result=each.result, side=each.side, text=each.text, fix=each.fix
            )
            for each in findings
        ]
    )
