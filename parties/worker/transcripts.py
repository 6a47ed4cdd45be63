"""What was said between this role and each peer, as one digest: two parties that have the same went through the same.

It is cut at each checkpoint: both sides have then sent and taken exactly the messages of the steps up to it, however
much more has arrived meanwhile.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from vfl.spec.sections import PartyId

Bytes: TypeAlias = bytes | memoryview


class Transcripts:
    """Of one role; `before` are the digests that its checkpoint had."""

    def __init__(self, me: PartyId, peers: Iterable[PartyId], before: Mapping[PartyId, bytes]) -> None:
        self._me = me
        self._before = {peer: before.get(peer, b"") for peer in peers}
        self._said = {(one, other): hashlib.sha256() for peer in self._before for one, other in _both(me, peer)}

    def sent(self, to: PartyId, kind: str, body: Bytes) -> None:
        self._add((self._me, to), kind, body)

    def taken(self, frm: PartyId, kind: str, body: Bytes) -> None:
        """By the role, which may be later than it came."""
        self._add((frm, self._me), kind, body)

    def cut(self) -> dict[PartyId, bytes]:
        """Everything up to here, by peer; 32 bytes each."""
        for peer, before in self._before.items():
            digests = [self._said[pair].digest() for pair in sorted(_both(self._me, peer))]
            self._before[peer] = hashlib.sha256(before + b"".join(digests)).digest()
        self._said = {pair: hashlib.sha256() for pair in self._said}
        return dict(self._before)

    def _add(self, pair: tuple[PartyId, PartyId], kind: str, body: Bytes) -> None:
        said = self._said[pair]
        said.update(f"{kind} {len(body)} ".encode())
        said.update(body)


def _both(me: PartyId, peer: PartyId) -> tuple[tuple[PartyId, PartyId], tuple[PartyId, PartyId]]:
    return (me, peer), (peer, me)
