"""A server that shows a certificate of its organisation's authority: peers know it by its identity key all the same."""

import contextlib
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from authority import Authority
from command_line import VFL
from cryptography.hazmat.primitives.serialization import Encoding
from faulty_line import FEATURE, LABEL
from identities import identity_of
from logs_of_servers import Json, Two, trained
from played_servers import proxy_context

from parties.doctor.machine import machine
from parties.trust.certificates import OwnChain, client_context, first_of, issue_leaf, operator_context
from parties.trust.shown_certificate import NONCE_BYTES, SignedCertificate
from parties.wire.transport import CERTIFICATE_ROUTE

BOUND_SECONDS = 60
OWN = '\n[server.tls]\ncertificate = "own.pem"\nkey = "own.key"\n'


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def two(tmp_path: Path, new_party: Callable[..., Any], files: tuple[Path, Path], authority: Authority) -> Iterator[Two]:
    """Strangers to each other, not running; the label party brings a certificate of its own."""
    label = new_party(tmp_path / LABEL, LABEL, {}, {"patients": str(files[0])})
    feature = new_party(tmp_path / FEATURE, FEATURE, {}, {"clinic": str(files[1])})
    label.granting = [feature]
    for party, other in ((label, FEATURE), (feature, LABEL)):
        settings = party.folder / "party.toml"
        settings.write_text(settings.read_text().replace("\npeers = []", f'\npeers = ["{other}"]'))
    authority.write(label.folder)
    with (label.folder / "party.toml").open("a") as settings_file:
        settings_file.write(OWN)
    with contextlib.ExitStack() as stack:
        for party in (label, feature):
            stack.callback(party.close)
        yield {LABEL: label, FEATURE: feature}


def enrol(inviting: Any, invited: Any) -> None:
    line = inviting.call("POST", "/v1/invitations", json={"peer": invited.name}).json()["line"]
    answer = invited.call("POST", "/v1/invitations/accept", json={"line": line})
    assert answer.status_code == 200, answer.text
    for party, other in ((inviting, invited), (invited, inviting)):
        words = {"words": answer.json()["words"]}
        assert party.call("POST", f"/v1/peers/{other.name}/confirm", json=words).status_code == 200


def running(two: Two) -> Two:
    """They have met."""
    for party in two.values():
        party.start()
    enrol(two[LABEL], two[FEATURE])
    return two


def check(party: Any, name: str) -> Json:
    """Whether it reaches a peer."""
    found: Json = party.call("POST", f"/v1/peers/{name}/check").json()
    return found


def doctor(party: Any, name: str) -> dict[str, Json]:
    """What fails of what it finds between itself and a peer."""
    findings = party.call("POST", f"/v1/doctor/{name}").json()["findings"]
    return {each["check"]: each for each in findings if each["result"] == "failed"}


def shown(party: Any) -> bytes:
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", party.peer_port)))


def written(party: Any) -> bytes:
    return first_of((party.folder / "own.pem").read_bytes())


def restart(party: Any) -> None:
    """So that nobody goes on over a connection that was open."""
    party.stop()
    party.start()


