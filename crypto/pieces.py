"""Heavy work cut into pieces, which other processes can do: how it is written, and how it is done in this one.

Work is a function at the top of a module, because another process finds it by its name. Pieces and results are bytes.
A result depends on nothing but what all pieces share and the piece, or those before it at the same place; so it is the
same whichever process makes it, and however many there are.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn, Protocol, TypeAlias

Work: TypeAlias = Callable[[bytes, bytes], bytes]
"""A function of what all pieces share, and one piece."""
KeepingWork: TypeAlias = Callable[[bytes], Callable[[bytes], bytes]]
"""From what all pieces share, a function of one piece that may keep something for the next."""


class SecretBytes:
    """A secret that work needs: for processes of this machine that end with this one, and no further.

    It neither prints nor pickles.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        return self._value

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret stays on its machine")


Shared: TypeAlias = bytes | SecretBytes
"""What the work on all pieces shares."""


class Place(Protocol):
    """Does one piece after the other, and keeps what it needs of them."""

    def give(self, piece: bytes) -> None: ...

    def results(self) -> list[bytes]:
        """Of all pieces in their order; the place is left. Raises what the work raised."""


class Pool(Protocol):
    """Does work on many pieces."""

    def map(self, work: Work, shared: Shared, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The results in the order of the pieces, each made while those before it are looked at."""

    def places(self, work: KeepingWork, shared: Shared) -> Sequence[Place]:
        """As many as work at the same time. The pool does nothing else until all have been left."""


class Here:
    """In this process."""

    def map(self, work: Work, shared: Shared, pieces: Iterable[bytes]) -> Iterator[bytes]:
        opened = revealed(shared)
        for piece in pieces:
            yield work(opened, piece)

    def places(self, work: KeepingWork, shared: Shared) -> Sequence[Place]:
        return (_PlaceHere(work(revealed(shared))),)


class _PlaceHere:
    def __init__(self, work: Callable[[bytes], bytes]) -> None:
        self._work = work
        self._results: list[bytes] = []

    def give(self, piece: bytes) -> None:
        self._results.append(self._work(piece))

    def results(self) -> list[bytes]:
        return self._results


def revealed(shared: Shared) -> bytes:
    return shared.reveal() if isinstance(shared, SecretBytes) else shared


HERE = Here()
