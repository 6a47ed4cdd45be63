"""A bounded queue that wakes whoever waits: in order, once each, closed from either end."""

from collections import deque
from threading import Condition, Lock
from typing import Generic, TypeVar

T = TypeVar("T")

LIMIT_BYTES = 64 << 20
"""What may lie unread between two processes; soft by one message, so that one larger than it still passes."""


class Room:
    """So many bytes for all who share it."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._bytes = 0
        self._lock = Lock()

    @property
    def is_left(self) -> bool:
        return self._bytes < self._limit

    def take(self, size: int) -> None:
        """Soft: who must not go beyond the limit asks `is_left` first."""
        with self._lock:
            self._bytes += size

    def try_take(self, size: int) -> bool:
        with self._lock:
            fits = self._bytes + size <= self._limit
            self._bytes += size if fits else 0
            return fits

    def give_back(self, size: int) -> None:
        with self._lock:
            self._bytes -= size


class Mailbox(Generic[T]):
    """First in, first out, bounded by the bytes its items stand for, and by the room it shares with others."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES, room: Room | None = None) -> None:
        self._limit = limit_bytes
        self._room = room or Room(limit_bytes)
        self._bytes = 0
        self._items: deque[tuple[T, int]] = deque()
        self._changed = Condition()
        self._closed = False

    @property
    def has_room(self) -> bool:
        return self.has_room_beside(0)

    def has_room_beside(self, expected_bytes: int) -> bool:
        """Whether something more may come while so much is on its way already."""
        return self._bytes + expected_bytes < self._limit and self._room.is_left

    def put(self, item: T, size: int) -> None:
        """Never waits; a sender that must be slowed asks `has_room` or `wait_for_room` first. Dropped once closed."""
        with self._changed:
            if not self._closed:
                self._items.append((item, size))
                self._bytes += size
                self._room.take(size)
                self._changed.notify_all()

    def wait_for_room(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self.has_room)

    def take(self) -> T | None:
        """The next item, waited for; None once the mailbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items)
            if self._closed:
                return None
            item, size = self._items.popleft()
            self._bytes -= size
            self._room.give_back(size)
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Drop what is left and wake everybody."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._room.give_back(self._bytes)
            self._bytes = 0
            self._changed.notify_all()
