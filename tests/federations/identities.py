"""Parties of tests: a key that follows from the name, and peers that know each other without an enrolment."""

import hashlib
import re
import shutil
import ssl
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from parties.settings import SETTINGS_FILE, init_party, save_identity
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


@cache
def _made(name: str) -> "tempfile.TemporaryDirectory[str]":
    made = tempfile.TemporaryDirectory()
    init_party(Path(made.name), name, operator_port=1, peer_port=2)
    give_identity(Path(made.name), name)
    return made


def init_known_party(folder: Path, name: str, *, operator_port: int, peer_port: int) -> Path:
    """What `vfl party init` leaves, of the party that its peers know by this name; answers the path of party.toml.

    It is made once for each name: to close a key behind a passphrase takes long on purpose.
    """
    shutil.copytree(_made(name).name, folder, dirs_exist_ok=True)
    path = folder / SETTINGS_FILE
    text = path.read_text()
    for key, port in (("operator_port", operator_port), ("peer_port", peer_port)):
        text, count = re.subn(rf"^{key} = \d", f"{key} = {port}", text, flags=re.MULTILINE)
        assert count == 1
    path.write_text(text)
    return path


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
