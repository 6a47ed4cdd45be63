"""Whom this party knows: whose envelopes it takes, whose servers it calls, and what goes out to each of them.

A peer is trusted when this party's operator has confirmed the six words of its enrolment (parties/enrolment.py), and
until it is removed. Being trusted opens the door and gives no other right: what a job may use is said by grants.
"""

import base64
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from parties.errors import EnvelopeRefused, PeerUnreachable, UnknownPeer, UnknownSender, UnreadableBody
from parties.own_keys import OwnKeys
from parties.server_certificate import OwnCertificate
from parties.storage.ledger import Ledger
from parties.storage.peer_store import REMOVED, TRUSTED, PeerStore, StoredPeer
from parties.storage.rotations import FormerKey
from parties.tls import Guest, Tls
from parties.trust.certificates import issuer_name
from parties.trust.errors import RotationRefused, WordsDiffer
from parties.trust.identity import Domain, Identity, IdentityKey
from parties.trust.invitation import check_address, read_packed, same_words
from parties.trust.leaves import Event
from parties.trust.rotation import OVERLAP_SECONDS, SignedRotation, new_rotations
from parties.trust.shown_certificate import NONCE_BYTES, SignedCertificate
from parties.wire.envelopes import Envelope
from parties.wire.outbox import Outbox
from parties.wire.rate_limit import Quota
from parties.wire.receipts import Receipt
from parties.wire.transport import (
    ENVELOPES,
    SHORTEST_EXCHANGE_SECONDS,
    WITNESS_ROUTE,
    Answer,
    HttpTransport,
    Transport,
    TransportFailedError,
)
from vfl.errors import JobError
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

_LOG = logging.getLogger("parties")


class OutboxHearing(NamedTuple):
    """Who hears what becomes of what was said to a peer (Outbox)."""

    on_lost: Callable[[PartyId, str, int | None, JobError], None]
    on_received: Callable[[PartyId, str], None]
    clock: Callable[[], float]


