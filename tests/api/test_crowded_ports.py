"""Crowds of connections that say nothing or half of something, and junk: operator and running jobs keep places."""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from crowds import held

STRANGER, BOUND_SECONDS = "127.0.0.9", 20.0
Spec = Callable[..., str]


def test_while_500_connections_are_held_from_another_address_jobs_are_listed_cancelled_and_done(
    parties: Any, job_spec: Spec
) -> None:
    label, feature = parties
    job = label.submit(job_spec(epochs="6"))["id"]
    ports = [port for party in parties for port in (party.operator_port, party.peer_port)]
    with contextlib.ExitStack() as crowds:
        for port in ports:
            crowds.enter_context(held(port, 125, STRANGER))
        other = label.submit(job_spec(epochs="500"))["id"]
        for party in parties:
            party.wait(other, lambda _: True)  # the proposal has arrived
            assert other in {found["id"] for found in party.call("GET", "/v1/jobs").json()["jobs"]}
            assert httpx.get(f"{party.operator}/healthz", trust_env=False).status_code == 200
        assert feature.call("POST", f"/v1/jobs/{other}/cancel").json()["state"] == "cancelled"
        assert [party.over(job)["state"] for party in parties] == ["done", "done"]


def test_a_crowd_from_the_operators_own_address_does_not_keep_the_operator_out(parties: Any) -> None:
    label, _ = parties
    label.call("GET", "/v1/jobs")
    with held(label.operator_port, 200, "127.0.0.1"):
        for _ in range(3):
            with httpx.Client(trust_env=False, headers={"authorization": f"Bearer {label.token}"}) as fresh:
                assert fresh.get(f"{label.operator}/v1/jobs").status_code == 200
        assert label.call("GET", "/v1/jobs").status_code == 200


def test_a_crowd_that_asks_a_thousand_times_at_once_and_reads_no_answer_does_not_keep_the_operator_out(
    parties: Any, job_spec: Spec
) -> None:
    label, _ = parties
    job = label.submit(job_spec(epochs="3"))["id"]
    asked = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 5000
    with contextlib.ExitStack() as crowd:
        for at in range(240):
            connection = crowd.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(BOUND_SECONDS)
            connection.bind((f"127.0.0.{20 + at // 60}", 0))
            connection.connect(("127.0.0.1", label.operator_port))
            with contextlib.suppress(ConnectionError):  # it is cut
                connection.sendall(asked)
        for _ in range(3):
            with httpx.Client(trust_env=False, headers={"authorization": f"Bearer {label.token}"}) as fresh:
                answer = fresh.get(f"{label.operator}/v1/jobs", timeout=BOUND_SECONDS)
                assert answer.status_code == 200
        assert [party.over(job)["state"] for party in parties] == ["done", "done"]


def log_of(party: Any, pattern: str) -> list[str]:
    return re.findall(rf"^.*{pattern}.*$", (party.folder / "server.log").read_text(), re.MULTILINE)


def test_junk_gets_one_line_of_our_own_words_for_an_address_and_minute(parties: Any) -> None:
    label, _ = parties
    for junk in [b"\x16\x03\x01 TLS\r\n\r\n", b"junk\r\n\r\n"] * 20:
        with socket.create_connection(("127.0.0.1", label.peer_port), BOUND_SECONDS, ("127.0.0.11", 0)) as connection:
            connection.sendall(junk)
            if not junk.startswith(b"\x16"):  # that one could still become TLS
                with contextlib.suppress(ConnectionResetError):
                    assert connection.recv(65536) == b""  # no word to whom TLS does not know
        with socket.create_connection(("127.0.0.1", label.operator_port), BOUND_SECONDS, ("127.0.0.11", 0)) as operator:
            operator.sendall(junk)
            heard = operator.recv(65536)
            assert heard.startswith(b"HTTP/1.1 400 ")
            assert b'"request_id"' in heard
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    tls = label.tls("feature-party")
    hello = httpx.get(f"{label.peer}/peer/v1/hello", headers=upgrade, verify=tls, trust_env=False)
    assert hello.status_code == 200
    for port in ("peer port", "operator port"):
        assert len(log_of(label, f"{port}, from 127.0.0.11: ")) == 1
    assert not log_of(label, "pip install|Invalid HTTP|Unsupported")


