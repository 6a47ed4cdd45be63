"""Every route of the peer port against every credential that is not a trusted peer's, or not for this.

The routes are those of the app itself: a new one is covered as soon as it is there. Each refusal leaves a trace: who
does not get past TLS a line in the server's log, everybody else a leaf of the audit log.
"""

import dataclasses
import itertools
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fastapi.routing import APIRoute
from identities import identity_of, peer_named, tls_of
from label_side import Label, changed

from api.peer.app import peer_app
from parties.party import Party
from parties.settings import init_party, load
from parties.storage.engine import Database
from parties.storage.ledger import REFUSALS_PER_SECOND
from parties.storage.peer_store import REMOVED, WAITING, PeerStore
from parties.trust.certificates import Leaf, client_context, issue_leaf, issuer_name
from parties.trust.identity import Domain
from parties.wire.control import Abort, encode_control
from parties.wire.envelopes import Envelope
from parties.wire.receipts import Reply

LABEL, FEATURE = "label-party", "feature-party"
CALLERS = [f"caller-{number}" for number in range(20)]
"""Trusted peers with which a test calls: of very many refusals of one peer not all become leaves."""
NOBODY, REMOVED_PEER, WAITING_PEER = "nobody", "removed-party", "waiting-party"
ENVELOPES_ROUTE = ("POST", "/peer/v1/envelopes")
REFUSED = {400, 401, 403, 409, 422}
BOUND_SECONDS = 20.0


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """(method, path) of all that a peer's app answers."""
    folder = tmp_path_factory.mktemp("routes")
    init_party(folder, FEATURE)
    party = Party(folder, load(folder), identity_of(FEATURE))
    try:
        found = peer_app(party).routes
        assert all(isinstance(route, APIRoute) for route in found)
        return sorted(
            (method, route.path) for route in found if isinstance(route, APIRoute) for method in route.methods or ()
        )
    finally:
        party.close()


@pytest.fixture(scope="module")
def feature(
    tmp_path_factory: pytest.TempPathFactory,
    new_party: Callable[..., Any],
    clinic: Path,
    job_spec: Callable[..., str],
) -> Iterator[Any]:
    """It trusts the label party and has granted it a job, has removed one peer, and waits for its operator's word about
    another."""
    folder = tmp_path_factory.mktemp("credentials") / FEATURE
    nowhere = dict.fromkeys([LABEL, *CALLERS], "https://127.0.0.1:9")
    server = new_party(folder, FEATURE, nowhere, {"clinic": str(clinic)})
    database = Database(folder)
    for name, state in ((REMOVED_PEER, REMOVED), (WAITING_PEER, WAITING)):
        words = "one two three four five six" if state == WAITING else ""
        PeerStore(database).put(msgspec.structs.replace(peer_named(name), state=state, words=words))
    database.close()
    server.start().grant(job_spec())
    yield server
    server.close()


_HOSTS, _CALLERS = itertools.count(20), iter(CALLERS)


def new_source() -> str:
    """An address to call from that nobody has called from: the log has one line a minute for each."""
    return f"127.0.0.{next(_HOSTS)}"


@pytest.fixture
def source() -> str:
    return new_source()


@pytest.fixture
def caller() -> str:
    """A trusted peer that has been refused nothing yet."""
    return next(_CALLERS)


def request(
    feature: Any, tls: ssl.SSLContext, source: str, route: tuple[str, str], content: bytes = b""
) -> httpx.Response:
    """Over a connection of its own."""
    transport = httpx.HTTPTransport(verify=tls, local_address=source)
    with httpx.Client(transport=transport, timeout=BOUND_SECONDS, trust_env=False) as client:
        return client.request(*(route[0], feature.peer + route[1]), content=content)


def log(feature: Any, source: str) -> list[str]:
    """What the server has written of the calls from this address, which it may still be about to do."""
    deadline = time.monotonic() + BOUND_SECONDS
    while True:
        written = (feature.folder / "server.log").read_text().splitlines()
        if (lines := [line for line in written if f"from {source}: " in line]) or time.monotonic() > deadline:
            return lines
        time.sleep(0.02)


