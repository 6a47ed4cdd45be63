"""A peer that cannot store, stands still, answers a byte at a time or says a wrong last word: both sides end alike."""

import contextlib
import resource
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from identities import identity_of, tls_at

from parties.storage.engine import DATABASE_FILE
from parties.wire.control import Control, Finish, encode_control
from parties.wire.envelopes import WIRE_VERSION, Outgoing
from parties.wire.receipts import Reply

LABEL, FEATURE = "label-party", "feature-party"
TIMEOUT_SECONDS, SHORT_SECONDS, BOUND_SECONDS = 3.0, 1.0, 60.0
LONG = {"epochs": "20000"}

Json = dict[str, Any]
Pair = tuple[Any, Any]
Spec = Callable[..., str]


@pytest.fixture(scope="module")
def pair(
    tmp_path_factory: pytest.TempPathFactory,
    new_party: Callable[..., Any],
    some_ports: Callable[[int], list[int]],
    files: tuple[Path, Path],
) -> Iterator[Pair]:
    """(label party, feature party), running; they wait three seconds for each other."""
    root, ports = tmp_path_factory.mktemp("troubled"), some_ports(4)
    urls = [f"https://127.0.0.1:{port}" for port in ports]
    label = new_party(root / LABEL, LABEL, {FEATURE: urls[3]}, {"patients": str(files[0])}, ports[:2])
    feature = new_party(root / FEATURE, FEATURE, {LABEL: urls[1]}, {"clinic": str(files[1])}, ports[2:])
    label.granting = [feature]
    for party in (label, feature):
        shorten_timeout(party)
    try:
        yield label.start(), feature.start()
    finally:
        for party in (label, feature):
            party.close()


def shorten_timeout(party: Any) -> None:
    settings = party.folder / "party.toml"
    settings.write_text(settings.read_text().replace("seconds = 8", f"seconds = {TIMEOUT_SECONDS}"))


