"""A party's server through hard use and attacks on its ports, as JSON: memory of each row and what it leaves behind.

    python benchmarks/server_memory.py

A real `vfl party serve` of a feature party; this program plays one of its label parties and strangers, on loopback. The
other label party is a real server too, and has jobs done: a small one before the start, with which libraries come in.
While a row runs, `/healthz` and the list of jobs are asked all the time: their times stand as ratios to quiet ones.
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "federations"))

from identities import acquaint, give_identity, identity_of, tls_at, tls_of
from registered_tables import register

from api.demo.servers import free_ports
from parties.settings import TOKEN_FILE, init_party
from parties.trust.contract import sign
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
from parties.wire.envelopes import POST_LIMIT, WIRE_VERSION, Envelope, EnvelopeReader, Outgoing
from parties.wire.receipts import Reply
from vfl.kinds import read_spec_as
from vfl.planning.training import resolve
from vfl.spec.training import TrainingSpec

LABEL, HONEST, FEATURE, STRANGER = "bank", "lender", "telco", "127.0.0.9"
BOUND_SECONDS = 120.0
SETTLE_SECONDS = 1.0
WIDE_COLUMNS = 5000
ROWS, FEW_ROWS = 10_300, 200
RESULTS, RESULT_NEURONS = 8, 1500
"""A bottom model with two hidden layers of so many neurons has 18 MB."""
LARGE_ROWS, LARGE_WIDTH = 8192, 2048
"""Of a batch and of an embedding: the gradient that goes back to the feature party has 128 MiB."""
ASK_SECONDS, QUIET_SECONDS, HELD_SECONDS = 0.05, 5.0, 3.0
ASKED = ("/healthz", "/v1/jobs")
ACCEPTED, MAILBOX_FULL = 202, 429
SPEC = """
job = {{name = "attack", task = "regression"}}
roster = {{label = "{label}", features = ["telco"]}}
train = {{epochs = 1, batch_rows = {batch}}}
encryption = {{scheme = "none"}}
[data]
{label} = {{dataset = "{dataset}", label = "y"}}
telco = {{dataset = "{dataset}", columns = [{columns}]}}
{model}
"""
BOTTOM = """
[model]
layout = "embeddings"
top = {{kind = "mlp", hidden = [4]}}
bottom = {{kind = "mlp", hidden = {hidden}, out = {out}}}
[protection]
cut_noise = {{method = "none"}}
"""


def specification(
    label: str = LABEL, *, dataset: str = "table", columns: int = 1, batch: int = 32, model: str = ""
) -> str:
    names = ", ".join(f'"x{i}"' for i in range(columns))
    return SPEC.format(label=label, dataset=dataset, columns=names, batch=batch, model=model)


class Played(BaseHTTPRequestHandler):
    """The label party's ear: keeps the first answer to each job."""

    answers: dict[str, Control] = {}  # noqa: RUF012 - the server makes the handlers
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if not self.path.endswith("/envelopes"):  # it cosigns no log
            self.send_error(404)
            return
        reader = EnvelopeReader(LABEL)
        reader.add(body)
        while (envelope := reader.take()) is not None:
            if envelope.header.attempt == 0:
                header = envelope.header
                self.answers.setdefault(header.job, decode_control(header.sender, header.kind, bytes(envelope.message)))
        body = msgspec.json.encode(Reply(LABEL, WIRE_VERSION))
        self.send_response(202)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


