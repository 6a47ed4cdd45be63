"""Which clients are there, which backbone each holds, and who has just come and knows nothing yet."""

from collections.abc import Iterable, Iterator

from vfl.spec.sections import PartyId


class ConnectedClients:
    def __init__(self) -> None:
        self._backbone_digests: dict[PartyId, bytes] = {}
        self._new: set[PartyId] = set()
        self._barred: set[PartyId] = set()

    def __contains__(self, client: object) -> bool:
        return client in self._backbone_digests

    def __iter__(self) -> Iterator[PartyId]:
        return iter(self._backbone_digests)

    def __len__(self) -> int:
        return len(self._backbone_digests)

    def welcome(self, client: PartyId, backbone_digest: bytes) -> None:
        """It is there, for the first time or again: what it was given before is gone."""
        if client not in self._barred:
            self._backbone_digests[client] = backbone_digest
            self._new.add(client)

    def answered(self, client: PartyId, backbone_digest: bytes) -> None:
        """What one that is still there holds now; who was barred or lost meanwhile stays away."""
        if client in self._backbone_digests:
            self._backbone_digests[client] = backbone_digest

    def absent(self, roster: Iterable[PartyId]) -> list[PartyId]:
        """Who may still come."""
        return [client for client in roster if client not in self._backbone_digests and client not in self._barred]

    def lose(self, client: PartyId) -> None:
        self._backbone_digests.pop(client, None)

    def bar(self, client: PartyId) -> None:
        """It takes part in nothing more, also if it comes back."""
        self._barred.add(client)
        self.lose(client)

    def backbone_digest_of(self, client: PartyId) -> bytes:
        """Digest of the backbone it last named; empty where it holds none or is not there."""
        return self._backbone_digests.get(client, b"")

    def just_came(self, client: PartyId) -> bool:
        """True once after each welcome."""
        if client not in self._new:
            return False
        self._new.remove(client)
        return True
