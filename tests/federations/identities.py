"""Parties of tests: a key that follows from the name, and peers that know each other without an enrolment."""

import hashlib
import ssl
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from parties.settings import save_identity
from parties.storage.engine import Database
from parties.storage.peer_store import TRUSTED, PeerStore, StoredPeer
from parties.trust.certificates import Leaf, client_context, issue_leaf, server_context
from parties.trust.contract import Signed, sign
from parties.trust.identity import Identity
from parties.wire.transport import EXCHANGE_SECONDS, HttpTransport


@cache
def identity_of(name: str) -> Identity:
    return Identity(name, Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"test {name}".encode()).digest()))


def peer_named(name: str, address: str = "127.0.0.1:9") -> StoredPeer:
    identity = identity_of(name)
    cosigning = identity.cosigning.public_key().public_bytes_raw()
    return StoredPeer(name=name, address=address, key=identity.key.raw, cosigning_key=cosigning, state=TRUSTED)


def acquaint(folder: Path, addresses: Mapping[str, str], database_url: str = "") -> None:
    """The party of this folder trusts these peers, at these addresses."""
    database = Database(folder, url=database_url)
    store = PeerStore(database)
    for name, address in addresses.items():
        store.put(peer_named(name, address))
    database.close()


def give_identity(folder: Path, name: str) -> None:
    """The party of this folder is the one its peers know by this name."""
    save_identity(folder, identity_of(name))


def signed_by(name: str, job: str, spec_digest: bytes) -> Signed:
    """The signature of a party of tests under the contract of a job."""
    return sign(identity_of(name), job, spec_digest)


def tls_of(caller: str, called: str) -> ssl.SSLContext:
    """What a party of tests uses to call another."""
    return client_context(_leaf(caller), (identity_of(called).key,))


def tls_at(called: str, *callers: str) -> ssl.SSLContext:
    """What a party of tests listens with."""
    return server_context(_leaf(called), [identity_of(caller).key for caller in callers])


def transport_to(address: str, seconds: float = EXCHANGE_SECONDS) -> HttpTransport:
    """Party a calls party b there."""
    context = tls_of("a", "b")
    return HttpTransport(lambda: address, lambda: context, seconds)


@cache
def _leaf(name: str) -> Leaf:
    return issue_leaf(identity_of(name).private, name)