class Server:
    """One party's server, and what its operator or an attacker asks of it."""

    def __init__(self, folder: Path, ports: tuple[int, int]) -> None:
        (self.operator_port, self.peer_port) = ports
        with (folder / "server.log").open("wb") as log:
            command = [sys.executable, "-m", "api.cli.main", "party", "serve", str(folder)]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        if self.process.stdout is not None:
            self.process.stdout.readline()
        token = (folder / TOKEN_FILE).read_text().strip()
        self.login = {"authorization": f"Bearer {token}"}
        self.http = httpx.Client(trust_env=False, timeout=BOUND_SECONDS, headers=self.login)
        tls = tls_of(LABEL, FEATURE)
        self.peer = httpx.Client(trust_env=False, timeout=BOUND_SECONDS, verify=tls)
        self.operator = f"http://127.0.0.1:{self.operator_port}"

    def resident(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return round(int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024, 1)

    def post(self, *envelopes: Envelope) -> int:
        content = b"".join(bytes(piece) for envelope in envelopes for piece in envelope.pieces())
        return self.peer.post(f"https://127.0.0.1:{self.peer_port}/peer/v1/envelopes", content=content).status_code

    def grant(self, spec: str) -> None:
        """This party's data for jobs of this specification."""
        self.http.post(f"{self.operator}/v1/grants", json={"spec": spec}).raise_for_status()

    def run(self, spec: str) -> None:
        """A job of this label party, to its end."""
        submitted = self.http.post(f"{self.operator}/v1/jobs", json={"spec": spec})
        submitted.raise_for_status()
        job, deadline = submitted.json()["id"], time.monotonic() + BOUND_SECONDS
        while (state := self.http.get(f"{self.operator}/v1/jobs/{job}").json()["state"]) != "done":
            if state not in {"proposed", "running"} or time.monotonic() > deadline:
                raise RuntimeError(f"the job {job} is {state}")
            time.sleep(0.1)

    def close(self) -> None:
        self.http.close()
        self.peer.close()
        self.process.terminate()
        self.process.wait(BOUND_SECONDS)


class Attack(NamedTuple):
    server: Server
    honest: Server
    """The other label party."""

    def small_job(self, model: str = "") -> None:
        spec = specification(HONEST, dataset="few", model=model)
        self.server.grant(spec)
        self.honest.run(spec)


class Offer:
    """A job this program proposes."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.spec = resolve(read_spec_as(TrainingSpec, text))
        self.share = secrets.token_bytes(32)
        commitment = commitment_to(self.share)
        self.job = job_id(self.spec.digest(), commitment)
        self.signed = sign(identity_of(LABEL), self.job, self.spec.digest())
        proposal = Proposal(self.spec.encoded(), commitment, self.signed)
        self.proposal = self.lane(0).seal("Proposal", encode_control(proposal))[0]

    def lane(self, attempt: int) -> Outgoing:
        return Outgoing(self.job, self.spec.digest(), attempt, identity_of(LABEL), FEATURE)

    def begin(self, server: Server) -> Outgoing:
        """The lane of its first attempt, once the server has accepted."""
        server.grant(self._text)
        server.post(self.proposal)
        deadline = time.monotonic() + BOUND_SECONDS
        while self.job not in Played.answers and time.monotonic() < deadline:
            time.sleep(0.05)
        answer, lane = Played.answers[self.job], self.lane(1)
        if not isinstance(answer, Acceptance):
            raise TypeError(f"the server did not accept the job: {answer}")
        begin = Begin({LABEL: self.share, FEATURE: answer.share}, {LABEL: self.signed, FEATURE: answer.signed})
        server.post(*lane.seal("Begin", encode_control(begin)))
        return lane


def idle_connections(attack: Attack) -> None:
    server = attack.server
    with _held([server.operator_port, server.peer_port], 500, b"GET /v1/jobs HT"):
        server.http.get(f"{server.operator}/v1/jobs").raise_for_status()
        time.sleep(HELD_SECONDS)


def bodies_one_byte_short(attack: Attack) -> None:
    head = f"POST /peer/v1/envelopes HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {POST_LIMIT}\r\n\r\n\x00\x20"
    with _held([attack.server.peer_port], 8, head.encode()) as crowd:
        for connection in crowd:
            with contextlib.suppress(ConnectionError):  # on a slow machine the port has given up on it
                connection.sendall(bytes(POST_LIMIT - 3))


def a_large_message(attack: Attack) -> None:
    """One of 128 MiB that the job's own plan allows, whole."""
    _large(attack.server, parts_kept_back=0)


def parts_that_do_not_end(attack: Attack) -> None:
    """The same in two jobs at once, each without its last part."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: _large(attack.server, parts_kept_back=1), range(2)))


def _large(server: Server, *, parts_kept_back: int) -> None:
    model = BOTTOM.format(hidden=[], out=LARGE_WIDTH)
    offer = Offer(specification(batch=LARGE_ROWS, model=model))
    parts = offer.begin(server).seal("CutGradient", memoryview(bytes(LARGE_ROWS * LARGE_WIDTH * 8)))
    parts = parts[: len(parts) - parts_kept_back]
    for part in parts:
        deadline = time.monotonic() + BOUND_SECONDS
        while (status := server.post(part)) != ACCEPTED:
            if status != MAILBOX_FULL or time.monotonic() > deadline:
                raise RuntimeError(f"the server answered {status} to an allowed message")
            time.sleep(0.05)
    server.http.post(f"{server.operator}/v1/jobs/{offer.job}/cancel").raise_for_status()


def eight_results(attack: Attack) -> None:
    """Jobs that are done, whose results have 18 MB each at the server that is measured."""
    for _ in range(RESULTS):
        attack.small_job(BOTTOM.format(hidden=[RESULT_NEURONS] * 2, out=4))


def large_proposals(attack: Attack) -> None:
    """62 proposals of about 62 KB, ended at once, then all lists."""
    server = attack.server
    for _ in range(62):
        offer = Offer(specification(columns=WIDE_COLUMNS))
        server.post(offer.proposal)
        server.post(*offer.lane(1).seal("Abort", encode_control(Abort("cancelled", "never mind"))))
    after: str | None = ""
    while after is not None:
        page = server.http.get(f"{server.operator}/v1/jobs", params={"after": after} if after else {}).json()
        after = page["next"]


def deep_keys(attack: Attack) -> None:
    for _ in range(8):
        attack.server.http.post(f"{attack.server.operator}/v1/jobs", json={"spec": ".".join("a" * 20_000) + " = 1"})


def junk(attack: Attack) -> None:
    for port in (attack.server.operator_port, attack.server.peer_port):
        for _ in range(500):
            with socket.create_connection(("127.0.0.1", port), BOUND_SECONDS, (STRANGER, 0)) as connection:
                connection.sendall(b"neither HTTP nor TLS\r\n\r\n")
                connection.recv(4096)


ATTACKS: list[Callable[[Attack], None]] = [
    idle_connections,
    bodies_one_byte_short,
    a_large_message,
    parts_that_do_not_end,
    eight_results,
    large_proposals,
    deep_keys,
    junk,
]


@contextlib.contextmanager
def _held(ports: Sequence[int], count: int, said: bytes) -> Iterator[list[socket.socket]]:
    crowd: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        for number in range(count):
            place = ("127.0.0.1", ports[number % len(ports)])
            connection = stack.enter_context(socket.create_connection(place, BOUND_SECONDS, (STRANGER, 0)))
            crowd.append(connection)
            with contextlib.suppress(ConnectionError):
                connection.sendall(said)
        yield crowd


def _party(name: str, folder: Path, ports: tuple[int, int], urls: dict[str, str], tables: dict[str, int]) -> Server:
    """With so many rows in each table; a label party's column is called y."""
    acceptance = {"peers": list(urls), "datasets": list(tables), "schemes": ["none"], "minimum_rows": 100}
    path, values = init_party(folder, name, operator_port=ports[0], peer_port=ports[1]), np.random.default_rng(0)
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in acceptance.items())
    path.write_text(f"{path.read_text()}\n[acceptance]\n{lines}")
    give_identity(folder, name)
    for table, rows in tables.items():
        cells = [f"{row},{value}" for row, value in enumerate(values.normal(size=rows))]
        (folder / f"{table}.csv").write_text("\n".join([f"id,{'x0' if name == FEATURE else 'y'}", *cells]))
    register(folder, {table: f"{table}.csv" for table in tables})
    acquaint(folder, urls)
    return Server(folder, ports)