def test_wrong_tokens_and_refused_envelopes_are_logged_with_the_id_their_answers_carry(parties: Any) -> None:
    label, _ = parties
    calling = httpx.HTTPTransport(local_address="127.0.0.13", verify=label.tls("feature-party"))
    with httpx.Client(trust_env=False, transport=calling) as stranger:
        asked = [
            stranger.get(f"{label.operator}/v1/jobs", headers={"authorization": "Bearer wrong"}),
            stranger.post(f"{label.peer}/peer/v1/envelopes", content=b"\x00\x04none"),
        ]
    for answer, code in zip(asked, ("401 unauthorised", "400 malformed_envelope"), strict=True):
        request_id = answer.headers["x-request-id"]
        assert answer.json().get("request_id", request_id) == request_id
        (line,) = log_of(label, rf"\[request {request_id}\]")
        assert code in line
    assert label.call("GET", "/v1/jobs").headers["x-request-id"] != asked[0].headers["x-request-id"]


def test_a_flood_of_wrong_tokens_does_not_fill_the_log(parties: Any) -> None:
    label, _ = parties
    with httpx.Client(trust_env=False, transport=httpx.HTTPTransport(local_address="127.0.0.12")) as stranger:
        for _ in range(60):
            stranger.get(f"{label.operator}/v1/jobs")
    assert len(log_of(label, "from 127.0.0.12: ")) == 20


def test_answers_are_sent_without_nagle(parties: Any) -> None:
    """asyncio sets TCP_NODELAY only on sockets it knows for TCP; without it a keep-alive answer takes 40 ms."""
    from api.ports import listen

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with listen("127.0.0.1", port, "operator_port", "") as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_looking_and_cancelling_do_not_wait_behind_submits(
    tmp_path: Any, new_party: Callable[..., Any], patients: Any, job_spec: Spec
) -> None:
    """A peer that takes connections and never answers holds every submit."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        urls = {"feature-party": f"https://127.0.0.1:{silent.getsockname()[1]}"}
        label = new_party(tmp_path / "label-party", "label-party", urls, {"patients": "patients.csv"})
        (label.folder / "patients.csv").write_bytes(patients.read_bytes())
        label.start()
        try:
            submits = [threading.Thread(target=_submit, args=(label, job_spec()), daemon=True) for _ in range(12)]
            for submit in submits:
                submit.start()
            time.sleep(0.5)  # they are all there
            with httpx.Client(trust_env=False, timeout=BOUND_SECONDS) as operator:
                operator.headers["authorization"] = f"Bearer {label.token}"
                assert operator.get(f"{label.operator}/v1/jobs").status_code == 200
                assert operator.post(f"{label.operator}/v1/jobs/none/cancel").status_code == 404
            assert any(submit.is_alive() for submit in submits)
        finally:
            label.close()


def _submit(label: Any, spec: str) -> None:
    with contextlib.suppress(httpx.HTTPError):
        headers = {"authorization": f"Bearer {label.token}"}
        httpx.post(f"{label.operator}/v1/jobs", json={"spec": spec}, headers=headers, timeout=5.0, trust_env=False)


def test_bodies_held_one_byte_short_hold_no_memory(parties: Any) -> None:
    """Eight of 16 MiB, of a sender that has nothing to say."""
    label, _ = parties
    size = 16 << 20
    head = f"POST /peer/v1/envelopes HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n\r\n".encode()
    before = resident_bytes(label)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", label.peer_port), BOUND_SECONDS))
            connection = stack.enter_context(label.tls("feature-party").wrap_socket(plain))
            connection.sendall(head + b"\x00\x20" + bytes(size - 3))
        held_bytes = resident_bytes(label) - before
        label.call("GET", "/v1/jobs")
    assert held_bytes < 60 << 20


def test_connections_that_came_and_went_leave_no_memory_behind(parties: Any) -> None:
    """Of strangers whose handshake fails and of a peer that has its answer: asyncio has 256 KB for each."""
    label, _ = parties

    def call(times: int) -> None:
        asked = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        known = label.tls("feature-party")
        for _ in range(times):
            with socket.create_connection(("127.0.0.1", label.peer_port), BOUND_SECONDS) as stranger:
                stranger.sendall(b"no handshake\r\n\r\n")
                stranger.recv(4096)
            plain = socket.create_connection(("127.0.0.1", label.peer_port), BOUND_SECONDS)
            with known.wrap_socket(plain) as peer:
                peer.sendall(asked)
                peer.recv(4096)

    call(20)
    before = resident_bytes(label)
    call(80)
    assert resident_bytes(label) - before < 10 << 20


def resident_bytes(party: Any) -> int:
    status = Path(f"/proc/{party.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) << 10
