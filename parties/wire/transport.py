"""How bytes reach a peer: one verb, post; HTTP between processes, a function call in memory."""

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import httpcore

from parties.wire.envelopes import Bytes, split

SLICE_BYTES = 256 << 10
"""What is handed to the socket at once: large enough to be few, small enough that a partial send copies little."""
KEEP_ALIVE_SECONDS = 300.0
ANSWER_LIMIT = 64 << 10
EXCHANGE_SECONDS, CONNECT_SECONDS = 30.0, 3.0
SHORTEST_EXCHANGE_SECONDS = 10.0
"""A peer whose machine is busy may take so long to answer, however short its timeout is."""
SLOWEST_BYTES_PER_SECOND = 1 << 20
"""A post of many bytes has the time for them at this rate."""
WRITE_BYTES = 64 << 10
ENVELOPES, WITNESS_ROUTE = "/peer/v1/envelopes", "/peer/v1/witness/add-checkpoint"
ROTATION_ROUTE, CERTIFICATE_ROUTE = "/peer/v1/rotation", "/peer/v1/certificate"


CLOSED = "it closed the connection without an answer, as a party does that does not trust this one"
ALERTS = {
    "certificate has expired": "its certificate has ended, or one of the two clocks is wrong",
    "certificate is not yet valid": "its certificate does not count yet: one of the two clocks is wrong",
    "certificate verify failed": "it shows a certificate that the pinned key has neither issued nor signed",
    "unknown ca": "it does not trust this party",
    "certificate required": "it does not trust this party",
    "certificate expired": "it takes this party's certificate for expired: one of the two clocks is wrong",
    "wrong version number": "what answers there does not speak TLS",
    "protocol version": "what answers there does not speak TLS 1.3",
}
"""What the words of OpenSSL mean between parties."""


class Answer(NamedTuple):
    """What came back: an HTTP status and a JSON body."""

    status: int
    body: bytes


class TransportFailedError(Exception):
    """Nothing came back, so the bytes may or may not have arrived; sending the same ones again is safe."""


class UnknownCertificateError(TransportFailedError):
    """The other end shows a certificate that is not trusted."""


class Transport(Protocol):
    def post(self, pieces: Sequence[Bytes]) -> Answer:
        """Carry these bytes, one after the other, to the peer. Raises TransportFailedError."""

    def close(self) -> None: ...


class HttpTransport:
    """One route of a peer over kept-alive TLS connections. Safe for several threads.

    One deadline bounds a whole exchange, so a peer that answers one byte at a time holds nobody up for longer.
    """

    def __init__(
        self,
        address: Callable[[], str],
        context: Callable[[], ssl.SSLContext],
        seconds: float = EXCHANGE_SECONDS,
        route: str = ENVELOPES,
        learn: Callable[[], bool] = lambda: False,
    ) -> None:
        """`address` (HOST:PORT) and `context` are asked for every connection; `seconds` bound an exchange, and more
        for a long post. `learn` is called when the other end shows a certificate that is not trusted, and answers
        whether `context` knows more now."""
        self._address, self._seconds, self._route, self._learn = address, seconds, route, learn
        self._network = _DeadlineNetwork(context)
        # A pool of its own, without what the environment says of proxies: none must ever see what parties say.
        self._pool = httpcore.ConnectionPool(
            # Never used: the network has its own. Without it each connection would read the public authorities.
            ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            max_connections=None,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
            network_backend=self._network,
        )

    def post(self, pieces: Sequence[Bytes]) -> Answer:
        try:
            return self._exchange(pieces)
        except UnknownCertificateError:
            if not self._learn():
                raise
            return self._exchange(pieces)

    def close(self) -> None:
        self._pool.close()

    def _exchange(self, pieces: Sequence[Bytes]) -> Answer:
        size, address = sum(map(len, pieces)), self._address()
        headers = [
            ("host", address),
            ("content-type", "application/octet-stream"),
            ("content-length", str(size)),
            ("accept-encoding", "identity"),
        ]
        seconds = self._seconds + size / SLOWEST_BYTES_PER_SECOND
        self._network.begin(seconds)
        try:
            with self._pool.stream(
                "POST", f"https://{address}{self._route}", headers=headers, content=_slices(pieces)
            ) as answer:
                return Answer(answer.status, _bounded(answer))
        except httpcore.ConnectTimeout as error:
            raise TransportFailedError(f"no connection within {CONNECT_SECONDS:g} s") from error
        except httpcore.TimeoutException as error:
            raise TransportFailedError(f"the exchange did not end within {seconds:.0f} s") from error
        except httpcore.RemoteProtocolError as error:
            raise TransportFailedError(CLOSED) from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            kind = UnknownCertificateError if isinstance(error, _UnverifiedError) else TransportFailedError
            raise kind(_in_words(str(error)) or type(error).__name__) from error


class _UnverifiedError(httpcore.ConnectError):
    """Of the other end's certificate."""


class _DeadlineNetwork(httpcore.SyncBackend):
    """Sockets on which nothing is waited for beyond the deadline of the exchange that the calling thread is in."""

    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        self.context = context
        """What TLS trusts now; the pool would keep one for ever."""
        self._of_thread = threading.local()

    def begin(self, seconds: float) -> None:
        self._of_thread.deadline = time.monotonic() + seconds

    def left(self) -> float:
        """Raises TimeoutException."""
        left: float = self._of_thread.deadline - time.monotonic()
        if left <= 0:
            raise httpcore.TimeoutException
        return left

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        seconds = min(CONNECT_SECONDS, self.left() if timeout is None else timeout)
        return _DeadlineStream(super().connect_tcp(host, port, seconds, local_address, socket_options), self)


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, network: _DeadlineNetwork) -> None:
        self._stream, self._network = stream, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the exchange's counts
        return self._stream.read(max_bytes, self._network.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - the exchange's counts
        for piece in split(memoryview(buffer), WRITE_BYTES):
            self._stream.write(bytes(piece), self._network.left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        del timeout, ssl_context
        context = self._network.context()
        try:
            stream = self._stream.start_tls(context, server_hostname, self._network.left())
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__, ssl.SSLCertVerificationError):  # which the pool does not hand on
                raise _UnverifiedError(str(error)) from error
            raise
        return _DeadlineStream(stream, self._network)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


class LocalTransport:
    """The peer is in this process: `deliver` is its Party's."""

    def __init__(self, deliver: Callable[[bytes], Answer]) -> None:
        self._deliver = deliver

    def post(self, pieces: Sequence[Bytes]) -> Answer:
        return self._deliver(b"".join(pieces))

    def close(self) -> None:
        """Nothing is held open."""


def _in_words(error: str) -> str:
    plain = error.lower().replace("_", " ")
    return next((meaning for alert, meaning in ALERTS.items() if alert in plain), error)


def _bounded(answer: httpcore.Response) -> bytes:
    """An answer is a few receipts; a peer may not fill our memory with it."""
    body = bytearray()
    for piece in answer.iter_stream():
        body += piece
        if len(body) > ANSWER_LIMIT:
            raise TransportFailedError(f"its answer has more than {ANSWER_LIMIT} bytes")
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