def main() -> None:
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        label = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Played))
        label.socket = tls_at(LABEL, FEATURE, HONEST).wrap_socket(label.socket, server_side=True)
        threading.Thread(target=label.serve_forever, daemon=True).start()
        stack.callback(label.shutdown)
        ports = free_ports((FEATURE, HONEST))
        urls = {LABEL: label.server_port, HONEST: ports[HONEST][1], FEATURE: ports[FEATURE][1]}
        at = {party: f"127.0.0.1:{port}" for party, port in urls.items()}
        both = {"table": ROWS, "few": FEW_ROWS}
        server = _party(FEATURE, root / FEATURE, ports[FEATURE], {LABEL: at[LABEL], HONEST: at[HONEST]}, both)
        stack.callback(server.close)
        honest = _party(HONEST, root / HONEST, ports[HONEST], {FEATURE: at[FEATURE]}, {"few": FEW_ROWS})
        stack.callback(honest.close)
        Attack(server, honest).small_job()
        with Watch(server) as quiet:
            time.sleep(QUIET_SECONDS)
        usual_ms, start, rows = quiet.medians_ms(), server.resident(), []
        for attack in ATTACKS:
            before, began = server.resident(), time.monotonic()
            with Watch(server) as watch:
                attack(Attack(server, honest))
            time.sleep(SETTLE_SECONDS)
            row = {"attack": attack.__name__, "before_mb": before, "peak_mb": watch.peak, "after_mb": server.resident()}
            rows.append(row | watch.ratios(usual_ms) | {"seconds": round(time.monotonic() - began, 1)})
        whole = {
            "quiet_ms": usual_ms,
            "start_mb": start,
            "end_mb": (end := server.resident()),
            "kept_mb": round(end - start, 1),
            "log_kb": (root / FEATURE / "server.log").stat().st_size / 1000,
        }
        print(json.dumps(whole | {"rows": rows}, indent=1))


class Watch:
    """Memory and times of answers of a server while something is done to it, over connections of its own."""

    def __init__(self, server: Server) -> None:
        self._server, self._over = server, threading.Event()
        self._times: dict[str, list[float]] = {path: [] for path in ASKED}
        self.peak = server.resident()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def medians_ms(self) -> dict[str, float]:
        """By path; some 44 ms where TCP_NODELAY is not set."""
        return {path: round(statistics.median(times) * 1000, 2) for path, times in self._times.items()}

    def ratios(self, usual_ms: dict[str, float]) -> dict[str, dict[str, float]]:
        """Of the median and of the longest time to the median of the quiet server."""
        longest = {path: round(max(times) * 1000, 2) for path, times in self._times.items()}
        sizes = {"median_ratio": self.medians_ms(), "longest_ratio": longest}
        return {
            name: {path: round(times[path] / usual_ms[path], 1) for path in usual_ms} for name, times in sizes.items()
        }

    def _watch(self) -> None:
        with httpx.Client(trust_env=False, timeout=BOUND_SECONDS, headers=self._server.login) as client:
            while True:
                for path, times in self._times.items():
                    began = time.perf_counter()
                    client.get(self._server.operator + path).raise_for_status()
                    times.append(time.perf_counter() - began)
                self.peak = max(self.peak, self._server.resident())
                if self._over.wait(ASK_SECONDS):
                    return


if __name__ == "__main__":
    main()
