"""An auditor with a program of its own cosigns the audit log of a party, beside the peers (c2sp.org/tlog-witness)."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import SECONDS, VFL, run
from faulty_line import FEATURE, LABEL
from identities import identity_of

from api.client import Client
from parties.settings import load, load_identity
from parties.standalone_witness import CA_FILE, load_witness
from parties.trust import verifier
from parties.trust.certificates import calling_context
from parties.trust.log_keys import log_key, origin
from parties.trust.notes import Checkpoint, Note, Proof, VerifierKey
from parties.trust.witness import SIZE_TYPE

NAME = "auditor.example.org"
SETTLED_SECONDS = 60.0

Json = dict[str, Any]


class Auditor:
    """Its witness, as it is run from the command line."""

    def __init__(self, folder: Path, port: int, key: str) -> None:
        self.folder, self.port, self.key = folder, port, key
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def table(self) -> str:
        """Of party.toml."""
        ca = self.folder / CA_FILE
        return f'\n[[audit.witness]]\nurl = "{self.url}"\nkey = "{self.key}"\nca = "{ca}"\n'

    def answer_for(self, *parties: str) -> None:
        self.take_keys(*(str(log_key(party, identity_of(party).key.raw)) for party in parties))

    def take_keys(self, *keys: str) -> None:
        settings, logs = self.folder / "witness.toml", json.dumps(keys)
        text = re.sub(r"^logs = .*$", f"logs = {logs}", settings.read_text(), flags=re.MULTILINE)
        settings.write_text(re.sub(r"^port = .*$", f"port = {self.port}", text, flags=re.MULTILINE))

    def start(self) -> None:
        with (self.folder / "witness.log").open("a") as log:
            command = [VFL, "witness", "run", str(self.folder)]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        assert f"{NAME} is ready: {self.url}/add-checkpoint" in self._process.stdout.readline()

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            assert self._process.wait(SECONDS) == 0
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def asked(self, request: str) -> httpx.Response:
        with httpx.Client(verify=calling_context((self.folder / CA_FILE).read_bytes()), trust_env=False) as client:
            return client.post(f"{self.url}/add-checkpoint", content=request.encode())


@pytest.fixture(scope="module")
def set_up(tmp_path_factory: pytest.TempPathFactory, some_ports: Callable[[int], list[int]]) -> Auditor:
    """Its server has been there once, so that parties have the file that pins its key."""
    folder = tmp_path_factory.mktemp("auditor")
    key = run(folder, "witness", "init", "auditor", "--name", NAME)["key"]
    made = Auditor(folder / "auditor", some_ports(1)[0], key)
    made.answer_for(LABEL)
    made.start()
    made.stop()
    return made


@pytest.fixture
def auditor(set_up: Auditor, tmp_path: Path, some_ports: Callable[[int], list[int]]) -> Iterator[Auditor]:
    """Not running yet, with a folder and a port of its own."""
    made = Auditor(tmp_path / "auditor", some_ports(1)[0], set_up.key)
    shutil.copytree(set_up.folder, made.folder)
    made.answer_for(LABEL)
    yield made
    made.stop()


@pytest.fixture
def two(
    tmp_path: Path,
    new_party: Callable[..., Any],
    some_ports: Callable[[int], list[int]],
    files: tuple[Path, Path],
    auditor: Auditor,
) -> Iterator[dict[str, Any]]:
    """The label party names the witness in its party.toml."""
    ports = some_ports(4)
    urls = {LABEL: f"https://127.0.0.1:{ports[1]}", FEATURE: f"https://127.0.0.1:{ports[3]}"}
    with ExitStack() as stack:
        label = new_party(tmp_path / LABEL, LABEL, {FEATURE: urls[FEATURE]}, {"patients": str(files[0])}, ports[:2])
        feature = new_party(tmp_path / FEATURE, FEATURE, {LABEL: urls[LABEL]}, {"clinic": str(files[1])}, ports[2:])
        with (label.folder / "party.toml").open("a") as settings:
            settings.write(auditor.table)
        label.granting = [feature]
        for party in (label, feature):
            stack.callback(party.close)
            party.start()
        yield {LABEL: label, FEATURE: feature}


def head(party: Any) -> Json:
    found: Json = party.call("GET", "/v1/audit/head").json()
    return found


def until(party: Any, holds: Callable[[Json], bool]) -> Json:
    """The head, once something holds of it."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while not holds(found := head(party)):
        assert time.monotonic() < deadline, found
        time.sleep(0.3)
    return found