class AuditedRefusals:
    """What the audit log of a party tells of refusals, from now on."""

    def __init__(self, party: Any) -> None:
        self._party, self._seen = party, party.call("GET", "/v1/audit/head").json()["size"]

    def new(self) -> list[dict[str, Any]]:
        """A refusal is answered at once, and stored with the next leaves."""
        end = time.monotonic() + BOUND_SECONDS
        while True:
            found = self._party.call("GET", "/v1/audit/entries", params={"after": self._seen, "limit": 1000}).json()
            self._seen += len(found["entries"])
            refusals = [entry for entry in found["entries"] if entry["event"] == "refused"]
            if refusals or time.monotonic() > end:
                return refusals
            time.sleep(0.05)


# Connections


def no_certificate() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def forged() -> ssl.SSLContext:
    """A certificate that names the label party's key as its issuer, and is signed by another."""
    key, stranger = ec.generate_private_key(ec.SECP256R1()), identity_of(NOBODY)
    issuer, today = identity_of(LABEL).key, datetime.now(UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    certificate = (
        x509.CertificateBuilder()
        .subject_name(name(LABEL))
        .issuer_name(name(issuer_name(issuer)))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public), critical=False)
        .sign(stranger.private, None)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + private
    return client_context(Leaf(pem, today), (identity_of(FEATURE).key,))


def expired() -> ssl.SSLContext:
    return client_context(issue_leaf(identity_of(LABEL).private, LABEL, days=-1), (identity_of(FEATURE).key,))


CONNECTIONS: dict[str, Callable[[], ssl.SSLContext]] = {
    "no certificate": no_certificate,
    "the certificate of a stranger": lambda: tls_of(NOBODY, FEATURE),
    "a certificate that a stranger signed in a peer's name": forged,
    "an expired certificate of a trusted peer": expired,
    "the certificate of a removed peer": lambda: tls_of(REMOVED_PEER, FEATURE),
    "the certificate of a peer that the operator has not confirmed": lambda: tls_of(WAITING_PEER, FEATURE),
}


@pytest.mark.parametrize("credential", CONNECTIONS)
def test_no_route_is_reached_and_the_handshake_is_logged_with(
    credential: str, feature: Any, routes: list[tuple[str, str]]
) -> None:
    for route in routes:
        source = new_source()
        with pytest.raises(httpx.TransportError):
            request(feature, CONNECTIONS[credential](), source, route)
        (line,) = log(feature, source)
        assert "a TLS handshake failed: " in line


def test_the_same_calls_of_a_trusted_peer_get_an_answer(
    feature: Any, routes: list[tuple[str, str]], source: str
) -> None:
    """What is refused above is refused for its credential alone."""
    answers = {route: request(feature, tls_of(LABEL, FEATURE), source, route).status_code for route in routes}
    assert sorted(answers.values()) == [200, 202, 400, 401, 422, 422, 422]
    assert answers["POST", "/peer/v1/check"] == 422  # there is no question in an empty body
    assert answers["POST", "/peer/v1/enrolment"] == 401  # the meeting is for whoever holds an open invitation
    assert answers["POST", "/peer/v1/witness/add-checkpoint"] == 400  # nor a head of a log
    assert answers["POST", "/peer/v1/rotation"] == 422  # nor a statement about a key
    assert answers["POST", "/peer/v1/certificate"] == 422  # nor a nonce
    assert len(routes) == 7


def test_on_a_connection_that_was_open_when_its_peer_was_removed_no_route_answers_any_more(
    tmp_path: Path, new_party: Callable[..., Any], routes: list[tuple[str, str]]
) -> None:
    server = new_party(tmp_path / FEATURE, FEATURE, {LABEL: "https://127.0.0.1:9"}, {}).start()
    clients = [httpx.Client(verify=server.tls(LABEL), timeout=BOUND_SECONDS, trust_env=False) for _ in routes]
    try:
        for client in clients:
            assert client.get(f"{server.peer}/peer/v1/hello").status_code == 200
        assert server.call("DELETE", f"/v1/peers/{LABEL}").json()["state"] == "removed"
        refusals = AuditedRefusals(server)
        for client, (method, path) in zip(clients, routes, strict=True):
            answer = client.request(method, server.peer + path)
            assert (answer.status_code, answer.json()["code"]) == (401, "unknown_sender")
            (refusal,) = refusals.new()
            assert refusal["peer"] == LABEL
            assert refusal["detail"] == {"code": "unknown_sender", "request": f"{method} {path}"}
    finally:
        for each in (*clients, server):
            each.close()