@contextlib.contextmanager
def locked_database(party: Any) -> Iterator[None]:
    """Another program writes to the party's database and does not come to an end."""
    with contextlib.closing(sqlite3.connect(party.folder / DATABASE_FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def full_disk(party: Any) -> Iterator[None]:
    """The party's server can write to no file."""
    _, most = resource.prlimit(party.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(party.process.pid, resource.RLIMIT_FSIZE, (0, most))
    try:
        yield
    finally:
        resource.prlimit(party.process.pid, resource.RLIMIT_FSIZE, (most, most))


@contextlib.contextmanager
def stopped(party: Any) -> Iterator[None]:
    """The party's server stands still, as after Ctrl-Z or in a machine that is suspended."""
    party.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        party.process.send_signal(signal.SIGCONT)


def trains(job: Json) -> bool:
    return job["state"] == "running" and job["epoch"] > 0 and job["worker_pid"] is not None


def training(pair: Pair, job_spec: Spec) -> str:
    """A long job that has begun to train at both sides."""
    job: str = pair[0].submit(job_spec(**LONG))["id"]
    for party in pair:
        party.wait(job, trains)
    return job


def endings(pair: Pair, job: str) -> list[Json]:
    """How the job ended at the label party and at the feature party."""
    return [party.over(job) for party in pair]


def run_next_job(pair: Pair, job_spec: Spec) -> None:
    job = pair[0].submit(job_spec(epochs="1"))["id"]
    assert [ended["state"] for ended in endings(pair, job)] == ["done", "done"]


# A proposal that cannot be stored


def test_a_proposal_waits_for_a_database_that_is_locked_for_a_moment(pair: Pair, job_spec: Spec) -> None:
    label, feature = pair
    feature.grant(job_spec(epochs="1"))
    with locked_database(feature):
        job = label.submit(job_spec(epochs="1"))["id"]
        time.sleep(SHORT_SECONDS)
        assert feature.call("GET", f"/v1/jobs/{job}").status_code == 404
    assert [ended["state"] for ended in endings(pair, job)] == ["done", "done"]


@pytest.mark.parametrize("trouble", [locked_database, full_disk])
def test_a_proposal_that_cannot_be_stored_ends_by_name_and_leaves_nothing_behind(
    pair: Pair, job_spec: Spec, trouble: Callable[[Any], contextlib.AbstractContextManager[None]]
) -> None:
    label, feature = pair
    with trouble(feature):
        job = label.submit(job_spec(epochs="1"))["id"]
        ended = label.over(job)
        assert feature.call("GET", f"/v1/jobs/{job}").status_code == 404
    assert (ended["state"], ended["error"]["code"]) == ("failed", "peer_storage_failed")
    assert ended["error"]["side"] == FEATURE
    assert f"{FEATURE} cannot store anything now" in ended["error"]["message"]
    assert feature.call("GET", f"/v1/jobs/{job}").status_code == 404


@pytest.mark.parametrize("trouble", [locked_database, full_disk])
def test_a_proposer_that_cannot_store_its_own_job_is_told_and_nothing_is_sent(
    pair: Pair, job_spec: Spec, trouble: Callable[[Any], contextlib.AbstractContextManager[None]]
) -> None:
    label, feature = pair
    before = [party.call("GET", "/v1/jobs").json() for party in pair]
    with trouble(label):
        answer = label.call("POST", "/v1/jobs", json={"spec": job_spec(epochs="1")})
    assert answer.status_code == 507
    assert answer.json()["code"] == ("database_busy" if trouble is locked_database else "storage_failed")
    assert answer.json()["hint"]
    assert [party.call("GET", "/v1/jobs").json() for party in (label, feature)] == before


# Storage that fails in mid-training


def test_a_running_job_waits_for_a_database_that_is_locked_for_a_moment(pair: Pair, job_spec: Spec) -> None:
    job = training(pair, job_spec)
    for party in pair:
        with locked_database(party):
            time.sleep(SHORT_SECONDS)
        step = party.job(job)["step"]
        party.wait(job, lambda found, step=step: found["step"] > step)
    pair[1].call("POST", f"/v1/jobs/{job}/cancel")
    assert [ended["state"] for ended in endings(pair, job)] == ["cancelled", "cancelled"]


@pytest.mark.parametrize("side", [0, 1], ids=[LABEL, FEATURE])
@pytest.mark.parametrize("trouble", [locked_database, full_disk])
def test_a_party_that_can_store_nothing_in_mid_training_fails_the_job_at_both_sides(
    pair: Pair, job_spec: Spec, side: int, trouble: Callable[[Any], contextlib.AbstractContextManager[None]]
) -> None:
    job = training(pair, job_spec)
    troubled, other = pair[side], pair[1 - side]
    with trouble(troubled):
        told = other.over(job)["error"]
    own = troubled.over(job)["error"]
    assert own["code"] == ("database_busy" if trouble is locked_database else "storage_failed")
    assert own["side"] == told["side"] == troubled.name
    assert own["fix"]
    assert told["code"] in {own["code"], "peer_storage_failed"}
    assert "store" in told["message"]
    assert [ended["state"] for ended in endings(pair, job)] == ["failed", "failed"]


@pytest.mark.parametrize("side", [0, 1], ids=[LABEL, FEATURE])
def test_a_server_that_is_killed_while_its_disk_is_full_learns_from_its_peer_why_the_job_had_failed(
    pair: Pair, job_spec: Spec, side: int
) -> None:
    job = training(pair, job_spec)
    troubled, other = pair[side], pair[1 - side]
    resource.prlimit(troubled.process.pid, resource.RLIMIT_FSIZE, (0, -1))
    told = other.over(job)["error"]
    troubled.stop(signal.SIGKILL)
    assert told["code"] in {"storage_failed", "peer_storage_failed"}
    troubled.start()
    own = troubled.over(job)["error"]  # it would go on with the job, and hears how that had ended
    assert (own["code"], own["side"]) == (told["code"], other.name)
    assert f"{other.name} ended the job: " in own["message"]
    assert "store" in own["message"]
    assert [ended["state"] for ended in endings(pair, job)] == ["failed", "failed"]
    assert other.job(job)["error"] == told


# A server that stands still


def test_a_submit_to_a_server_that_stands_still_is_answered_and_stores_nothing(pair: Pair, job_spec: Spec) -> None:
    label, feature = pair
    before = [party.call("GET", "/v1/jobs").json() for party in pair]
    assert label.call("POST", f"/v1/peers/{FEATURE}/check").status_code == 200  # a connection is open
    with stopped(feature):
        answer = label.call("POST", "/v1/jobs", json={"spec": job_spec(epochs="1")})
    assert (answer.status_code, answer.json()["code"]) == (502, "peer_unreachable")
    # A connection that was left open is silent; a new one does not end its TLS handshake.
    silent = ("the exchange did not end within", "no connection within")
    assert any(f"{FEATURE}'s server cannot be reached: {said}" in answer.json()["detail"] for said in silent)
    assert [party.call("GET", "/v1/jobs").json() for party in (label, feature)] == before


def test_a_server_that_stands_still_once_it_is_asked_fails_the_job_at_both_sides(pair: Pair, job_spec: Spec) -> None:
    label, feature = pair
    job = label.submit(job_spec(**LONG))["id"]
    with stopped(feature):
        ended = label.over(job)
    assert (ended["state"], ended["error"]["code"], ended["error"]["side"]) == ("failed", "peer_timeout", FEATURE)
    run_next_job(pair, job_spec)  # what lay on the line has been read by then
    known = feature.call("GET", f"/v1/jobs/{job}")
    assert known.status_code == 404 or feature.over(job)["state"] == "failed"


@pytest.mark.parametrize("side", [0, 1], ids=[LABEL, FEATURE])
def test_a_server_that_stands_still_in_mid_training_is_waited_for_and_the_job_goes_on(
    pair: Pair, job_spec: Spec, side: int
) -> None:
    job = training(pair, job_spec)
    still, other = pair[side], pair[1 - side]
    with stopped(still):
        parked = other.wait(job, lambda found: found["waits_for"])
        assert parked["state"] == "running"
        assert still.name in parked["waits_for"]
        events = other.call("GET", f"/v1/jobs/{job}/events").json()["events"]
        (told,) = (event["text"] for event in events if event["kind"] == "parked")
        assert f"{still.name} stopped answering for {TIMEOUT_SECONDS:g} s" in told
    for party in pair:
        party.wait(job, lambda found: found["attempt"] > 1 and found["worker_pid"] and not found["waits_for"])
    assert "this server stood still" in (still.folder / "server.log").read_text()
    other.call("POST", f"/v1/jobs/{job}/cancel")
    assert [ended["state"] for ended in endings(pair, job)] == ["cancelled", "cancelled"]


def test_a_server_that_stands_still_for_a_moment_goes_on_with_its_job(pair: Pair, job_spec: Spec) -> None:
    job = training(pair, job_spec)
    for party in pair:
        with stopped(party):
            time.sleep(SHORT_SECONDS)
        step = party.job(job)["step"]
        party.wait(job, lambda found, step=step: found["step"] > step)
    pair[0].call("POST", f"/v1/jobs/{job}/cancel")
    assert [ended["state"] for ended in endings(pair, job)] == ["cancelled", "cancelled"]


# A peer that answers a byte at a time


class SlowPeer:
    """Answers the first questions as a party does, and from then on one byte every half second."""

    def __init__(self, answers: int) -> None:
        self._left = answers
        self._over = threading.Event()
        self._tls = tls_at(FEATURE, LABEL)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._over.set()
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, plain: socket.socket) -> None:
        body = msgspec.json.encode(Reply(FEATURE, WIRE_VERSION))
        head = f"HTTP/1.1 202 Accepted\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        with contextlib.suppress(OSError), self._tls.wrap_socket(plain, server_side=True) as connection:
            connection.recv(1 << 16)
            self._left -= 1
            if self._left >= 0:
                connection.sendall(head.encode() + body)
                return
            for byte in head.encode() + body:
                connection.sendall(bytes([byte]))
                if self._over.wait(0.5):
                    return


@pytest.fixture
def label_beside(
    tmp_path: Path, new_party: Callable[..., Any], files: tuple[Path, Path]
) -> Iterator[Callable[[SlowPeer], Any]]:
    """Starts a label party whose only peer is a slow one."""
    with contextlib.ExitStack() as stack:

        def start(peer: SlowPeer) -> Any:
            stack.callback(peer.close)
            label = new_party(tmp_path / LABEL, LABEL, {FEATURE: peer.url}, {"patients": str(files[0])})
            shorten_timeout(label)
            stack.callback(label.close)
            return label.start()

        yield start


def test_a_submit_to_a_peer_that_answers_a_byte_at_a_time_is_answered(
    label_beside: Callable[[SlowPeer], Any], job_spec: Spec
) -> None:
    label = label_beside(SlowPeer(answers=0))
    answer = label.call("POST", "/v1/jobs", json={"spec": job_spec()}, timeout=BOUND_SECONDS)
    assert (answer.status_code, answer.json()["code"]) == (502, "peer_unreachable")
    assert "the exchange did not end within 10 s" in answer.json()["detail"]
    assert label.call("GET", "/v1/jobs").json()["jobs"] == []


def test_a_peer_that_answers_its_proposal_a_byte_at_a_time_fails_the_job_by_name(
    label_beside: Callable[[SlowPeer], Any], job_spec: Spec
) -> None:
    label = label_beside(SlowPeer(answers=1))
    ended = label.over(label.submit(job_spec())["id"])
    assert (ended["state"], ended["error"]["code"], ended["error"]["side"]) == ("failed", "peer_timeout", FEATURE)
    assert "the exchange did not end within" in ended["error"]["message"]


# A last word in mid-training


@pytest.mark.parametrize("side", [0, 1], ids=[LABEL, FEATURE])
def test_a_finish_in_mid_training_is_a_broken_rule_and_ends_the_job_at_both_sides(
    pair: Pair, job_spec: Spec, side: int
) -> None:
    """The test says it in the name of one side, which goes on training."""
    job = training(pair, job_spec)
    sender, receiver = pair[side], pair[1 - side]
    assert said(sender, receiver, job, Finish()).status_code == 202
    found, told = receiver.over(job)["error"], sender.over(job)["error"]
    assert (found["code"], found["side"]) == ("remote_protocol_error", sender.name)
    assert told["code"] == "remote_protocol_error"
    assert told["message"].startswith(f"{receiver.name} ended the job: ")
    assert [ended["state"] for ended in endings(pair, job)] == ["failed", "failed"]
    for party in pair:
        assert not (party.folder / "models" / job / "model.safetensors").exists()


def test_after_all_of_it_both_servers_run_the_next_job_to_its_end(pair: Pair, job_spec: Spec) -> None:
    run_next_job(pair, job_spec)


def said(sender: Any, receiver: Any, job: str, word: Control) -> httpx.Response:
    """One last word, which stands outside the numbers that order all other envelopes."""
    digest = bytes.fromhex(receiver.job(job)["spec_digest"])
    (envelope,) = Outgoing(job, digest, 2, identity_of(sender.name), receiver.name).seal(
        word.kind, encode_control(word)
    )
    post = b"".join(bytes(piece) for piece in envelope.pieces())
    url, tls = f"{receiver.peer}/peer/v1/envelopes", receiver.tls(sender.name)
    return httpx.post(url, content=post, timeout=BOUND_SECONDS, verify=tls, trust_env=False)
