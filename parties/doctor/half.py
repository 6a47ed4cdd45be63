"""The peer's half: what it answers a trusted peer that asks how things look from its side.

    asks      a nonce, whether the peer should call back, padding, which a proxy on the way may not let through, and a
              specification, if it is about a job
    answers   its clock, its versions, how many bytes came, what its call back met, and what would come of the job;
              signed by its identity key

It calls back once, within a few seconds, at the address that its own operator has of the one who asks, and at no other.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import msgspec

from parties import limits
from parties.doctor.call import Blocked, Call, call_peer
from parties.doctor.errors import TooManyChecks
from parties.errors import UnreadableBody, printable
from parties.peers import Peers
from parties.readiness import Readiness
from parties.storage.peer_store import StoredPeer
from parties.trust.identity import Domain, IdentityKey
from parties.wire.envelopes import UNREADABLE, WIRE_VERSION
from parties.wire.rate_limit import Quota
from vfl.errors import JobError
from vfl.kinds import decode_spec
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

ROUTE = "/peer/v1/check"
NONCE_BYTES = 16
QUESTION_LIMIT = (8 << 20) + 1024
CHECKS, CHECKS_PER_SECOND = 30, 0.5
JOBS, JOBS_PER_SECOND = 10, 0.1
"""Of questions about a job."""
CALL_BACK_SECONDS = 5.0
OPEN_WAY = "open"

_LOG = logging.getLogger("parties")


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nonce: Annotated[bytes, msgspec.Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    calls_back: bool = False
    padding: bytes = b""
    spec: bytes = b""
    """Canonical bytes."""


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
    readiness: Readiness | None = None
    """Of the job it was asked about, as a peer may read it."""


class SignedView(msgspec.Struct, frozen=True):
    view: bytes
    signature: bytes

    def read(self, keys: Sequence[IdentityKey]) -> View | None:
        """None where none of these keys has signed it."""
        if not any(key.verifies(Domain.CHECK, self.view, self.signature) for key in keys):
            return None
        return msgspec.msgpack.decode(self.view, type=View)


class NoView(Exception):
    """There is no answer that counts; `status` is that of HTTP, 200 where the answer is not signed, or is another's."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def ask(
    call: Call,
    peer: StoredPeer,
    me: PartyId,
    seconds: float,
    *,
    calls_back: bool = False,
    padding: int = 0,
    spec: bytes = b"",
) -> View:
    """Raises Blocked, NoView."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    body = msgspec.msgpack.encode(Question(nonce, calls_back, secrets.token_bytes(padding), spec))
    answer = call.post(ROUTE, body, seconds)
    if answer.status != 200:
        raise NoView(answer.status)
    try:
        view = msgspec.msgpack.decode(answer.body, type=SignedView).read(peer.keys(time.time()))
    except UNREADABLE:
        view = None
    if view is None or (view.nonce, view.asked_by, view.received_bytes) != (nonce, me, len(body)):
        raise NoView(answer.status)
    return view


class PeersHalf:
    """Answers peers. Safe for several threads."""

    def __init__(self, peers: Peers, release: str, readiness: Callable[[JobSpec], Readiness]) -> None:
        self._peers, self._release, self._readiness = peers, release, readiness
        self._quotas: dict[PartyId, Quota] = {}
        self._job_quotas: dict[PartyId, Quota] = {}
        self._lock = threading.Lock()

    def answer(self, body: bytes, asking: StoredPeer) -> bytes:
        """Raises UnreadableBody, TooManyChecks."""
        try:
            question = msgspec.msgpack.decode(body, type=Question)
        except UNREADABLE:
            raise UnreadableBody("this is no question of a check") from None
        way_back = self._call_back(asking) if question.calls_back else ""
        identity = self._peers.own_keys.for_peer(asking.name)
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
                self._of_job(question.spec, asking) if question.spec else None,
            )
        )
        return msgspec.msgpack.encode(SignedView(view, identity.sign(Domain.CHECK, view)))

    def admit(self, asking: StoredPeer) -> None:
        """Before its question is read. Raises TooManyChecks."""
        with self._lock:
            quota = self._quotas.setdefault(asking.name, Quota(CHECKS, CHECKS_PER_SECOND))
            if not quota.take():
                raise TooManyChecks(f"{asking.name} asks {self._peers.identity.name} for checks too often")

    def _of_job(self, encoded: bytes, asking: StoredPeer) -> Readiness:
        """It reads a table, and tells what a proposal of the job would."""
        me = self._peers.identity.name
        try:
            spec = decode_spec(encoded)
            limits.check_limits(spec)
        except JobError as error:
            raise UnreadableBody(str(error)) from error
        if not {me, asking.name} <= set(spec.parties):
            raise UnreadableBody("both must be parties of the job")
        with self._lock:
            if not self._job_quotas.setdefault(asking.name, Quota(JOBS, JOBS_PER_SECOND)).take():
                raise TooManyChecks(f"{asking.name} asks {me} about jobs too often")
        readiness = self._readiness(spec).redacted_for_peer()
        verdict = readiness.failure.code if readiness.failure else "nothing refuses it"
        _LOG.info("%s asked whether the job %s could run: %s", asking.name, printable(spec.job.name), verdict)
        return readiness

    def _call_back(self, asking: StoredPeer) -> str:
        try:
            with call_peer(self._peers.tls, asking, CALL_BACK_SECONDS) as call:
                call.greet(asking.name)
        except Blocked as blocked:
            return str(blocked.obstacle.value)
        return OPEN_WAY
