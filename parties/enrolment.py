"""Two servers meet because one operator gave the other an invitation (its steps: parties/trust/invitation.py)."""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from functools import partial

import msgspec

from parties.errors import PeerMisnamed, SettingsError
from parties.peers import Peers
from parties.storage.database import now
from parties.storage.peer_store import TRUSTED, WAITING, OpenInvitation, PeerStore, StoredPeer
from parties.tls import learned_certificate
from parties.trust.certificates import Leaf, client_context, issue_leaf, issuer_name
from parties.trust.errors import EnrolmentFailed, InvitationExpired, PeerAlreadyKnown
from parties.trust.identity import Domain, Identity, IdentityKey
from parties.trust.invitation import (
    DEFAULT_HOURS,
    LONGEST_HOURS,
    NONCE_BYTES,
    Hello,
    Invitation,
    check_address,
    entry_key,
    is_address,
    new_invitation,
    read_line,
    read_packed,
    six_words,
)
from parties.wire.envelopes import UNREADABLE
from parties.wire.transport import HttpTransport, Transport, TransportFailedError
from vfl.spec.sections import PARTY_ID, PartyId

ROUTE = "/peer/v1/enrolment"
MEETING_SECONDS = 10.0
TRIES = 5
"""So often an invitation may be answered before it is finished or no longer good."""
UNKNOWN_ID = "the invitation is not open: it was used, withdrawn, or is past its time"


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """A Hello with the signature of the key it names."""

    hello: bytes
    signature: bytes


class Revealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """The nonce whose digest the invited party has said before."""

    invitation: str
    nonce: bytes


class _Meeting(msgspec.Struct, frozen=True):
    """What the inviter has heard and answered, until the nonce comes."""

    invited: Hello
    nonce: bytes


class Enrolment:
    """Safe for several threads."""

    def __init__(self, peers: Peers, store: PeerStore, address: str) -> None:
        """`address` is where peers reach this party."""
        self._peers, self._store, self._address = peers, store, address
        self._meetings: dict[str, _Meeting] = {}
        self._tries: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def _me(self) -> Identity:
        return self._peers.identity

    # The party that invites

    def invite(self, name: PartyId, hours: float = DEFAULT_HOURS) -> Invitation:
        """An invitation for a party of this name. Raises PeerAlreadyKnown, SettingsError, StorageFailed."""
        if PARTY_ID.fullmatch(name) is None or name == self._me.name:
            raise SettingsError(
                f"{name!r} is not the name of another party",
                fix="Use the name in the other side's party.toml: lower-case letters, digits and hyphens.",
            )
        if not 0 < hours <= LONGEST_HOURS:
            raise SettingsError(
                f"an invitation is good for at most {LONGEST_HOURS} hours, not {hours:g}", fix="Name fewer hours."
            )
        self._check_new(name)
        invitation = new_invitation(self._me, self._address, hours)
        self._store.put_invitation(
            OpenInvitation(id=invitation.id, peer=name, packed=invitation.packed(), expires_at=invitation.expires_at)
        )
        self._peers.tls.forget()
        return invitation

    def open_invitations(self) -> list[OpenInvitation]:
        return self._store.invitations(time.time())

    def withdraw(self, name: PartyId) -> bool:
        """Whether there was an open invitation for this party."""
        invitations = [each.id for each in self.open_invitations() if each.peer == name]
        for each in invitations:
            self._store.withdraw(each)
        self._peers.tls.forget()
        return bool(invitations)

    def guest(self, issuer: str) -> OpenInvitation | None:
        """The open invitation whose reader shows a certificate of this issuer."""
        opened = self.open_invitations()
        return next((each for each in opened if issuer_name(read_packed(each.packed).entry_issuer) == issuer), None)

    def hear(self, body: bytes, issuer: str) -> bytes:
        """What the invited party's server says, and the answer to it. Raises InvitationExpired, EnrolmentFailed,
        PeerMisnamed, PeerAlreadyKnown."""
        opened = self.guest(issuer)
        if opened is None:
            raise InvitationExpired(UNKNOWN_ID)
        invitation = read_packed(opened.packed)
        try:
            message = msgspec.msgpack.decode(body, type=Signed | Revealed)
        except UNREADABLE as error:
            raise EnrolmentFailed("what the other server says cannot be read") from error
        with self._lock:
            if isinstance(message, Signed):
                return self._greet(opened, invitation, message)
            return self._finish(invitation, message)

    def _greet(self, opened: OpenInvitation, invitation: Invitation, message: Signed) -> bytes:
        self._tries[invitation.id] = self._tries.get(invitation.id, 0) + 1
        if self._tries[invitation.id] > TRIES:
            self._store.withdraw(invitation.id)
            self._peers.tls.forget()
            raise InvitationExpired("the invitation was answered too often, and is no longer good")
        invited = _verified(message, invitation)
        if invited.name != opened.peer:
            raise PeerMisnamed(f"the invitation is for a party named {opened.peer}, and {invited.name} answers it")
        self._check_new(invited.name, invited.key)
        nonce = secrets.token_bytes(NONCE_BYTES)
        self._meetings[invitation.id] = _Meeting(invited, nonce)
        return self._signed(self._hello(invitation, self._address, nonce))

    def _finish(self, invitation: Invitation, revealed: Revealed) -> bytes:
        meeting = self._meetings.pop(invitation.id, None)
        if meeting is None or hashlib.sha256(revealed.nonce).digest() != meeting.invited.nonce:
            raise EnrolmentFailed("the other server reveals another nonce than it had fixed")
        words = six_words(invitation, meeting.invited, (meeting.nonce, revealed.nonce))
        peer = _waiting(meeting.invited, words)
        if not self._peers.use_invitation(invitation.id, peer, invitation.key):
            raise InvitationExpired(UNKNOWN_ID)
        return b""

    # The party that is invited

    def accept(self, line: str, address: str = "") -> StoredPeer:
        """Meet the party that invites; its operator and ours then compare `words`. `address` is where the peer reaches
        this party. Raises InvitationUnreadable, InvitationExpired, PeerAlreadyKnown, EnrolmentFailed."""
        invitation = read_line(line)
        check_address(address or self._address)
        if invitation.name == self._me.name:
            raise SettingsError(
                f"the invitation is of a party named {invitation.name}, as this one is",
                fix="Accept it at the other party's server; two parties of one name cannot work together.",
            )
        self._check_new(invitation.name, invitation.key)
        transport = _transport(invitation, issue_leaf(entry_key(invitation.secret), self._me.name))
        try:
            return self._meet(invitation, partial(_exchange, transport, invitation), address or self._address)
        except EnrolmentFailed as error:
            if any((each.key, each.state) == (invitation.key, WAITING) for each in self._peers.all()):
                raise EnrolmentFailed(
                    f"{self._me.name} has met {invitation.name} already, and a line is good for one meeting: {error}",
                    safe=f"{invitation.name} waits for the six words to be confirmed.",
                    fix=f"`vfl peer confirm {invitation.name}` shows the words. If they differ there, invite again.",
                ) from error
            raise
        finally:
            transport.close()

    def _meet(self, invitation: Invitation, exchange: Callable[[bytes], bytes], address: str) -> StoredPeer:
        nonce = secrets.token_bytes(NONCE_BYTES)
        own = self._hello(invitation, address, hashlib.sha256(nonce).digest())
        try:
            answer = msgspec.msgpack.decode(exchange(self._signed(own)), type=Signed)
        except UNREADABLE as error:
            raise EnrolmentFailed(f"what answers at {invitation.address} is not a party") from error
        inviter = _verified(answer, invitation)
        if (inviter.key, inviter.name) != (invitation.key, invitation.name):
            raise EnrolmentFailed(f"what answers at {invitation.address} is not the party of the invitation")
        exchange(msgspec.msgpack.encode(Revealed(invitation.id, nonce)))
        peer = _waiting(inviter, six_words(invitation, own, (inviter.nonce, nonce)))
        peer = msgspec.structs.replace(peer, address=invitation.address)
        self._peers.meet(peer, own.key)
        return peer

    def _hello(self, invitation: Invitation, address: str, nonce: bytes) -> Hello:
        cosigning = self._me.cosigning.public_key().public_bytes_raw()
        return Hello(invitation.id, self._me.name, address, self._me.key.raw, cosigning, nonce)

    def _signed(self, hello: Hello) -> bytes:
        encoded = msgspec.msgpack.encode(hello)
        return msgspec.msgpack.encode(Signed(encoded, self._me.sign(Domain.ENROLMENT, encoded)))

    def _check_new(self, name: PartyId, key: bytes | None = None) -> None:
        """A trusted peer is never replaced by a stranger that has its name. Raises PeerAlreadyKnown."""
        stored = next((peer for peer in self._peers.all() if peer.name == name), None)
        if stored is not None and stored.state == TRUSTED and stored.key != key:
            raise PeerAlreadyKnown(f"{name} is a trusted peer of {self._me.name} already")


