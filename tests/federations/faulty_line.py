"""A line between two real servers, with the keys of both: it loses one chosen message, or the receipt of it, and is
then dark for a while."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
from identities import tls_at, tls_of

from parties.wire.envelopes import read_post

LABEL, FEATURE = "label-party", "feature-party"
WORDS = {
    LABEL: ("Finish", "Abort", "Begin"),
    FEATURE: ("Finish", "Abort", "Acceptance", "Refusal"),
}


@dataclass(frozen=True)
class Fault:
    """What goes wrong at the moment a party says something for the first time."""

    sender: str
    kind: str
    receipt: bool
    """The message arrives, and only its receipt is lost."""
    both_ways: bool
    dark_seconds: float
    killed: str
    """The server that is killed at that moment and started again when the line is well; or nobody."""
    cancelled_by: str
    """The operator who cancels the job at that moment; or nobody."""

    @property
    def receiver(self) -> str:
        return _other(self.sender)

    @classmethod
    def of(cls, seed: int, longest_seconds: float) -> "Fault":
        draw = random.Random(seed)
        sender = draw.choice((LABEL, FEATURE))
        kind = draw.choice(WORDS[sender])
        killed = draw.choice(("", "", LABEL, FEATURE))
        living = [party for party in (LABEL, FEATURE) if party != killed]
        return cls(
            sender=sender,
            kind=kind,
            receipt=draw.random() < 0.4,
            both_ways=draw.random() < 0.5,
            dark_seconds=draw.uniform(0.0, longest_seconds),
            killed=killed,
            cancelled_by=draw.choice(("", "", *living)) if kind == "Finish" else "",
        )


class Line:
    """Both directions; `urls` of the proxies by the party that listens behind them."""

    def __init__(self, ports: dict[str, int]) -> None:
        """`ports`: of the proxies, by the party behind."""
        self.behind: dict[str, str] = {}
        self.tripped = threading.Event()
        self._fault: Fault | None = None
        self._struck = False
        self._jobs: set[str] = set()
        self._earlier: frozenset[str] = frozenset()
        """Jobs of which a word may still be on its way."""
        self._at_trip: Callable[[], None] = lambda: None
        self._dark_until = 0.0
        self._lock = threading.Lock()
        self._callers = {
            receiver: httpx.Client(verify=tls_of(_other(receiver), receiver), timeout=30.0, trust_env=False)
            for receiver in ports
        }
        self._servers = [_Server(("127.0.0.1", port), self, receiver) for receiver, port in ports.items()]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def lose(self, fault: Fault, at_trip: Callable[[], None]) -> None:
        with self._lock:
            self.tripped.clear()
            self._struck, self._earlier = False, frozenset(self._jobs)
            self._fault, self._at_trip, self._dark_until = fault, at_trip, 0.0

    def carry(self, receiver: str, post: bytes) -> httpx.Response | None:
        """None where nothing comes back."""
        headers = [envelope.header for envelope in read_post(post, receiver)]
        with self._lock:
            kinds = {header.kind for header in headers if header.job not in self._earlier}
            self._jobs |= {header.job for header in headers}
            fault = self._fault
            ours = fault is not None and fault.receiver == receiver
            strikes = fault is not None and ours and fault.kind in kinds and not self._struck
            dark = fault is not None and (ours or fault.both_ways) and time.monotonic() < self._dark_until
            if fault is not None and strikes:
                self._struck, self._dark_until = True, time.monotonic() + fault.dark_seconds
        if dark:
            return None
        if fault is None or not strikes:
            return self._forward(receiver, post)
        if fault.receipt:
            self._forward(receiver, post)
        self._at_trip()
        self.tripped.set()
        return None

    @property
    def is_well(self) -> bool:
        return time.monotonic() >= self._dark_until

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for caller in self._callers.values():
            caller.close()

    def _forward(self, receiver: str, post: bytes) -> httpx.Response | None:
        try:
            return self._callers[receiver].post(f"{self.behind[receiver]}/peer/v1/envelopes", content=post)
        except httpx.HTTPError:
            return None


def _other(party: str) -> str:
    return FEATURE if party == LABEL else LABEL


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], line: Line, receiver: str) -> None:
        self.line, self.receiver = line, receiver
        super().__init__(address, _Handler)
        self.socket = tls_at(receiver, _other(receiver)).wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        self.close_connection = True
        post = self.rfile.read(int(self.headers["content-length"]))
        answer = self.server.line.carry(self.server.receiver, post)
        if answer is None:
            return
        self.send_response(answer.status_code)
        self.send_header("content-length", str(len(answer.content)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def line(ports: dict[str, int]) -> Iterator[Line]:
    made = Line(ports)
    try:
        yield made
    finally:
        made.close()
