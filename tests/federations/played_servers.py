"""What may answer at a peer's address: a peer that a test plays, and things that are no party at all."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from identities import identity_of, tls_at

from api.release import RELEASE
from parties.doctor.half import Question, SignedView, View
from parties.trust.identity import Domain
from parties.wire.envelopes import WIRE_VERSION

BANK, TELCO = "bank", "telco"


@contextlib.contextmanager
def listening(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """An address where something else than a party takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.settimeout(10)
                        handle(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def shaking(context: ssl.SSLContext) -> Callable[[socket.socket], None]:
    """What listens there begins TLS, and says nothing more."""

    def shake(connection: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(1)

    return shake


@dataclass
class PlayedTelco:
    """What a telco of another kind answers."""

    skew_seconds: float = 0.0
    largest_body: int = 1 << 30
    refuses_larger_with: int = 413
    wire_version: int = WIRE_VERSION
    name: str = TELCO
    release: str = RELEASE
    signer: str = TELCO
    knows_checks: bool = True
    way_back: str = "open"
    address: str = "127.0.0.1:9"
    """Where it calls bank."""

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        if len(body) > self.largest_body:
            return self.refuses_larger_with, b"{}"
        if path == "/peer/v1/envelopes":
            return 200, msgspec.json.encode({"party": self.name, "wire_version": self.wire_version})
        if not self.knows_checks:
            return 404, b"{}"
        question = msgspec.msgpack.decode(body, type=Question)
        view = msgspec.msgpack.encode(
            View(
                nonce=question.nonce,
                party=TELCO,
                asked_by=BANK,
                time=time.time() + self.skew_seconds,
                release=self.release,
                wire_version=self.wire_version,
                received_bytes=len(body),
                address=self.address,
                way_back=self.way_back if question.calls_back else "",
            )
        )
        return 200, msgspec.msgpack.encode(SignedView(view, identity_of(self.signer).sign(Domain.CHECK, view)))

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        played = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                status, answer = played.answer(self.path, self.rfile.read(int(self.headers["content-length"])))
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *arguments: Any) -> None:
                """Nobody reads it."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.socket = tls_at(TELCO, BANK).wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"127.0.0.1:{server.server_address[1]}"
            server.shutdown()


def proxy_context(folder: Path) -> ssl.SSLContext:
    key, now = Ed25519PrivateKey.generate(), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Inspection of Example Ltd")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, None)
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "proxy.pem").write_bytes(certificate.public_bytes(pem) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "proxy.pem")
    return context
