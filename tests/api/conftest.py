"""Two real server processes on free loopback ports, each with its own folder and only its own file."""

import json
import re
import signal
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import free_ports
from forked_servers import ServerProcess
from identities import acquaint, init_known_party, tls_of
from registered_tables import register

from parties.settings import TOKEN_FILE

READY_SECONDS = 30.0
JOB_SECONDS = 60.0
ORDINARY = """
import ctypes, os, sys

for capability in range(64):
    getattr(ctypes.CDLL(None), "prctl", lambda *_: None)(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Started with this before its arguments, Python runs without root's powers even where the tests are run by root."""
LABEL, FEATURE = "label-party", "feature-party"
FILES = {
    LABEL: {name: f"{name}.csv" for name in ("patients", "faulty_patients", "dated", "redated")},
    FEATURE: {name: f"{name}.csv" for name in ("clinic", "reordered", "capitals", "faulty_clinic", "reclinic")},
}
"""Of the parties that all tests share: files by data set."""

Json = dict[str, Any]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--endings", type=int, default=0, help="how many seeded faults of test_endings.py to run")


def calling() -> httpx.Client:
    """Calls operator ports without TLS; to read the system's authorities for it would take longer than most calls."""
    return httpx.Client(timeout=40.0, trust_env=False, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


@dataclass
class Server:
    """One party as its operator sees it."""

    name: str
    folder: Path
    operator_port: int
    peer_port: int
    process: ServerProcess | None = None
    client: httpx.Client = field(default_factory=calling)
    granting: list["Server"] = field(default_factory=list)
    """Whose operators grant the jobs that are submitted here, before they are proposed."""

    @property
    def operator(self) -> str:
        return f"http://127.0.0.1:{self.operator_port}"

    @property
    def peer(self) -> str:
        return f"https://127.0.0.1:{self.peer_port}"

    def tls(self, caller: str) -> ssl.SSLContext:
        """What a peer uses to call this party."""
        return tls_of(caller, self.name)

    @property
    def token(self) -> str:
        return (self.folder / TOKEN_FILE).read_text().strip()

    def start(self) -> "Server":
        self.process = ServerProcess(self.folder)
        assert "is ready" in self.process.first_line, (self.folder / "server.log").read_text()
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(READY_SECONDS)

    def close(self) -> None:
        """Whatever a test left running ends here."""
        self.client.close()
        if self.process is not None and self.process.runs:
            self.stop()

    def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}"} | arguments.pop("headers", {})
        return self.client.request(method, self.operator + path, headers=headers, **arguments)

    def submit(self, spec: str) -> Json:
        for other in self.granting:
            other.grant(spec)
        answer = self.call("POST", "/v1/jobs", json={"spec": spec})
        assert answer.status_code == 202, answer.text
        job: Json = answer.json()
        return job

    def grant(self, spec: str, **terms: Any) -> httpx.Response:
        """The narrowest grants for a job; a party that would refuse it anyway, or is not there, grants nothing."""
        asked, headers = {"spec": spec, "uses": "standing", "terms": terms}, {"authorization": f"Bearer {self.token}"}
        with calling() as fresh:  # the server may have been another process before
            try:
                return fresh.post(f"{self.operator}/v1/grants", headers=headers, json=asked)
            except httpx.TransportError:
                return httpx.Response(503)

    def job(self, job: str) -> Json:
        found: Json = self.call("GET", f"/v1/jobs/{job}").json()
        return found

    def wait(self, job: str, until: Callable[[Json], bool]) -> Json:
        """Follow the job's events until something holds of it."""
        deadline, last = time.monotonic() + JOB_SECONDS, 0
        while time.monotonic() < deadline:
            found = self.job(job) if self.call("GET", f"/v1/jobs/{job}").status_code == 200 else None
            if found is None:
                time.sleep(0.05)
                continue
            if until(found):
                return found
            answer = self.call("GET", f"/v1/jobs/{job}/events", params={"after": last, "wait_seconds": 2})
            last = answer.json()["last"]
        raise AssertionError(json.dumps(self.job(job), indent=1))

    def over(self, job: str) -> Json:
        return self.wait(job, lambda found: found["state"] not in {"proposed", "running"})