def _transport(invitation: Invitation, leaf: Leaf) -> Transport:
    """To the server of the party that invites, and to no other."""
    keys, signed = (IdentityKey(invitation.key),), [b""]

    def learn() -> bool:
        learned = learned_certificate(invitation.address, leaf, keys)
        if learned is not None:
            signed.append(learned.der)
        return learned is not None

    return HttpTransport(
        lambda: invitation.address, lambda: client_context(leaf, keys, signed[-1]), MEETING_SECONDS, ROUTE, learn
    )


def _exchange(transport: Transport, invitation: Invitation, body: bytes) -> bytes:
    try:
        answer = transport.post([body])
    except TransportFailedError as error:
        raise EnrolmentFailed(f"the server of {invitation.name} at {invitation.address}: {error}") from error
    if answer.status != 200:
        try:
            problem = msgspec.json.decode(answer.body, type=dict[str, str | int])
        except UNREADABLE:
            problem = {}
        text = str(problem.get("detail", f"it answered {answer.status}"))[:400]
        raise EnrolmentFailed(f"{invitation.name} did not take this party in: {text}")
    return answer.body


def _verified(message: Signed, invitation: Invitation) -> Hello:
    """Raises EnrolmentFailed."""
    try:
        hello = msgspec.msgpack.decode(message.hello, type=Hello)
        is_own = hello.identity_key.verifies(Domain.ENROLMENT, message.hello, message.signature)
        IdentityKey(hello.cosigning_key)
    except (*UNREADABLE, ValueError) as error:
        raise EnrolmentFailed("what the other server says of itself cannot be read") from error
    fits = PARTY_ID.fullmatch(hello.name) and is_address(hello.address) and len(hello.nonce) == NONCE_BYTES
    if not (is_own and fits and hello.invitation == invitation.id):
        raise EnrolmentFailed("what the other server says of itself does not fit its key or the invitation")
    return hello


def _waiting(hello: Hello, words: str) -> StoredPeer:
    return StoredPeer(
        name=hello.name,
        address=hello.address,
        key=hello.key,
        cosigning_key=hello.cosigning_key,
        state=WAITING,
        words=words,
        added_at=now(),
    )
