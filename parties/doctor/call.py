"""One call to a party, step by step, which ends with the first obstacle and says which one it was."""

import contextlib
import http.client
import queue
import re
import socket
import ssl
import threading
import time
from types import TracebackType
from typing import Any, Self

import msgspec

from parties.doctor.obstacles import STEP, Obstacle, Step
from parties.storage.peer_store import StoredPeer
from parties.tls import Tls
from parties.trust.certificates import issuer_of
from parties.wire.envelopes import UNREADABLE, WIRE_VERSION
from parties.wire.receipts import Reply
from parties.wire.transport import ANSWER_LIMIT, ENVELOPES, Answer
from vfl.spec.sections import PartyId

NAME_SECONDS, CONNECT_SECONDS, HANDSHAKE_SECONDS, ANSWER_SECONDS = 3.0, 3.0, 4.0, 4.0
MOST_ADDRESSES = 4
"""So many of a name's addresses are tried."""
NOT_YET_GOOD, NO_LONGER_GOOD = 9, 10
"""Of a certificate: X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


class Blocked(Exception):
    """An obstacle ended the call."""

    def __init__(self, obstacle: Obstacle) -> None:
        super().__init__(obstacle.value)
        self.obstacle = obstacle


def call_peer(tls: Tls, peer: StoredPeer, seconds: float) -> "Call":
    """Like every call to a peer, it asks one that shows an unknown certificate. Raises Blocked."""
    try:
        return Call(peer.address, tls.client(peer.name), seconds)
    except Blocked as blocked:
        if STEP[blocked.obstacle] is not Step.KEY or not tls.learn(peer.name):
            raise
    return Call(peer.address, tls.client(peer.name), seconds)


class Call:
    """A TLS connection to one party, with requests behind each other. Nothing is waited for beyond its deadline."""

    def __init__(self, address: str, context: ssl.SSLContext, seconds: float) -> None:
        """Raises Blocked."""
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._deadline = time.monotonic() + seconds
        self._has_answered = self._is_overdue = False
        self._socket: socket.socket = self._connect(self._resolve())
        self._cutter = threading.Timer(self._left(seconds), self._cut)
        self._cutter.daemon = True
        self._cutter.start()
        try:
            self._secure(context)
        except BaseException:
            self.close()
            raise
        self._http = http.client.HTTPConnection(self._host, self._port)
        self._http.sock = self._socket

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._cutter.cancel()
        self._socket.close()

    def greet(self, name: PartyId) -> None:
        """Ask for nothing, as a party does that wants to know whether its peer is there. Raises Blocked."""
        answer = self.post(ENVELOPES, b"")
        if answer.status == 401:
            raise Blocked(Obstacle.NOT_TRUSTED)
        try:
            reply = msgspec.json.decode(answer.body, type=Reply)
        except UNREADABLE:
            raise Blocked(Obstacle.NOT_A_PARTY) from None
        if reply.party != name:
            raise Blocked(Obstacle.OTHER_NAME)
        if reply.wire_version != WIRE_VERSION:
            raise Blocked(Obstacle.OTHER_VERSION)

    def post(self, route: str, body: bytes, seconds: float = ANSWER_SECONDS) -> Answer:
        """Raises Blocked."""
        try:
            self._socket.settimeout(self._left(seconds))
            self._http.request("POST", route, body, {"content-type": "application/octet-stream"})
            answer = self._http.getresponse()
            read = answer.read(ANSWER_LIMIT)
        except TimeoutError:
            raise Blocked(Obstacle.TOO_SLOW) from None
        except (OSError, http.client.HTTPException) as error:
            raise Blocked(self._met(self._alert() or error)) from None
        if self._is_overdue:  # an answer that was cut may look like a whole one
            raise Blocked(Obstacle.TOO_SLOW)
        self._has_answered = True
        return Answer(answer.status, read)

    # Its steps

    def _resolve(self) -> list[Any]:
        resolved: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()

        def resolve() -> None:  # the system's resolver takes no deadline
            with contextlib.suppress(OSError, UnicodeError):
                resolved.put(socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))
                return
            resolved.put([])

        threading.Thread(target=resolve, daemon=True).start()
        with contextlib.suppress(queue.Empty):
            if addresses := resolved.get(timeout=self._left(NAME_SECONDS)):
                return addresses[:MOST_ADDRESSES]
        raise Blocked(Obstacle.UNKNOWN_NAME)

    def _connect(self, addresses: list[Any]) -> socket.socket:
        met = []
        for family, kind, protocol, _, address in addresses:
            plain = socket.socket(family, kind, protocol)
            try:
                plain.settimeout(self._left(CONNECT_SECONDS / len(addresses)))
                plain.connect(address)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else every question waits 40 ms
            except OSError as error:
                plain.close()
                met.append(error)
            else:
                return plain
        if any(isinstance(error, ConnectionRefusedError) for error in met):
            raise Blocked(Obstacle.NOTHING_LISTENS)
        is_silent = any(isinstance(error, TimeoutError) for error in met)
        raise Blocked(Obstacle.SILENT_PORT if is_silent else Obstacle.NO_ROUTE)

    def _secure(self, context: ssl.SSLContext) -> None:
        try:
            secured = context.wrap_socket(self._socket, do_handshake_on_connect=False)
            self._socket = secured
            secured.settimeout(self._left(HANDSHAKE_SECONDS))
            secured.do_handshake()
        except ssl.SSLCertVerificationError as error:
            raise Blocked(self._in_certificate(error)) from None
        except ssl.SSLEOFError:
            raise Blocked(Obstacle.NO_HANDSHAKE) from None
        except ssl.SSLError as error:
            is_old = "PROTOCOL" in (error.reason or "")
            raise Blocked(Obstacle.OLD_TLS if is_old else Obstacle.NOT_TLS) from None
        except OSError:
            raise Blocked(Obstacle.NO_HANDSHAKE) from None

    def _in_certificate(self, error: ssl.SSLCertVerificationError) -> Obstacle:
        """What is wrong with the certificate, which a second connection looks at and does not believe."""
        if error.verify_code in {NOT_YET_GOOD, NO_LONGER_GOOD}:
            return Obstacle.OVERDUE_CERTIFICATE
        try:
            shown = ssl.get_server_certificate((self._host, self._port), timeout=self._left(HANDSHAKE_SECONDS))
            issuer = issuer_of(ssl.PEM_cert_to_DER_cert(shown))
        except (OSError, ValueError):
            return Obstacle.FOREIGN_CERTIFICATE
        is_of_a_party = re.fullmatch("[0-9a-f]{64}", issuer) is not None
        return Obstacle.OTHER_KEY if is_of_a_party else Obstacle.FOREIGN_CERTIFICATE

    def _alert(self) -> ssl.SSLError | None:
        """Why the peer ended TLS, as it said before it closed: writing into the closed connection fails first."""
        try:
            self._socket.recv(1)
        except ssl.SSLError as alert:
            return alert
        except (OSError, ValueError):
            return None
        return None

    def _met(self, error: Exception) -> Obstacle:
        """What ended an exchange. Without any answer it is the caller's certificate, which a TLS 1.3 server looks at
        last: a party closes like this on whom it does not trust."""
        if self._is_overdue:
            return Obstacle.TOO_SLOW
        if isinstance(error, ssl.SSLError) and "EXPIRED" in (error.reason or ""):
            return Obstacle.CALLER_OVERDUE
        if self._has_answered:
            return Obstacle.CUT
        return Obstacle.NOT_TRUSTED if isinstance(error, OSError) else Obstacle.NOT_A_PARTY

    def _left(self, seconds: float) -> float:
        return max(0.01, min(seconds, self._deadline - time.monotonic()))

    def _cut(self) -> None:
        self._is_overdue = True
        with contextlib.suppress(OSError):  # the socket's own: SSLSocket's would take TLS away from under a reader
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