@contextlib.contextmanager
def playing(context: ssl.SSLContext, answer: Callable[[str, bytes], bytes]) -> Iterator[str]:
    """The address of a server that shows this, and asks for no certificate."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = answer(self.path, self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Nobody reads it."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *arguments: Any) -> None:
            """Whoever calls does not trust it, and goes away."""

    with Quiet(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_two_parties_enrol_check_and_train_and_the_port_shows_the_organisations_certificate(
    two: Two, job_spec: Callable[..., str]
) -> None:
    running(two)
    assert shown(two[LABEL]) == written(two[LABEL])
    assert check(two[FEATURE], LABEL) == {"peer": LABEL, "answered": True}
    assert check(two[LABEL], FEATURE) == {"peer": FEATURE, "answered": True}
    assert doctor(two[FEATURE], LABEL) == doctor(two[LABEL], FEATURE) == {}
    trained(two, job_spec(epochs="1"))


def test_the_invited_party_may_bring_one_too_and_a_new_identity_key_changes_nothing(
    two: Two, authority: Authority
) -> None:
    authority.write(two[FEATURE].folder)
    with (two[FEATURE].folder / "party.toml").open("a") as settings:
        settings.write(OWN)
    running(two)
    for name, other in ((LABEL, FEATURE), (FEATURE, LABEL)):
        assert two[name].call("POST", "/v1/key/rotate").json()["peers"][0]["knows"]
        restart(two[name])
        assert check(two[other], name) == {"peer": name, "answered": True}
        assert check(two[name], other) == {"peer": other, "answered": True}


def test_a_newer_certificate_is_shown_by_itself_and_peers_learn_it(
    two: Two, authority: Authority, job_spec: Callable[..., str]
) -> None:
    running(two)
    before = shown(two[LABEL])
    authority.write(two[LABEL].folder)
    assert shown(two[LABEL]) == written(two[LABEL]) != before
    assert doctor(two[FEATURE], LABEL) == {}
    authority.write(two[LABEL].folder)
    restart(two[LABEL])
    assert check(two[FEATURE], LABEL) == {"peer": LABEL, "answered": True}
    trained(two, job_spec(epochs="1"))


def test_another_certificate_of_the_same_authority_is_refused_also_if_it_passes_the_question_on(
    two: Two, authority: Authority, tmp_path: Path
) -> None:
    running(two)
    authority.write(tmp_path)
    stolen = operator_context(OwnChain((tmp_path / "own.pem").read_bytes() + (tmp_path / "own.key").read_bytes()))
    as_feature = client_context(
        issue_leaf(identity_of(FEATURE).private, FEATURE), [identity_of(LABEL).key], written(two[LABEL])
    )
    asked = []

    def pass_on(path: str, body: bytes) -> bytes:
        asked.append(path)
        return httpx.post(two[LABEL].peer + path, content=body, verify=as_feature, trust_env=False).content

    with playing(stolen, pass_on) as address:
        trusting = ssl.create_default_context(cadata=authority.pem.decode())
        deceived = httpx.Client(base_url=f"https://{address}", verify=trusting, trust_env=False)
        with deceived:  # who would trust the authority
            assert deceived.post(CERTIFICATE_ROUTE, content=bytes(NONCE_BYTES)).status_code == 200
        two[FEATURE].call("POST", f"/v1/peers/{LABEL}/address", json={"address": address})
        restart(two[FEATURE])
        answer = check(two[FEATURE], LABEL)
        assert answer["code"] == "peer_unreachable"
        assert "neither issued nor signed" in answer["detail"]
        assert doctor(two[FEATURE], LABEL)["identity key"]["side"] == "between"
    assert set(asked) == {CERTIFICATE_ROUTE}  # nothing else was said to it


def test_a_peer_that_signs_what_is_no_certificate_is_refused_like_one_that_signs_nothing(
    two: Two, tmp_path: Path
) -> None:
    running(two)
    for signed in (b"", b"no certificate", bytes(40_000)):
        with playing(proxy_context(tmp_path), partial(said, signed)) as address:
            two[FEATURE].call("POST", f"/v1/peers/{LABEL}/address", json={"address": address})
            assert "neither issued nor signed" in check(two[FEATURE], LABEL)["detail"]


def said(certificate: bytes, path: str, nonce: bytes) -> bytes:
    """By the label party itself."""
    assert path == CERTIFICATE_ROUTE
    return msgspec.msgpack.encode(SignedCertificate.of(identity_of(LABEL), nonce, certificate))


def test_one_that_has_ended_is_refused_and_named_at_both_sides(two: Two, authority: Authority) -> None:
    running(two)
    authority.write(two[LABEL].folder, days=-1)
    restart(two[LABEL])
    answer = check(two[FEATURE], LABEL)
    assert answer["code"] == "peer_unreachable"
    assert "its certificate has ended" in answer["detail"]
    assert "[server.tls]" in doctor(two[FEATURE], LABEL)["identity key"]["fix"]
    (line,) = (each for each in machine(two[LABEL].folder) if each.check == "peer port")
    assert (line.result, line.text) == ("failed", "The certificate of the peer port has ended.")
    assert "own.pem" in line.fix


def test_files_that_are_no_certificate_with_its_key_stop_the_start_and_are_named_by_doctor(
    two: Two, authority: Authority, tmp_path: Path
) -> None:
    label = two[LABEL]
    (label.folder / "own.pem").write_bytes(authority.write(tmp_path).public_bytes(Encoding.PEM))
    done = subprocess.run(
        [VFL, "party", "serve", label.folder], capture_output=True, text=True, timeout=BOUND_SECONDS, check=False
    )
    assert done.returncode == 4
    assert "are no certificate with its private key" in done.stderr
    (line,) = (each for each in machine(label.folder) if each.check == "peer port")
    assert line.result == "failed"
