"""How bytes reach a peer: one verb, post; HTTP between processes, a function call in memory."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import httpx

from parties.channel import Bytes, split

SLICE_BYTES = 256 << 10
"""What is handed to the socket at once: large enough to be few, small enough that a partial send copies little."""
KEEP_ALIVE_SECONDS = 300.0
ANSWER_LIMIT = 64 << 10
ANSWER_SECONDS = 10.0


class Answer(NamedTuple):
    """What came back: an HTTP status and a JSON body."""

    status: int
    body: bytes


class TransportFailedError(Exception):
    """Nothing came back, so the bytes may or may not have arrived; sending the same ones again is safe."""


class Transport(Protocol):
    def post(self, pieces: Sequence[Bytes]) -> Answer:
        """Carry these bytes, one after the other, to the peer. Raises TransportFailedError."""

    def close(self) -> None: ...


class HttpTransport:
    """One peer's envelope route over a kept-alive connection. Safe for several threads."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/peer/v1/envelopes"
        self._client = httpx.Client(
            timeout=httpx.Timeout(30.0, connect=3.0),
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE_SECONDS),
            trust_env=False,  # a proxy of the environment must never see what parties say
        )

    def post(self, pieces: Sequence[Bytes]) -> Answer:
        headers = {
            "content-type": "application/octet-stream",
            "content-length": str(sum(map(len, pieces))),
            "accept-encoding": "identity",
        }
        try:
            with self._client.stream("POST", self._url, content=_slices(pieces), headers=headers) as answer:
                return Answer(answer.status_code, _bounded(answer))
        except httpx.HTTPError as error:
            raise TransportFailedError(str(error) or type(error).__name__) from error

    def close(self) -> None:
        self._client.close()


class LocalTransport:
    """The peer is in this process: `deliver` is its Party's."""

    def __init__(self, deliver: Callable[[bytes], Answer]) -> None:
        self._deliver = deliver

    def post(self, pieces: Sequence[Bytes]) -> Answer:
        return self._deliver(b"".join(pieces))

    def close(self) -> None:
        """Nothing is held open."""


def _bounded(answer: httpx.Response) -> bytes:
    """An answer is a few receipts; a peer may neither fill our memory nor hold our thread with it."""
    body, deadline = bytearray(), time.monotonic() + ANSWER_SECONDS
    for piece in answer.iter_raw():
        body += piece
        if len(body) > ANSWER_LIMIT:
            raise TransportFailedError(f"its answer has more than {ANSWER_LIMIT} bytes")
        if time.monotonic() > deadline:
            raise TransportFailedError(f"its answer is not whole after {ANSWER_SECONDS:g} s")
    return bytes(body)


def _slices(pieces: Sequence[Bytes]) -> Iterator[bytes]:
    small: list[Bytes] = []
    for piece in pieces:
        if len(piece) < SLICE_BYTES:
            small.append(piece)
            continue
        yield b"".join(small)
        small = []
        yield from map(bytes, split(memoryview(piece), SLICE_BYTES))
    yield b"".join(small)
