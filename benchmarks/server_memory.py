"""Resident memory of a party's server through attacks on its ports, as JSON: what each leaves behind, and all together.

    python benchmarks/server_memory.py

A real `vfl party serve` of a feature party; this program plays its label party and strangers, on loopback.
"""

import contextlib
import json
import re
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np

from parties.settings import TOKEN_FILE, init_party
from parties.wire.control import (
    Abort,
    Acceptance,
    Begin,
    Control,
    Proposal,
    commitment_to,
    decode_control,
    encode_control,
    job_id,
)
from parties.wire.envelopes import ENVELOPES_LIMIT, PART_LIMIT, POST_LIMIT, Envelope, EnvelopeReader, Outgoing
from parties.wire.outbox import Reply
from vfl.planning.training import resolve
from vfl.spec.job import read_spec_as
from vfl.spec.training import TrainingSpec

LABEL, FEATURE, STRANGER = "bank", "telco", "127.0.0.9"
BOUND_SECONDS = 120.0
SETTLE_SECONDS = 1.0
WIDE_COLUMNS = 5000
SPEC = """
job = {{name = "attack", task = "regression"}}
roster = {{label = "bank", features = ["telco"]}}
train = {{epochs = {epochs}, batch_rows = 32}}
encryption = {{scheme = "none"}}
[data]
bank = {{dataset = "table", label = "y"}}
telco = {{dataset = "table", columns = [{columns}]}}
"""


class Played(BaseHTTPRequestHandler):
    """The label party's ear: keeps the first answer to each job."""

    answers: dict[str, Control] = {}  # noqa: RUF012 - the server makes the handlers
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        reader = EnvelopeReader(LABEL)
        reader.add(self.rfile.read(int(self.headers["content-length"])))
        while (envelope := reader.take()) is not None:
            if envelope.header.attempt == 0:
                self.answers.setdefault(envelope.header.job, decode_control(envelope.header.kind, envelope.body))
        body = msgspec.json.encode(Reply(LABEL, 1))
        self.send_response(202)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


