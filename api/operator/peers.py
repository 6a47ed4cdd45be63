"""Routes for the peers of this party: invite one, accept an invitation, confirm the words, look, remove."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.operator.description import refusals
from api.operator.schemas import Asked
from parties.party import Party
from parties.storage.peer_store import OpenInvitation, StoredPeer
from parties.trust.identity import IdentityKey
from parties.trust.invitation import DEFAULT_HOURS, LONGEST_HOURS

AT_ONCE = 4

R = TypeVar("R")
LINE_LIMIT, WORDS_LIMIT = 2000, 200


class InvitationAsked(Asked):
    peer: str
    """The name that the other side gave its party."""
    hours: Annotated[float, Field(gt=0, le=LONGEST_HOURS)] = DEFAULT_HOURS


class AcceptanceAsked(Asked):
    line: Annotated[str, Field(max_length=LINE_LIMIT)]
    """What `POST /v1/invitations` answered at the other side."""
    address: str = ""
    """HOST:PORT where that peer reaches this party; empty = `server.address` of party.toml."""


class WordsAsked(Asked):
    words: Annotated[str, Field(max_length=WORDS_LIMIT)]
    """The six words as the other operator has read them out."""


class AddressAsked(Asked):
    address: str


class InvitationBody(BaseModel):
    peer: str
    expires_at: str
    line: str | None
    """Shown once, when the invitation is made."""


class InvitationsBody(BaseModel):
    invitations: list[InvitationBody]


class PeerBody(BaseModel):
    name: str
    address: str
    state: str
    """`waiting` for this operator's yes to the words, `trusted`, or `removed`."""
    words: str
    """While it is waiting: the other side's operator must see the same six."""
    fingerprint: str
    """Of its identity key."""
    former_key_until: str
    """It has rotated its key, and the one before counts so long too; empty where none does."""
    added_at: str


class PeersBody(BaseModel):
    party: str
    fingerprint: str
    """Of this party's own identity key."""
    peers: list[PeerBody]


class CheckBody(BaseModel):
    peer: str
    answered: bool
    """Its server is there, and speaks as the party whose key is pinned; else the request is refused with the reason."""


def peers_router(party: Party) -> APIRouter:
    router = APIRouter()
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def off_loop(task: Callable[[], R]) -> R:
        return await anyio.to_thread.run_sync(task, limiter=limiter)

    _add_invitations(router, party, off_loop)
    _add_peers(router, party, off_loop)
    return router


def _add_peers(router: APIRouter, party: Party, off_loop: Any) -> None:
    @router.get("/peers", responses=refusals())
    async def peers() -> PeersBody:
        own = party.peers.identity
        return PeersBody(
            party=own.name, fingerprint=own.key.fingerprint, peers=[_peer(each) for each in party.peers.all()]
        )

    @router.post("/peers/{name}/confirm", responses=refusals(409, 507))
    async def confirm(name: str, asked: WordsAsked) -> PeerBody:
        return _peer(await off_loop(partial(party.peers.confirm, name, asked.words)))

    @router.post("/peers/{name}/address", responses=refusals(409, 507))
    async def move(name: str, asked: AddressAsked) -> PeerBody:
        return _peer(await off_loop(partial(party.peers.move, name, asked.address)))

    @router.post("/peers/{name}/check", responses=refusals(409, 502))
    async def check(name: str) -> CheckBody:
        await off_loop(partial(party.peers.check, name))
        return CheckBody(peer=name, answered=True)

    @router.delete("/peers/{name}", responses=refusals(409, 507))
    async def remove(name: str) -> PeerBody:
        return _peer(await off_loop(partial(party.remove_peer, name)))


def _add_invitations(router: APIRouter, party: Party, off_loop: Any) -> None:
    @router.get("/invitations", responses=refusals())
    async def invitations() -> InvitationsBody:
        opened = await off_loop(party.enrolment.open_invitations)
        return InvitationsBody(invitations=[_invitation(each) for each in opened])

    @router.post("/invitations", status_code=201, responses=refusals(409, 507))
    async def invite(asked: InvitationAsked) -> InvitationBody:
        made = await off_loop(partial(party.enrolment.invite, asked.peer, asked.hours))
        return InvitationBody(peer=asked.peer, expires_at=_time(made.expires_at), line=made.line())

    @router.delete("/invitations/{peer}", responses=refusals())
    async def withdraw(peer: str) -> dict[str, bool]:
        return {"withdrawn": await off_loop(partial(party.enrolment.withdraw, peer))}

    @router.post("/invitations/accept", responses=refusals(409, 502, 507))
    async def accept(asked: AcceptanceAsked) -> PeerBody:
        return _peer(await off_loop(partial(party.enrolment.accept, asked.line, asked.address)))


def _peer(peer: StoredPeer) -> PeerBody:
    return PeerBody(
        name=peer.name,
        address=peer.address,
        state=peer.state,
        words=peer.words,
        fingerprint=IdentityKey(peer.key).fingerprint,
        former_key_until=next((_time(int(key.until)) for key in peer.former if time.time() < key.until), ""),
        added_at=peer.added_at,
    )


def _invitation(opened: OpenInvitation) -> InvitationBody:
    return InvitationBody(peer=opened.peer, expires_at=_time(opened.expires_at), line=None)


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