# Envelopes


def signed_by(envelope: Envelope, signer: str) -> Envelope:
    signature = identity_of(signer).sign(Domain.ENVELOPE, bytes(envelope.encoded))
    return dataclasses.replace(envelope, signature=signature)


def changed_later(envelope: Envelope) -> Envelope:
    return dataclasses.replace(changed(envelope, sent_at=0.0), signature=envelope.signature)


def of_sender(feature: Any, spec: str, sender: str) -> Envelope:
    """Signed with that sender's own key."""
    return Label(feature.peer, spec, sender).proposal()


UNKNOWN: dict[str, Callable[[Any, str], Envelope]] = {
    "signed with another key": lambda to, spec: signed_by(Label(to.peer, spec).proposal(), NOBODY),
    "with a header that was changed after it was signed": lambda to, spec: changed_later(
        Label(to.peer, spec).proposal()
    ),
    "that names another key": lambda to, spec: changed(
        Label(to.peer, spec).proposal(), key=identity_of(NOBODY).key.digest
    ),
    "of a stranger": lambda to, spec: of_sender(to, spec, NOBODY),
    "of a removed peer": lambda to, spec: of_sender(to, spec, REMOVED_PEER),
    "of a peer that the operator has not confirmed": lambda to, spec: of_sender(to, spec, WAITING_PEER),
    "in the name of its receiver": lambda to, spec: of_sender(to, spec, FEATURE),
}
"""An envelope in the hands of a peer whose certificate is right."""
OTHERS: dict[str, Callable[[Any, str], Envelope]] = {
    "for another receiver": lambda to, spec: changed(Label(to.peer, spec).proposal(), receiver="somebody"),
    "for a job that nobody proposed": lambda to, spec: Label(to.peer, spec).seal("Abort"),
    "of a kind that its sender may not send": lambda to, spec: Label(to.peer, spec).seal("Acceptance"),
    "that was made an hour ago": lambda to, spec: changed(
        Label(to.peer, spec).proposal(), sent_at=time.time() - 3600.0
    ),
}
ENVELOPES = UNKNOWN | OTHERS


def is_writing(route: tuple[str, str]) -> bool:
    return route[0] not in {"GET", "HEAD"}


@pytest.mark.parametrize("wrong", ENVELOPES)
def test_no_route_takes_and_the_audit_log_tells_of_an_envelope(
    wrong: str, feature: Any, routes: list[tuple[str, str]], source: str, caller: str, job_spec: Callable[..., str]
) -> None:
    jobs, refusals = feature.call("GET", "/v1/jobs").json(), AuditedRefusals(feature)
    for route in filter(is_writing, routes):
        envelope = ENVELOPES[wrong](feature, job_spec())
        answer = request(feature, tls_of(caller, FEATURE), source, route, envelope.as_sent())
        code, method_and_path = answer.json()["code"], " ".join(route)
        assert answer.status_code in REFUSED, route
        assert f"{method_and_path} refused: {answer.status_code} {code}" in log(feature, source)[-1]
        (refusal,) = refusals.new()
        if route == ENVELOPES_ROUTE and code != "unknown_sender":  # its sender has signed it, whoever brings it
            assert (refusal["peer"], refusal["detail"]) == (LABEL, {"code": code})
            assert refusal["envelope"]["digest"] == envelope.digest.hex()
        else:
            assert (refusal["peer"], refusal["envelope"]) == (caller, None)
            assert refusal["detail"] == {"code": code, "request": method_and_path}
    assert feature.call("GET", "/v1/jobs").json() == jobs


@pytest.mark.parametrize("path", ["/peer/v1/nothing", "/v1/jobs", "/"])
def test_a_route_that_is_none_is_refused_and_audited_like_the_others(
    path: str, feature: Any, source: str, caller: str
) -> None:
    refusals = AuditedRefusals(feature)
    answer = request(feature, tls_of(caller, FEATURE), source, ("POST", path))
    assert answer.status_code == 404
    (refusal,) = refusals.new()
    assert (refusal["peer"], refusal["detail"]) == (caller, {"code": "no_such_route", "request": f"POST {path}"})