def make_party(
    folder: Path, name: str, ports: list[int], peers: dict[str, str], datasets: dict[str, str], database_url: str = ""
) -> Server:
    """A folder as `vfl party init` leaves it, then filled in as its operator would; it trusts its peers already."""
    path = init_known_party(folder, name, operator_port=ports[0], peer_port=ports[1])
    acceptance = {
        "peers": list(peers),
        "datasets": list(datasets),
        "schemes": ["ckks", "none", "updates"],
        "fixed_seed": True,
        "minimum_rows": 100,
        "private_seed": f"{name} 0",
    }
    text = path.read_text()
    if database_url:
        text += f"\n[storage]\nurl = {json.dumps(database_url)}\n"
    text += "\n[acceptance]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in acceptance.items())
    text = text.replace("[server]", "[server]\npeer_timeout_seconds = 8")
    path.write_text(text)
    register(folder, datasets, database_url)
    acquaint(folder, {peer: url.removeprefix("https://") for peer, url in peers.items()}, database_url)
    return Server(name, folder, ports[0], ports[1])


def write_breast_cancer(label: Path, feature: Path) -> None:
    """The label party holds the ten "error" columns and the label, the feature party the other twenty."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    ids = [f"patient-{row:03}" for row in range(len(data.target))]
    errors = [[*row[10:20], y] for row, y in zip(data.data, data.target, strict=True)]
    _write_csv(label, ids, [*(f"e{i}" for i in range(10)), "y"], errors)
    others = [*range(10), *range(20, 30)]
    _write_csv(feature, ids, [f"x{i}" for i in range(20)], [[row[i] for i in others] for row in data.data])


def write_dated(patients: Path, clinic: Path) -> None:
    """The label party's table with a day of admission, the newest fifth not at its end; and both tables again, with
    nonsense in every value of these rows."""
    days = [day * 100 % 569 for day in range(569)]
    newest = [day >= 569 - round(0.2 * 569) for day in days]
    header, *rows = (line.split(",") for line in patients.read_text().splitlines())
    dated = [[*row, str(date(2024, 1, 1) + timedelta(day))] for row, day in zip(rows, days, strict=True)]
    other = [
        [row[0], *("-7" for _ in row[1:-2]), str(1 - float(row[-2])), row[-1]] if new else row
        for row, new in zip(dated, newest, strict=True)
    ]
    for name, lines in (("dated", dated), ("redated", other)):
        text = "\n".join(map(",".join, [[*header, "day"], *lines]))
        patients.with_name(f"{name}.csv").write_text(text + "\n")
    header, *rows = (line.split(",") for line in clinic.read_text().splitlines())
    other = [[row[0], *("1e6" for _ in row[1:])] if new else row for row, new in zip(rows, newest, strict=True)]
    clinic.with_name("reclinic.csv").write_text("\n".join(map(",".join, [header, *other])) + "\n")


def write_faulty(path: Path, *, column: int, every: int, cell: str) -> None:
    """The same table beside it, with one value again and again in a column, and a space after each id."""
    header, *rows = (line.split(",") for line in path.read_text().splitlines())
    for row in rows:
        row[0] += " "
    for row in rows[::every]:
        row[column] = cell
    path.with_name(f"faulty_{path.name}").write_text("\n".join(map(",".join, [header, *rows])) + "\n")


def _write_csv(path: Path, ids: list[str], names: list[str], rows: list[list[float]]) -> None:
    lines = [",".join(["id", *names])]
    lines += [",".join([key, *(repr(float(cell)) for cell in row)]) for key, row in zip(ids, rows, strict=True)]
    path.write_text("\n".join(lines) + "\n")


def spec(**changes: str) -> str:
    """A clear job over the breast-cancer files; a change replaces the value of a key."""
    text = f"""\