def cosigned_by_all(found: Json) -> bool:
    sizes = [*found["cosigned"].values(), *(each["cosigned"] for each in found["witnesses"])]
    return all(size == found["size"] for size in sizes)


def trained(two: dict[str, Any], spec: str) -> str:
    job: str = two[LABEL].submit(spec)["id"]
    assert [party.over(job)["state"] for party in two.values()] == ["done", "done"]
    return job


def line(party: Any) -> Json:
    """What `vfl doctor` says of witnesses."""
    findings = party.call("GET", "/v1/doctor").json()["findings"]
    (found,) = (each for each in findings if each["check"] == "witnesses")
    return dict(found)


def test_its_cosignatures_are_kept_shown_exported_and_verified(
    two: dict[str, Any], auditor: Auditor, job_spec: Callable[..., str], tmp_path: Path
) -> None:
    auditor.start()
    label = two[LABEL]
    trained(two, job_spec(epochs="1"))
    found = until(label, cosigned_by_all)
    (standing,) = found["witnesses"]
    assert (standing["name"], standing["url"], standing["problem"]) == (NAME, auditor.url, "")
    assert line(label)["result"] == "ok"
    assert VerifierKey.parse(found["key"]) == log_key(LABEL, identity_of(LABEL).key.raw)

    shown = subprocess.run(
        [VFL, "audit", "show", "--party", label.folder], capture_output=True, text=True, timeout=SECONDS, check=True
    ).stdout
    assert f"{NAME} the first {found['size']}" in " ".join(shown.split())
    proof = Proof.parse(label.call("GET", "/v1/audit/proof/0").content)
    proof.checkpoint.verify(VerifierKey.parse(auditor.key))

    (listed,) = run(tmp_path, "witness", "list", "auditor")["heads"]
    assert (listed["log"], listed["size"]) == (origin(LABEL), found["size"])
    folders = [tmp_path / "bundles" / name for name in two]
    for party, folder in zip(two.values(), folders, strict=True):
        with Client(party.operator, party.token) as client:
            client.export_audit(folder)
    bundles, problems = verifier.check_all(folders, {})
    assert not problems
    assert NAME in {cosigner[0] for cosigner in bundles[0].cosigners}
    command = [sys.executable, str(folders[0] / "verifier.py"), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    told = re.search(rf"up to leaf (\d+) by {re.escape(NAME)}", done.stdout)
    assert told is not None, done.stdout

    assert int(told[1]) >= listed["size"]


def test_a_witness_that_is_down_holds_no_job_up_and_is_asked_again(
    two: dict[str, Any], auditor: Auditor, job_spec: Callable[..., str]
) -> None:
    label = two[LABEL]
    trained(two, job_spec(epochs="1"))
    (standing,) = until(label, lambda found: bool(found["witnesses"][0]["problem"]))["witnesses"]
    assert (standing["cosigned"], standing["contradicts"]) == (0, False)
    assert "cannot be reached" in standing["problem"]
    told = line(label)
    assert (told["result"], told["side"]) == ("warning", "between")
    assert auditor.url in told["fix"]
    auditor.start()
    until(label, cosigned_by_all)
    assert line(label)["result"] == "ok"


def test_a_witness_that_knows_no_log_of_this_party_says_so(two: dict[str, Any], auditor: Auditor) -> None:
    auditor.answer_for(FEATURE)
    auditor.start()
    two[FEATURE].call("POST", "/v1/invitations", json={"peer": "shop", "hours": 1})
    two[LABEL].call("GET", "/v1/audit/bundle")  # which is a leaf, so there is a head to cosign
    (standing,) = until(two[LABEL], lambda found: bool(found["witnesses"][0]["problem"]))["witnesses"]
    assert standing["problem"] == "it does not know this log"


def signed(party: str, size: int, root: bytes = bytes(32)) -> Note:
    """A head of any size that the party's own key has signed."""
    text, key = str(Checkpoint(origin(party), size, root)), log_key(party, identity_of(party).key.raw)
    return Note(text).signed(key.sign(text, identity_of(party).private.sign))


def test_a_witness_that_has_signed_another_log_stops_new_jobs_at_whichever_side_they_begin(
    two: dict[str, Any], auditor: Auditor, job_spec: Callable[..., str]
) -> None:
    auditor.start()
    assert auditor.asked(f"old 0\n\n{signed(LABEL, 10**6)}").status_code == 200
    answer = two[LABEL].call("POST", "/v1/jobs", json={"spec": job_spec(epochs="1")})
    assert (answer.status_code, answer.json()["code"]) == (409, "audit_log_contradicted")
    assert NAME in answer.json()["detail"]
    assert "take the witness out of party.toml" in answer.json()["hint"]
    (standing,) = head(two[LABEL])["witnesses"]
    assert standing["contradicts"]
    assert line(two[LABEL])["result"] == "failed"
    entries = two[LABEL].call("GET", "/v1/audit/entries", params={"limit": 1000}).json()["entries"]
    (told,) = (entry for entry in entries if entry["event"] == "restored")
    assert (told["peer"], told["detail"]["witness"], told["detail"]["signed_elsewhere"]) == ("", NAME, 10**6)


def test_it_signs_what_extends_what_it_signed_last_and_nothing_else(auditor: Auditor) -> None:
    auditor.start()

    def told(request: str) -> tuple[int, str]:
        answer = auditor.asked(request)
        is_size = answer.headers["content-type"].startswith(SIZE_TYPE)
        return answer.status_code, answer.text if answer.is_success or is_size else answer.json()["code"]

    status, cosignature = told(f"old 0\n\n{signed(LABEL, 5)}")
    assert status == 200
    Note.parse(f"{signed(LABEL, 5)}{cosignature}".encode()).verify(VerifierKey.parse(auditor.key))
    assert told(f"old 0\n\n{signed(LABEL, 9)}") == (409, "5\n")
    assert told(f"old 5\n\n{signed(LABEL, 5, b'x' * 32)}") == (409, "rewritten_log")
    assert told(f"old 5\n\n{signed(LABEL, 9)}") == (422, "rewritten_log")
    assert told(f"old 0\n\n{signed(FEATURE, 5)}") == (404, "unknown_log")
    forged = Note(signed(LABEL, 6).text, signed(LABEL, 7).signatures)
    assert told(f"old 5\n\n{forged}") == (403, "note_not_signed")
    assert told("nothing") == (400, "malformed_note")
    assert told("x" * (200 << 10))[0] == 413
    auditor.stop()
    auditor.start()  # what it has signed is known after a restart
    assert told(f"old 0\n\n{signed(LABEL, 9)}") == (409, "5\n")
    assert (auditor.folder / "witness.db").stat().st_mode & 0o777 == 0o600
    assert load_witness(auditor.folder)[1].name == NAME


def test_after_a_rotation_it_signs_the_same_log_once_the_auditor_has_added_the_new_key(
    two: dict[str, Any], auditor: Auditor, job_spec: Callable[..., str]
) -> None:
    auditor.start()
    label, old = two[LABEL], str(log_key(LABEL, identity_of(LABEL).key.raw))
    trained(two, job_spec(epochs="1"))
    before = until(label, cosigned_by_all)["size"]
    assert label.call("POST", "/v1/key/rotate").status_code == 200
    found = until(label, lambda found: bool(found["witnesses"][0]["problem"]))
    assert "does not know the present key of this log" in found["witnesses"][0]["problem"]
    assert found["witnesses"][0]["cosigned"] >= before
    assert not found["witnesses"][0]["contradicts"]
    trained(two, job_spec(epochs="1"))  # which this holds up no more than an absence does

    auditor.stop()
    auditor.take_keys(old, found["key"])
    auditor.start()
    until(label, cosigned_by_all)
    present = load_identity(label.folder, load(label.folder)).private
    text, key = str(Checkpoint(origin(LABEL), 10**6, bytes(32))), VerifierKey.parse(found["key"])
    other_log = Note(text).signed(key.sign(text, present.sign))
    assert auditor.asked(f"old 0\n\n{other_log}").status_code == 409


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('name = "two words"', "is the key of"),
        ('logs = ["bank"]', "logs: "),
        ('logs = ["{cosigner}"]', "must be keys of logs"),
        ('certificate = "own.pem"', "name both"),
        ("port = 0", "port: "),
        ("prot = 1", "prot: "),
    ],
)
def test_what_is_wrong_in_witness_toml_is_named(auditor: Auditor, text: str, told: str) -> None:
    key, _, value = text.replace("{cosigner}", auditor.key).partition(" = ")
    settings = auditor.folder / "witness.toml"
    others = [each for each in settings.read_text().splitlines() if not each.startswith(f"{key} = ")]
    settings.write_text("\n".join([f"{key} = {value}", *others]))
    command = [VFL, "witness", "run", str(auditor.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 4
    assert told in done.stderr
