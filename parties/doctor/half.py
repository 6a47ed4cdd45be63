"""The peer's half: what it answers a trusted peer that asks how things look from its side.

    asks      a nonce, whether the peer should call back, and padding, which a proxy on the way may not let through
    answers   its clock, its versions, how many bytes came, and what its call back met; signed by its identity key

It calls back once, within a few seconds, at the address that its own operator has of the one who asks, and at no other.
"""

import threading
import time
from typing import Annotated

import msgspec

from parties.doctor.call import Blocked, Call
from parties.doctor.errors import TooManyChecks
from parties.errors import UnreadableBody
from parties.peers import Peers
from parties.storage.peer_store import StoredPeer
from parties.trust.identity import Domain, IdentityKey
from parties.wire.envelopes import WIRE_VERSION
from parties.wire.rate_limit import Quota
from vfl.spec.sections import PartyId

ROUTE = "/peer/v1/check"
NONCE_BYTES = 16
QUESTION_LIMIT = (8 << 20) + 1024
CHECKS, CHECKS_PER_SECOND = 30, 0.5
CALL_BACK_SECONDS = 5.0
OPEN_WAY = "open"


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nonce: Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    calls_back: bool = False
    padding: bytes = b""


class View(msgspec.Struct, frozen=True):
    """How it looks from the peer's side. It is answered to trusted peers only, so it being there says that much."""

    nonce: bytes
    party: PartyId
    asked_by: PartyId
    time: float
    """Unix seconds by the peer's clock."""
    release: str
    wire_version: int
    received_bytes: int
    address: str
    """Where the peer calls the one who asks."""
    way_back: str = ""
    """`open`, or the name of an obstacle (obstacles.py); empty where it was not asked to call back."""


class SignedView(msgspec.Struct, frozen=True):
    view: bytes
    signature: bytes

    def read(self, key: IdentityKey) -> View | None:
        """None where this key has not signed it."""
        if not key.verifies(Domain.CHECK, self.view, self.signature):
            return None
        return msgspec.msgpack.decode(self.view, type=View)


class PeersHalf:
    """Answers peers. Safe for several threads."""

    def __init__(self, peers: Peers, release: str) -> None:
        self._peers, self._release = peers, release
        self._quotas: dict[PartyId, Quota] = {}
        self._lock = threading.Lock()

    def answer(self, body: bytes, asking: StoredPeer) -> bytes:
        """Raises UnreadableBody."""
        try:
            question = msgspec.msgpack.decode(body, type=Question)
        except msgspec.DecodeError:
            raise UnreadableBody("this is no question of a check") from None
        way_back = self._call_back(asking) if question.calls_back else ""
        identity = self._peers.identity
        view = msgspec.msgpack.encode(
            View(
                question.nonce,
                identity.name,
                asking.name,
                time.time(),
                self._release,
                WIRE_VERSION,
                len(body),
                asking.address,
                way_back,
            )
        )
        return msgspec.msgpack.encode(SignedView(view, identity.sign(Domain.CHECK, view)))

    def admit(self, asking: StoredPeer) -> None:
        """Before its question is read. Raises TooManyChecks."""
        with self._lock:
            quota = self._quotas.setdefault(asking.name, Quota(CHECKS, CHECKS_PER_SECOND))
            if not quota.take():
                raise TooManyChecks(f"{asking.name} asks {self._peers.identity.name} for checks too often")

    def _call_back(self, asking: StoredPeer) -> str:
        try:
            with Call(asking.address, self._peers.client_context(asking.name), CALL_BACK_SECONDS) as call:
                call.greet(asking.name)
        except Blocked as blocked:
            return str(blocked.obstacle.value)
        return OPEN_WAY