[job]
name = "breast-cancer"
task = "binary"
seed = 0
[roster]
label = "{LABEL}"
features = ["{FEATURE}"]
[data.{LABEL}]
dataset = "patients"
columns = {json.dumps([f"e{i}" for i in range(10)])}
label = "y"
[data.{FEATURE}]
dataset = "clinic"
columns = {json.dumps([f"x{i}" for i in range(20)])}
[train]
epochs = 3
batch_rows = 64
[encryption]
scheme = "none"
"""
    for key, value in changes.items():
        text, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert count, key
    return text


@pytest.fixture(scope="session")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """(label party, feature party), running."""
    root = tmp_path_factory.mktemp("parties")
    ports = free_ports(4)
    urls = [f"https://127.0.0.1:{port}" for port in ports]
    label = make_party(root / LABEL, LABEL, ports[:2], {FEATURE: urls[3]}, FILES[LABEL])
    feature = make_party(root / FEATURE, FEATURE, ports[2:], {LABEL: urls[1]}, FILES[FEATURE])
    write_breast_cancer(label.folder / "patients.csv", feature.folder / "clinic.csv")
    header, first, second, *rest = (feature.folder / "clinic.csv").read_text().splitlines()
    (feature.folder / "capitals.csv").write_text("\n".join([header, *map(str.upper, [first, second, *rest])]) + "\n")
    (feature.folder / "reordered.csv").write_text("\n".join([header, second, first, *rest]) + "\n")
    write_dated(label.folder / "patients.csv", feature.folder / "clinic.csv")
    write_faulty(label.folder / "patients.csv", column=4, every=1, cell="7")
    write_faulty(feature.folder / "clinic.csv", column=6, every=10, cell="-999")
    with (feature.folder / "party.toml").open("a") as settings:
        settings.write('\n[bottom]\nmodule = "bottom.py:build"\n')
    servers = [label, feature]
    label.granting, feature.granting = [feature], [label]
    try:
        yield label.start(), feature.start()
    finally:
        for server in servers:
            server.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, files: tuple[Path, Path]) -> Iterator[dict[str, Server]]:
    """A label party and a feature party by name, running, which a module may stop and kill; rho is capped at 0.1."""
    root, ports = tmp_path_factory.mktemp("pair"), free_ports(4)
    urls = {LABEL: f"https://127.0.0.1:{ports[1]}", FEATURE: f"https://127.0.0.1:{ports[3]}"}
    label = make_party(root / LABEL, LABEL, ports[:2], {FEATURE: urls[FEATURE]}, {"patients": str(files[0])})
    feature = make_party(root / FEATURE, FEATURE, ports[2:], {LABEL: urls[LABEL]}, {"clinic": str(files[1])})
    label.granting = [feature]
    for party in (label, feature):
        settings = party.folder / "party.toml"
        settings.write_text(settings.read_text().replace("\nfixed_seed", "\nmaximum_rho = 0.1\nfixed_seed"))
    try:
        yield {LABEL: label.start(), FEATURE: feature.start()}
    finally:
        label.close()
        feature.close()


@pytest.fixture(scope="session")
def ordinary() -> list[str]:
    """The interpreter as an ordinary user of this account starts it; its arguments come after."""
    return [sys.executable, "-c", ORDINARY]


@pytest.fixture(scope="session")
def job_spec() -> Callable[..., str]:
    return spec


@pytest.fixture(scope="session")
def new_party() -> Callable[..., Server]:
    """Make a party's folder: (folder, name, peers' urls, data sets' files, its two ports or free ones, its database's
    url if that is no file)."""

    def make(
        folder: Path,
        name: str,
        peers: dict[str, str],
        datasets: dict[str, str],
        ports: list[int] | None = None,
        database_url: str = "",
    ) -> Server:
        return make_party(folder, name, ports or free_ports(2), peers, datasets, database_url)

    return make


@pytest.fixture(scope="session")
def some_ports() -> Callable[[int], list[int]]:
    return free_ports


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("files")
    write_breast_cancer(folder / "patients.csv", folder / "clinic.csv")
    return folder / "patients.csv", folder / "clinic.csv"


@pytest.fixture(scope="session")
def patients(files: tuple[Path, Path]) -> Path:
    return files[0]


@pytest.fixture(scope="session")
def clinic(files: tuple[Path, Path]) -> Path:
    return files[1]
