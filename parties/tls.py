"""What this party's server and its calls show and trust in TLS, asked anew for every connection."""

import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from parties.own_keys import OwnKeys
from parties.server_certificate import OwnCertificate
from parties.storage.peer_store import StoredPeer
from parties.trust.certificates import (
    Leaf,
    OwnChain,
    client_context,
    first_of,
    issue_leaf,
    server_context,
    unverified_context,
)
from parties.trust.identity import IdentityKey
from parties.trust.shown_certificate import NONCE_BYTES, LearnedCertificate, read_answer
from parties.wire.transport import CERTIFICATE_ROUTE, HttpTransport, TransportFailedError
from vfl.spec.sections import PartyId

LEARNED_SECONDS = 3600.0
"""So long a certificate counts that a peer has signed; then it is asked again, as the certificate may be replaced."""
LEARNING_SECONDS = 4.0


class Guest(NamedTuple):
    """Whoever has read an open invitation."""

    key: IdentityKey
    """It issues the certificate that the guest shows."""
    until: float
    """Unix seconds."""


class _Context(NamedTuple):
    context: ssl.SSLContext
    good_until: float
    """Unix seconds: then a key counts no more."""

    @property
    def is_good(self) -> bool:
        return time.time() < self.good_until


class _Learned(NamedTuple):
    certificate: LearnedCertificate
    until: float
    """Unix seconds."""


class Tls:
    """Safe for several threads."""

    def __init__(
        self,
        keys: OwnKeys,
        peer: Callable[[PartyId], StoredPeer],
        trusted: Callable[[], Iterable[StoredPeer]],
        guests: Callable[[], Iterable[Guest]],
        own: OwnCertificate | None = None,
    ) -> None:
        """What `peer`, `trusted` and `guests` answer may change: `forget` is called after that. `own` is shown by the
        server; calls show what the identity key has issued, so that each peer knows in the handshake who calls."""
        self._keys, self._peer, self._trusted, self._guests, self._own = keys, peer, trusted, guests, own
        self._lock = threading.Lock()
        self._leaf = issue_leaf(keys.current.private, keys.name)
        self._server: _Context | None = None
        self._shown: Leaf | OwnChain = self._leaf
        """By that server."""
        self._clients: dict[PartyId, _Context] = {}
        self._learned: dict[PartyId, _Learned] = {}

    def server(self) -> ssl.SSLContext:
        """For the next connection to the peer port: trusted peers, and whoever has read an open invitation."""
        with self._lock:
            shown = self._present()
            if self._server is None or not self._server.is_good or shown is not self._shown:
                now, peers, guests = time.time(), list(self._trusted()), list(self._guests())
                keys = [key for peer in peers for key in peer.keys(now)]
                context = server_context(shown, [*keys, *(guest.key for guest in guests)])
                ends = [*_ends(peers, now), *(guest.until for guest in guests)]
                self._server, self._shown = _Context(context, min(ends, default=float("inf"))), shown
            return self._server.context

    def shown(self) -> bytes:
        """The certificate (DER) of the peer port."""
        with self._lock:
            return first_of(self._present().pem)

    def client(self, name: PartyId) -> ssl.SSLContext:
        """For calls to this peer, which opens its door to the key of ours that it pins. Raises UnknownPeer."""
        with self._lock:
            self._renew_when_due()
            current = self._clients.get(name)
            if current is None or not current.is_good:
                current = self._clients[name] = self._client(name, self._keys.last_leaf(name) or self._leaf)
            return current.context

    def client_with_present_key(self, name: PartyId) -> ssl.SSLContext:
        """The same, for a peer that may have heard of the present key although it could not say so."""
        with self._lock:
            return self._client(name, self._leaf).context

    def learn(self, name: PartyId) -> bool:
        """Ask a peer that shows an unknown certificate which one it is; answers whether one is known now that the peer
        has signed. Raises UnknownPeer."""
        with self._lock:
            peer, present, last = self._peer(name), self._leaf, self._keys.last_leaf(name)
        for leaf in [present] if last is None else [last, present]:
            learned = learned_certificate(peer.address, leaf, peer.keys(time.time()))
            if learned is not None:
                with self._lock:
                    self._learned[name] = _Learned(learned, time.time() + LEARNED_SECONDS)
                    self._clients.pop(name, None)
                return True
        return False

    @property
    def ends_at(self) -> datetime:
        """Of this party's own certificate."""
        with self._lock:
            self._renew_when_due()
            return self._leaf.ends_at

    def renew(self) -> None:
        """Show a certificate of the present key."""
        with self._lock:
            self._renew()

    def forget(self, name: PartyId = "") -> None:
        """Who is trusted has changed, or which of our keys the named peer pins."""
        with self._lock:
            self._server = None
            self._clients.pop(name, None)

    def _client(self, name: PartyId, leaf: Leaf) -> _Context:
        now, peer = time.time(), self._peer(name)
        keys, ends, signed = peer.keys(now), _ends([peer], now), b""
        learned = self._learned.get(name)
        if learned is not None and now < learned.until and learned.certificate.key in keys:
            signed = learned.certificate.der
            ends.append(learned.until)
        return _Context(client_context(leaf, keys, signed), min(ends, default=float("inf")))

    def _present(self) -> Leaf | OwnChain:
        """What the peer port shows from now on."""
        self._renew_when_due()
        return self._own.chain if self._own is not None else self._leaf

    def _renew_when_due(self) -> None:
        if self._leaf.is_due:
            self._renew()

    def _renew(self) -> None:
        self._leaf, self._server = issue_leaf(self._keys.current.private, self._keys.name), None
        self._clients.clear()


def learned_certificate(address: str, leaf: Leaf, keys: Sequence[IdentityKey]) -> LearnedCertificate | None:
    """What the server at this address says that it shows; None where none of these keys has signed that."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    transport = HttpTransport(lambda: address, lambda: unverified_context(leaf), LEARNING_SECONDS, CERTIFICATE_ROUTE)
    try:
        learned = read_answer(transport.post([nonce]).body, nonce, keys)
        if learned is not None:
            client_context(leaf, keys, learned.der)  # raises SSLError for what is no certificate
    except (TransportFailedError, ssl.SSLError):
        return None
    else:
        return learned
    finally:
        transport.close()


def _ends(peers: Iterable[StoredPeer], now: float) -> list[float]:
    """When keys end that still count beside those that follow them."""
    return [former.until for peer in peers for former in peer.former if former.until > now]
