"""Crowds of connections from one address that say nothing or half of something, at once or a byte at a time."""

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator

BOUND_SECONDS = 20.0
BYTE_SECONDS = 0.2
HALF = b"POST /peer/v1/envelopes HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\nhalf"
HALF_HANDSHAKE = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32)
"""The beginning of a ClientHello."""
WORDS = (b"", b"GET /v1/jobs HT", HALF, HALF_HANDSHAKE)


@contextlib.contextmanager
def held(port: int, count: int, source: str) -> Iterator[None]:
    """So many connections, which have said nothing, half a head, half a body or half a handshake, and then no more."""
    with contextlib.ExitStack() as stack:
        for said in itertools.islice(itertools.cycle(WORDS), count):
            connection = stack.enter_context(_connected(port, source))
            with contextlib.suppress(ConnectionError):  # it may have given way already
                connection.sendall(said)
        yield


@contextlib.contextmanager
def trickling(port: int, count: int, source: str) -> Iterator[None]:
    """So many connections that say the same a byte at a time, and begin anew when they are closed."""
    over = threading.Event()

    def trickle(words: bytes) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), _connected(port, source) as connection:
                for byte in itertools.cycle(words):
                    connection.sendall(bytes([byte]))
                    if over.wait(BYTE_SECONDS):
                        return

    words = itertools.islice(itertools.cycle(filter(None, WORDS)), count)
    threads = [threading.Thread(target=trickle, args=(each,), daemon=True) for each in words]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(BOUND_SECONDS)


def _connected(port: int, source: str) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(BOUND_SECONDS)
    try:
        connection.bind((source, 0))
        connection.connect(("127.0.0.1", port))
    except OSError:
        connection.close()
        raise
    return connection
