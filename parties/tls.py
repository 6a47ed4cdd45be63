"""What this party's server and its calls show and trust in TLS, asked anew for every connection."""

import ssl
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import NamedTuple

from parties.own_keys import OwnKeys
from parties.storage.peer_store import StoredPeer
from parties.trust.certificates import client_context, issue_leaf, server_context
from parties.trust.identity import IdentityKey
from vfl.spec.sections import PartyId


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


class Tls:
    """Safe for several threads."""

    def __init__(
        self,
        keys: OwnKeys,
        peer: Callable[[PartyId], StoredPeer],
        trusted: Callable[[], Iterable[StoredPeer]],
        guests: Callable[[], Iterable[Guest]],
    ) -> None:
        """What the last three answer may change: `forget` is called after that."""
        self._keys, self._peer, self._trusted, self._guests = keys, peer, trusted, guests
        self._lock = threading.Lock()
        self._leaf = issue_leaf(keys.current.private, keys.name)
        self._server: _Context | None = None
        self._clients: dict[PartyId, _Context] = {}

    def server(self) -> ssl.SSLContext:
        """For the next connection to the peer port: trusted peers, and whoever has read an open invitation."""
        with self._lock:
            self._renew_when_due()
            if self._server is None or not self._server.is_good:
                now, peers, guests = time.time(), list(self._trusted()), list(self._guests())
                keys = [key for peer in peers for key in peer.keys(now)]
                context = server_context(self._leaf, [*keys, *(guest.key for guest in guests)])
                ends = [*_ends(peers, now), *(guest.until for guest in guests)]
                self._server = _Context(context, min(ends, default=float("inf")))
            return self._server.context

    def client(self, name: PartyId) -> ssl.SSLContext:
        """For calls to this peer, which opens its door to the key of ours that it pins. Raises UnknownPeer."""
        with self._lock:
            self._renew_when_due()
            current = self._clients.get(name)
            if current is None or not current.is_good:
                now, peer = time.time(), self._peer(name)
                context = client_context(self._keys.last_leaf(name) or self._leaf, peer.keys(now))
                current = self._clients[name] = _Context(context, min(_ends([peer], now), default=float("inf")))
            return current.context

    def client_with_present_key(self, name: PartyId) -> ssl.SSLContext:
        """The same, for a peer that may have heard of the present key although it could not say so."""
        with self._lock:
            return client_context(self._leaf, self._peer(name).keys(time.time()))

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

    def _renew_when_due(self) -> None:
        if self._leaf.is_due:
            self._renew()

    def _renew(self) -> None:
        self._leaf, self._server = issue_leaf(self._keys.current.private, self._keys.name), None
        self._clients.clear()


def _ends(peers: Iterable[StoredPeer], now: float) -> list[float]:
    """When keys end that still count beside those that follow them."""
    return [former.until for peer in peers for former in peer.former if former.until > now]
