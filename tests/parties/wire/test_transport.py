"""What answers at a peer's address is held to the few bytes an answer has."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from identities import tls_at, transport_to

from parties.wire.transport import ANSWER_LIMIT, HttpTransport, TransportFailedError


class Flood(BaseHTTPRequestHandler):
    """Answers with as many bytes as were posted to it, and names what it was told to accept."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(202)
        self.send_header("content-encoding", "gzip")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def served(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.socket = tls_at("b", "a").wrap_socket(server.socket, server_side=True)
    return server


@pytest.fixture(scope="module")
def transport() -> Iterator[HttpTransport]:
    server = served(Flood)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    transport = transport_to(f"127.0.0.1:{server.server_port}")
    yield transport
    transport.close()
    server.shutdown()
    server.server_close()


def test_an_answer_arrives_as_it_was_sent_and_is_never_unpacked(transport: HttpTransport) -> None:
    assert transport.post([b"no ", b"gzip"]) == (202, b"no gzip")


def test_an_answer_without_end_is_given_up_and_the_next_one_is_heard(transport: HttpTransport) -> None:
    with pytest.raises(TransportFailedError, match="more than"):
        transport.post([bytes(ANSWER_LIMIT + 1)])
    assert transport.post([b"again"]).status == 202


def test_no_connection_reads_the_public_authorities_of_which_a_peer_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """To read them takes longer than the connection itself."""
    read: list[object] = []
    monkeypatch.setattr("ssl.SSLContext.load_default_certs", lambda *_: read.append("of the system"))
    server = served(Flood)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    transport = transport_to(f"127.0.0.1:{server.server_port}")
    assert transport.post([b"hello"]).status == 202
    assert not read
    transport.close()
    server.shutdown()
    server.server_close()


class Drip(BaseHTTPRequestHandler):
    """Answers for ever, one letter of a header at a time."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        try:
            self.wfile.write(b"HTTP/1.1 202 Accepted\r\nx: ")
            for _ in range(1000):
                self.wfile.write(b"x")
                time.sleep(0.02)
        except OSError:
            pass

    def log_message(self, *_: Any) -> None:
        """Quiet."""


def test_one_deadline_bounds_an_exchange_however_slowly_the_peer_answers() -> None:
    server = served(Drip)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    transport = transport_to(f"127.0.0.1:{server.server_port}", seconds=0.3)
    with pytest.raises(TransportFailedError, match="did not end within"):
        transport.post([])
    transport.close()
    server.shutdown()
    server.server_close()