def test_who_is_unknown_and_why_cannot_be_told_from_the_answer(
    feature: Any, routes: list[tuple[str, str]], source: str, job_spec: Callable[..., str]
) -> None:
    for route in filter(is_writing, routes):
        answers = set()
        for make in UNKNOWN.values():
            answer = request(feature, tls_of(LABEL, FEATURE), source, route, make(feature, job_spec()).as_sent())
            request_id = answer.headers["x-request-id"]
            headers = [(name, value) for name, value in answer.headers.items() if name not in {"date", "x-request-id"}]
            body = answer.content.replace(request_id.encode(), b"")
            answers.add((answer.status_code, body, tuple(headers)))
        assert len(answers) == 1, answers


# Replays


def accepted(job: dict[str, Any]) -> bool:
    """Whether this party has read its table and has answered the proposal."""
    return any(line["kind"] == "Acceptance" for line in job["traffic"])


def told(feature: Any, job: str) -> tuple[dict[str, Any], Any]:
    """What the operator is told of a job, but for what this party itself has sent since."""
    found = feature.job(job)
    received = [line for line in found["traffic"] if line["direction"] == "received"]
    return found | {"traffic": received}, feature.call("GET", f"/v1/jobs/{job}/events").json()


def test_an_unchanged_replay_inside_its_job_gets_its_receipt_again_and_changes_nothing(
    feature: Any, job_spec: Callable[..., str], source: str
) -> None:
    label = Label(feature.peer, job_spec())
    proposal = label.proposal()
    first = label.post(proposal)
    assert msgspec.json.decode(first.content, type=Reply).receipts[0].last == proposal.digest
    feature.wait(label.job, accepted)
    before = told(feature, label.job)
    assert before[0]["state"] == "proposed"
    for _ in range(3):
        again = request(feature, tls_of(LABEL, FEATURE), source, ENVELOPES_ROUTE, proposal.as_sent())
        assert (again.status_code, again.content) == (202, first.content)
    assert told(feature, label.job) == before
    label.lane = label.new_lane(1)
    label.post(label.seal("Abort", encode_control(Abort("cancelled", "never mind"))))


def test_an_unchanged_replay_of_a_job_that_is_over_changes_nothing(
    feature: Any, job_spec: Callable[..., str], source: str
) -> None:
    """It is acknowledged, as a sender whose receipt was lost needs it."""
    label = Label(feature.peer, job_spec())
    proposal = label.proposal()
    label.lane = label.new_lane(1)
    abort = label.seal("Abort", encode_control(Abort("cancelled", "never mind")))
    assert label.post(proposal).status_code == 202
    feature.wait(label.job, accepted)
    assert label.post(abort).status_code == 202
    assert feature.over(label.job)["state"] == "cancelled"
    before, jobs = told(feature, label.job), feature.call("GET", "/v1/jobs").json()
    for envelope in (proposal, abort, proposal):
        answer = request(feature, tls_of(LABEL, FEATURE), source, ENVELOPES_ROUTE, envelope.as_sent())
        (receipt,) = msgspec.json.decode(answer.content, type=Reply).receipts
        assert (answer.status_code, receipt.last) == (202, envelope.digest)
    assert told(feature, label.job) == before
    assert feature.call("GET", "/v1/jobs").json() == jobs


def test_a_replay_of_a_job_that_this_party_no_longer_knows_is_refused(
    feature: Any, job_spec: Callable[..., str], source: str
) -> None:
    label = Label(feature.peer, job_spec())
    time.sleep(1 / REFUSALS_PER_SECOND)  # after so many, the log takes one at a time
    label.lane, refusals = label.new_lane(1), AuditedRefusals(feature)
    envelope = label.seal("StepApplied")
    answer = request(feature, tls_of(LABEL, FEATURE), source, ENVELOPES_ROUTE, envelope.as_sent())
    assert (answer.status_code, answer.json()["code"]) == (422, "no_such_job")
    (refusal,) = refusals.new()
    assert (refusal["detail"], refusal["envelope"]["digest"]) == ({"code": "no_such_job"}, envelope.digest.hex())