class Attack:
    """One server under attack, and what the attacker knows of it."""

    def __init__(self, folder: Path, ports: list[int]) -> None:
        self.folder, (self.operator_port, self.peer_port) = folder, ports
        with (folder / "server.log").open("wb") as log:
            command = [sys.executable, "-m", "api.cli.main", "party", "serve", str(folder)]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        if self.process.stdout is not None:
            self.process.stdout.readline()
        token = (folder / TOKEN_FILE).read_text().strip()
        self.http = httpx.Client(trust_env=False, timeout=BOUND_SECONDS, headers={"authorization": f"Bearer {token}"})
        self.operator = f"http://127.0.0.1:{self.operator_port}"

    def resident(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return round(int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024, 1)

    def post(self, *envelopes: Envelope) -> int:
        content = b"".join(bytes(piece) for envelope in envelopes for piece in envelope.pieces())
        return self.http.post(f"http://127.0.0.1:{self.peer_port}/peer/v1/envelopes", content=content).status_code

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(BOUND_SECONDS)


class Offer:
    """A job this program proposes."""

    def __init__(self, columns: int = 1, epochs: int = 1) -> None:
        names = ", ".join(f'"x{i}"' for i in range(columns))
        self.spec = resolve(read_spec_as(TrainingSpec, SPEC.format(columns=names, epochs=epochs)))
        self.share = secrets.token_bytes(32)
        commitment = commitment_to(self.share)
        self.job = job_id(self.spec.digest(), commitment)
        self.proposal = self.lane(0).seal("Proposal", encode_control(Proposal(self.spec.encoded(), commitment)))[0]

    def lane(self, attempt: int) -> Outgoing:
        return Outgoing(self.job, self.spec.digest(), attempt, LABEL, FEATURE)

    def begin(self, attack: Attack) -> Outgoing:
        """The lane of its first attempt, once the server has accepted."""
        attack.post(self.proposal)
        deadline = time.monotonic() + BOUND_SECONDS
        while self.job not in Played.answers and time.monotonic() < deadline:
            time.sleep(0.05)
        answer, lane = Played.answers[self.job], self.lane(1)
        if not isinstance(answer, Acceptance):
            raise TypeError(f"the server did not accept the job: {answer}")
        attack.post(*lane.seal("Begin", encode_control(Begin({LABEL: self.share, FEATURE: answer.share}))))
        return lane


def idle_connections(attack: Attack) -> None:
    with _held([attack.operator_port, attack.peer_port], 500, b"GET /v1/jobs HT"):
        attack.http.get(f"{attack.operator}/v1/jobs").raise_for_status()


def bodies_one_byte_short(attack: Attack) -> None:
    head = f"POST /peer/v1/envelopes HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {POST_LIMIT}\r\n\r\n\x00\x20"
    with _held([attack.peer_port], 8, head.encode()) as crowd:
        for connection in crowd:
            with contextlib.suppress(ConnectionError):  # on a slow machine the port has given up on it
                connection.sendall(bytes(POST_LIMIT - 3))


def parts_that_do_not_end(attack: Attack) -> None:
    """240 of 250 parts of 4 MiB of a message that a running job may hold, and says two small things."""
    offer = Offer()
    lane = offer.begin(attack)
    body = bytes(PART_LIMIT)
    parts = lane.seal("RowsDigest", memoryview(bytes(250 * PART_LIMIT)))[:240]
    for start in range(0, len(parts), ENVELOPES_LIMIT):
        attack.post(*parts[start : start + ENVELOPES_LIMIT])
    del body, parts
    attack.http.post(f"{attack.operator}/v1/jobs/{offer.job}/cancel").raise_for_status()


def large_proposals(attack: Attack) -> None:
    """62 proposals of about 62 KB, ended at once, then all lists."""
    for _ in range(62):
        offer = Offer(columns=WIDE_COLUMNS)
        attack.post(offer.proposal)
        attack.post(*offer.lane(1).seal("Abort", encode_control(Abort("cancelled", "never mind"))))
    after: str | None = ""
    while after is not None:
        page = attack.http.get(f"{attack.operator}/v1/jobs", params={"after": after} if after else {}).json()
        after = page["next"]


def deep_keys(attack: Attack) -> None:
    for _ in range(8):
        attack.http.post(f"{attack.operator}/v1/jobs", json={"spec": ".".join("a" * 20_000) + " = 1"})


def junk(attack: Attack) -> None:
    for port in (attack.operator_port, attack.peer_port):
        for _ in range(500):
            with socket.create_connection(("127.0.0.1", port), BOUND_SECONDS, (STRANGER, 0)) as connection:
                connection.sendall(b"\x16\x03\x01 no HTTP \r\n\r\n")
                connection.recv(4096)


ROWS: list[Callable[[Attack], None]] = [
    idle_connections,
    bodies_one_byte_short,
    parts_that_do_not_end,
    large_proposals,
    deep_keys,
    junk,
]


@contextlib.contextmanager
def _held(ports: list[int], count: int, said: bytes) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        crowd = []
        for number in range(count):
            connection = stack.enter_context(socket.socket())
            connection.settimeout(BOUND_SECONDS)
            connection.bind((STRANGER, 0))
            connection.connect(("127.0.0.1", ports[number % len(ports)]))
            with contextlib.suppress(ConnectionError):
                connection.sendall(said)
            crowd.append(connection)
        yield crowd


def _feature_party(folder: Path, label_port: int) -> tuple[Path, list[int]]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [listener.getsockname()[1] for listener in (one, other)]
    path = init_party(folder, FEATURE, operator_port=ports[0], peer_port=ports[1])
    acceptance = {"peers": [LABEL], "datasets": ["table"], "schemes": ["none"], "minimum_rows": 100}
    text = path.read_text() + "\n[acceptance]\n"
    text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in acceptance.items())
    text += f'\n[peers.{LABEL}]\nurl = "http://127.0.0.1:{label_port}"\n'
    text += '[datasets.table]\npath = "table.csv"\nid = "id"\n'
    path.write_text(text)
    values = np.random.default_rng(0).normal(size=(200, 1))
    (folder / "table.csv").write_text("\n".join(["id,x0", *(f"{i},{x}" for i, (x,) in enumerate(values))]))
    return folder, ports


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, ThreadingHTTPServer(("127.0.0.1", 0), Played) as label:
        threading.Thread(target=label.serve_forever, daemon=True).start()
        attack = Attack(*_feature_party(Path(folder) / FEATURE, label.server_port))
        try:
            attack.http.get(f"{attack.operator}/v1/jobs").raise_for_status()
            start, rows = attack.resident(), []
            for row in ROWS:
                before, at = attack.resident(), time.monotonic()
                peak = _peak_of(attack, row)
                time.sleep(SETTLE_SECONDS)
                rows.append(
                    {
                        "attack": row.__name__,
                        "before_mb": before,
                        "peak_mb": peak,
                        "after_mb": attack.resident(),
                        "seconds": round(time.monotonic() - at, 1),
                    }
                )
            log_kb = (Path(folder) / FEATURE / "server.log").stat().st_size / 1000
            end = attack.resident()
            whole = {
                "answer_ms": _answer_ms(attack),
                "start_mb": start,
                "end_mb": end,
                "kept_mb": round(end - start, 1),
                "log_kb": log_kb,
            }
            print(json.dumps(whole | {"rows": rows}, indent=1))
        finally:
            attack.close()
            label.shutdown()


def _answer_ms(attack: Attack) -> float:
    """Median time of an answer over a kept connection: some 44 ms where TCP_NODELAY is not set."""
    times = []
    for _ in range(50):
        at = time.perf_counter()
        attack.http.get(f"{attack.operator}/healthz")
        times.append(time.perf_counter() - at)
    return round(statistics.median(times) * 1000, 2)


def _peak_of(attack: Attack, row: Callable[[Attack], None]) -> float:
    """The highest resident memory seen while the row runs."""
    seen, over = [attack.resident()], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            seen.append(attack.resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        row(attack)
    finally:
        over.set()
        watcher.join()
    return max(seen)


if __name__ == "__main__":
    main()