class Peers:
    """Safe for several threads."""

    def __init__(
        self,
        keys: OwnKeys,
        store: PeerStore,
        timeout_seconds: float,
        hearing: OutboxHearing,
        ledger: Ledger,
        connect: Callable[[PartyId], Transport] | None = None,
        own_certificate: OwnCertificate | None = None,
    ) -> None:
        """`connect` answers how a trusted peer is reached, where not by its address; `own_certificate` is shown on the
        peer port instead of one that the identity key issues."""
        self.own_keys, self._store, self._ledger = keys, store, ledger
        self._timeout, self._hearing, self._connect = timeout_seconds, hearing, connect or self._connect_by_address
        self.have_addresses = connect is None
        self._witnesses: dict[PartyId, Transport] = {}
        self._known = {peer.name: peer for peer in store.all()}
        self._lock = threading.RLock()
        self.tls = Tls(keys, self.get, self._trusted, self._guests, own_certificate)
        self._outboxes = {name: self._open_outbox(name) for name, peer in self._known.items() if peer.is_trusted}
        self._quotas: dict[PartyId, Quota] = {}

    @property
    def identity(self) -> Identity:
        """This party's own, as it is now."""
        return self.own_keys.current

    @property
    def outboxes(self) -> Mapping[PartyId, Outbox]:
        """To every trusted peer, as they are now."""
        return MappingProxyType(self._outboxes)

    def all(self) -> list[StoredPeer]:
        return sorted(self._known.values(), key=lambda peer: peer.name)

    def get(self, name: PartyId) -> StoredPeer:
        """Raises UnknownPeer."""
        peer = self._known.get(name)
        if peer is None:
            raise UnknownPeer(f"{self.own_keys.name} knows no party {name!r}")
        return peer

    def quota(self, name: PartyId) -> Quota:
        """Of the jobs that it proposes."""
        return self._quotas.setdefault(name, Quota())

    def check_reach(self, spec: JobSpec) -> None:
        """Ask each peer of a job whether it is there; so many the job can do without may be away.

        Raises PeerUnreachable.
        """
        spare = len(spec.parties) - spec.minimum_parties
        for peer in spec.peers_of(self.own_keys.name):
            try:
                self._outboxes[peer].check()
            except PeerUnreachable:
                spare -= 1
                if spare < 0 or peer in spec.required_parties:
                    raise

    # Who speaks

    def check_sender(self, envelope: Envelope) -> None:
        """Raises UnknownSender, in the same words whatever is wrong: a stranger learns nothing of whom we know."""
        header = envelope.header
        # (4) the sender is a trusted peer, and the key one of its own
        key = next((key for key in self.keys_of(header.sender) if key.digest == header.key), None)
        # (5) the signature over the header
        if key is None or not key.verifies(Domain.ENVELOPE, bytes(envelope.encoded), envelope.signature):
            raise UnknownSender("the sender is not known here, or did not sign this envelope")

    def note_refusal(self, envelope: Envelope, code: str) -> bool:
        """Tell the audit log, if a peer has really signed the envelope; answers whether it has."""
        try:
            self.check_sender(envelope)
        except EnvelopeRefused:
            return False
        return self._ledger.refused_envelope(envelope, code)

    def keys_of(self, name: PartyId, at: float | None = None) -> tuple[IdentityKey, ...]:
        """Those of a trusted peer that count at this moment (Unix seconds; else now); none of anybody else."""
        peer = self._known.get(name)
        return peer.keys(time.time() if at is None else at) if peer is not None and peer.is_trusted else ()

    def issued_by(self, issuer: str) -> StoredPeer | None:
        """The trusted peer to whom a certificate of this issuer belongs."""
        now = time.time()
        return next((peer for peer in self._trusted() if issuer in map(issuer_name, peer.keys(now))), None)

    def name_of(self, issuer: str) -> PartyId:
        """The same of everybody who was ever enrolled here; empty for anybody else."""
        names = (peer.name for peer in self.all() if issuer in map(issuer_name, map(IdentityKey, peer.all_keys)))
        return next(names, "")

    def has_signed(self, name: PartyId, receipt: Receipt) -> bool:
        """Whether a peer acknowledges with its own signature what this party sent it."""
        statement, keys = receipt.statement(name, self.own_keys.name), self.get(name).keys(time.time())
        return any(key.verifies(Domain.RECEIPT, statement, receipt.signature) for key in keys)

    def sign_certificate(self, nonce: bytes) -> bytes:
        """What the peer port shows, by the key that issues what it shows else. Raises UnreadableBody."""
        if len(nonce) != NONCE_BYTES:
            raise UnreadableBody(f"a question about a certificate has {NONCE_BYTES} bytes")
        return msgspec.msgpack.encode(SignedCertificate.of(self.identity, nonce, self.tls.shown()))

    # Who comes and goes

    def put(self, peer: StoredPeer) -> None:
        """A peer as it is known from now on. Raises StorageFailed."""
        with self._lock:
            self._store.put(peer)
            self._take_up(peer.name)

    def meet(self, peer: StoredPeer, own_key: bytes) -> None:
        """The same for one that has been told this key of ours. Raises StorageFailed."""
        with self._lock:
            self.own_keys.note_pinned(peer.name, own_key)
            self.put(peer)

    def use_invitation(self, invitation: str, peer: StoredPeer, own_key: bytes) -> bool:
        """The same for one that answers an invitation, which is good once; False where it has been used."""
        with self._lock:
            self.own_keys.note_pinned(peer.name, own_key)
            is_good = self._store.use(invitation, peer)
            if is_good:
                self._take_up(peer.name)
            return is_good

    def confirm(self, name: PartyId, words: str) -> StoredPeer:
        """The operator says that both sides were shown the same words. Raises UnknownPeer, WordsDiffer."""
        with self._lock:
            peer = self.get(name)
            if peer.is_trusted and not peer.words:
                return peer
            if not peer.words:
                raise UnknownPeer(f"{name} has not met {self.own_keys.name} since it was removed")
            if not same_words(words, peer.words):
                raise WordsDiffer(f"these are not the words of {name}'s enrolment")
            trusted = msgspec.structs.replace(peer, state=TRUSTED, words="")
            self.put(trusted)
            self._tell(Event.PEER_ADDED, trusted)
            return trusted

    def move(self, name: PartyId, address: str) -> StoredPeer:
        """The same peer, with the same key, is reached elsewhere. Raises UnknownPeer, SettingsError."""
        check_address(address)
        with self._lock:
            moved = msgspec.structs.replace(self.get(name), address=address)
            self.put(moved)
            return moved

    def check(self, name: PartyId) -> None:
        """Ask its server whether it is there. Raises UnknownPeer, PeerUnreachable, PeerWireVersion, PeerMisnamed."""
        outbox = self._outboxes.get(self.get(name).name)
        if outbox is None:
            raise UnknownPeer(
                f"{name} is not trusted by {self.own_keys.name}",
                fix="Confirm its six words with `vfl peer confirm`, or enrol it again.",
            )
        outbox.check()

    def remove(self, name: PartyId) -> StoredPeer:
        """From now on it is a stranger; its keys are kept, so that what it signed can be verified. Raises
        UnknownPeer."""
        with self._lock:
            self._store.end_former(name)
            removed = msgspec.structs.replace(self.get(name), state=REMOVED, words="")
            self.put(removed)
            self._tell(Event.PEER_REMOVED, removed)
            return removed

    def follow(self, name: PartyId, rotations: Sequence[SignedRotation]) -> StoredPeer:
        """A peer says that other keys follow the one that is pinned of it. Raises RotationRefused, UnknownPeer,
        StorageFailed."""
        with self._lock:
            peer = self.get(name)
            believed = {former.key: former.signed for former in peer.former}
            try:
                new = new_rotations(name, peer.key, believed, rotations)
            except RotationRefused as error:
                self._ledger.refused(name, error.code, rule=error.rule)
                raise
            for signed in new:
                peer = self._follow(peer, signed)
            return peer

    def _follow(self, peer: StoredPeer, signed: SignedRotation) -> StoredPeer:
        rotation, now = signed.read(), time.time()
        until = min(rotation.made_at, now) + OVERLAP_SECONDS
        former = FormerKey(key=peer.key, cosigning_key=peer.cosigning_key, until=until, signed=signed)
        self._store.follow(msgspec.structs.replace(peer, key=rotation.new, cosigning_key=rotation.cosigning), former)
        fingerprint = IdentityKey(rotation.new).fingerprint
        _LOG.warning("%s has a new identity key, as the one before has signed: %s", peer.name, fingerprint)
        return self._take_up(peer.name)

    def close(self) -> None:
        for outbox in list(self._outboxes.values()):
            outbox.close()
        for witness in list(self._witnesses.values()):
            witness.close()

    def _tell(self, event: Event, peer: StoredPeer) -> None:
        self._ledger.tell(event, peer=peer.name, key=base64.b64encode(peer.key).decode())
        self._ledger.flush()

    def ask_witness(self, name: PartyId, request: bytes) -> Answer:
        """What a peer says that is asked to cosign the audit log. Raises TransportFailedError."""
        if not self.have_addresses:
            raise TransportFailedError("it has no address")
        with self._lock:
            if name not in self._witnesses:
                self._witnesses[name] = self._connect_by_address(name, WITNESS_ROUTE)
        return self._witnesses[name].post([request])

    def _open_outbox(self, name: PartyId) -> Outbox:
        return Outbox(
            name,
            self._connect(name),
            self._timeout,
            partial(self._hearing.on_lost, name),
            partial(self._hearing.on_received, name),
            partial(self.has_signed, name),
            self._ledger,
            self._hearing.clock,
        )

    def _connect_by_address(self, name: PartyId, route: str = ENVELOPES) -> Transport:
        seconds = max(self._timeout, SHORTEST_EXCHANGE_SECONDS)
        context, learn = partial(self.tls.client, name), partial(self.tls.learn, name)
        return HttpTransport(lambda: self.get(name).address, context, seconds, route, learn)

    def _trusted(self) -> list[StoredPeer]:
        return [peer for peer in list(self._known.values()) if peer.is_trusted]

    def _guests(self) -> list[Guest]:
        opened = self._store.invitations(time.time())
        return [Guest(read_packed(each.packed).entry_issuer, each.expires_at) for each in opened]

    def _take_up(self, name: PartyId) -> StoredPeer:
        """As it is stored from now on."""
        peer = self._known[name] = self._store.get(name)
        self.tls.forget(peer.name)
        if peer.is_trusted and peer.name not in self._outboxes:
            self._outboxes = {**self._outboxes, peer.name: self._open_outbox(peer.name)}
        elif not peer.is_trusted and peer.name in self._outboxes:
            closed = self._outboxes[peer.name]
            self._outboxes = {name: outbox for name, outbox in self._outboxes.items() if name != peer.name}
            threading.Thread(target=closed.close, daemon=True).start()
        return peer
