"""Routes for this party's identity key: what it is, who knows it, and a new one."""

import base64
import time
from datetime import UTC, datetime
from functools import partial

import anyio
from fastapi import APIRouter
from pydantic import BaseModel

from api.operator.description import refusals
from parties.party import Party


class FormerKeyBody(BaseModel):
    fingerprint: str
    until: str
    """So long it counts beside the present key, here and at peers that know the present one."""


class KnowsBody(BaseModel):
    name: str
    knows: bool
    """Whether it pins the present key. Else it is told as soon as it can be reached."""
    problem: str
    """What the last try to tell it met; empty where it knows, or was not tried."""


class KeyBody(BaseModel):
    party: str
    fingerprint: str
    key: str
    """Base64 of its 32 bytes, as `vfl audit verify --key` takes it."""
    former: list[FormerKeyBody]
    """Keys before it that still count, the newest first."""
    peers: list[KnowsBody]
    """Trusted peers."""


class RotatedBody(KeyBody):
    withdrawn: list[str]
    """For whom an invitation was open, which named the old key."""


def keys_router(party: Party) -> APIRouter:
    router, limiter = APIRouter(), anyio.CapacityLimiter(1)

    @router.get("/key", responses=refusals())
    async def key() -> KeyBody:
        return _key(party)

    @router.post("/key/rotate", responses=refusals(507))
    async def rotate() -> RotatedBody:
        withdrawn = await anyio.to_thread.run_sync(partial(party.key_rotation.rotate), limiter=limiter)
        return RotatedBody(**_key(party).model_dump(), withdrawn=withdrawn)

    return router


def _key(party: Party) -> KeyBody:
    own, now = party.own_keys, time.time()
    return KeyBody(
        party=own.name,
        fingerprint=own.current.key.fingerprint,
        key=base64.b64encode(own.current.key.raw).decode(),
        former=[
            FormerKeyBody(
                fingerprint=former.identity_key.fingerprint,
                until=datetime.fromtimestamp(former.until, UTC).isoformat(timespec="seconds"),
            )
            for former in own.former
            if now < former.until
        ],
        peers=[
            KnowsBody(
                name=peer.name, knows=own.is_known_to(peer.name), problem=party.key_rotation.problem_with(peer.name)
            )
            for peer in party.peers.all()
            if peer.is_trusted
        ],
    )
