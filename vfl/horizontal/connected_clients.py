"""Which clients are there, which backbone each holds, and who has just come and knows nothing yet."""

from collections.abc import Iterable, Iterator

from vfl.spec.sections import PartyId


class ConnectedClients:
    def __init__(self) -> None:
        self._held: dict[PartyId, bytes] = {}
        self._new: set[PartyId] = set()
        self._barred: set[PartyId] = set()

    def __contains__(self, client: object) -> bool:
        return client in self._held

    def __iter__(self) -> Iterator[PartyId]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def welcome(self, client: PartyId, held: bytes) -> None:
        """It is there, for the first time or again: what it was given before is gone."""
        if client not in self._barred:
            self._held[client] = held
            self._new.add(client)

    def answered(self, client: PartyId, held: bytes) -> None:
        """What one that is still there holds now; who was barred or lost meanwhile stays away."""
        if client in self._held:
            self._held[client] = held

    def absent(self, roster: Iterable[PartyId]) -> list[PartyId]:
        """Who may still come."""
        return [client for client in roster if client not in self._held and client not in self._barred]

    def lose(self, client: PartyId) -> None:
        self._held.pop(client, None)

    def bar(self, client: PartyId) -> None:
        """It takes part in nothing more, also if it comes back."""
        self._barred.add(client)
        self.lose(client)

    def held_by(self, client: PartyId) -> bytes:
        """Digest of the backbone it last named; empty where it holds none or is not there."""
        return self._held.get(client, b"")

    def just_came(self, client: PartyId) -> bool:
        """True once after each welcome."""
        if client not in self._new:
            return False
        self._new.remove(client)
        return True
