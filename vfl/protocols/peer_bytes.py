"""Whose doing it is when bytes of a peer are refused."""

from collections.abc import Iterator
from contextlib import contextmanager

from crypto.errors import CryptoError
from vfl.errors import RemoteProtocolError
from vfl.spec.sections import PartyId


@contextmanager
def attributed_to(peer: PartyId) -> Iterator[None]:
    """What the gate refuses was sent by this peer."""
    try:
        yield
    except CryptoError as error:
        raise RemoteProtocolError(f"{peer} sent what no honest party sends: {error}") from error
