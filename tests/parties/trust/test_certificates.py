"""Certificates that follow from pinned keys, in real handshakes over a pair of sockets."""

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from identities import acquaint, identity_of

from parties.party import Party
from parties.settings import PartySettings
from parties.trust.certificates import LEAF_DAYS, RENEWED_AFTER_DAYS, Leaf, client_context, issue_leaf, server_context
from parties.trust.identity import IdentityKey

BOUND_SECONDS = 20.0


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> x509.Certificate:
    """The certificate that the server showed. Raises ssl.SSLError where either side refuses the other."""
    ends = socket.socketpair()
    refused: list[ssl.SSLError] = []

    def listen() -> None:
        try:
            with server.wrap_socket(ends[0], server_side=True) as end:
                end.sendall(b"in")
        except ssl.SSLError as error:
            refused.append(error)
            ends[0].close()

    for end in ends:
        end.settimeout(BOUND_SECONDS)
    listening = threading.Thread(target=listen)
    listening.start()
    shown = b""
    try:
        with client.wrap_socket(ends[1]) as end:
            shown = end.getpeercert(binary_form=True) or b""
            end.recv(2)
    except ssl.SSLError as error:
        refused.append(error)
    finally:
        listening.join(BOUND_SECONDS)
    if refused:  # the side that refuses knows why, the other one has an alert
        raise min(refused, key=lambda error: "ALERT" in str(error.reason))
    return x509.load_der_x509_certificate(shown)


def leaf_of(party: str, name: str = "") -> Leaf:
    return issue_leaf(identity_of(party).private, name or party)


A, B, STRANGER = (identity_of(name).key for name in ("a", "b", "stranger"))


def test_two_parties_that_pin_each_other_meet_whatever_names_their_certificates_carry() -> None:
    handshake(server_context(leaf_of("b", "elsewhere"), [A]), client_context(leaf_of("a", "nowhere"), [B]))


@pytest.mark.parametrize(("showing", "trusting"), [("stranger", A), ("a", STRANGER)])
def test_a_client_whose_key_is_not_pinned_is_refused(showing: str, trusting: IdentityKey) -> None:
    with pytest.raises(ssl.SSLError):
        handshake(server_context(leaf_of("b"), [trusting]), client_context(leaf_of(showing), [B]))


def test_a_server_whose_key_is_not_pinned_is_refused() -> None:
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        handshake(server_context(leaf_of("stranger"), [A]), client_context(leaf_of("a"), [B]))


def test_a_certificate_issues_no_other() -> None:
    """Whoever steals the key of a leaf has it until the leaf ends, and cannot make one that is good for longer."""
    stolen = leaf_of("a")
    key = serialization.load_pem_private_key(stolen.pem, None)
    issuer = x509.load_pem_x509_certificate(stolen.pem)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    own = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "elsewhere")]))
        .issuer_name(issuer.subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, SHA256())
    )
    private = own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = made.public_bytes(serialization.Encoding.PEM) + issuer.public_bytes(serialization.Encoding.PEM)
    with pytest.raises(ssl.SSLError, match="invalid CA certificate"):
        handshake(server_context(leaf_of("b"), [A]), client_context(Leaf(chain + private, stolen.made_at), [B]))


@pytest.fixture
def party(tmp_path: Path) -> Iterator[Party]:
    acquaint(tmp_path, {"a": "127.0.0.1:9"})
    made = Party(tmp_path, PartySettings(name="b"), identity_of("b"))
    yield made
    made.close()


@pytest.mark.parametrize(("age", "shown"), [(RENEWED_AFTER_DAYS - 1, 1), (RENEWED_AFTER_DAYS + 1, 2)])
def test_a_server_shows_another_certificate_after_sixty_days_and_its_peers_need_not_hear_of_it(
    party: Party, age: int, shown: int
) -> None:
    client = client_context(leaf_of("a"), [B])
    first = handshake(party.peers.tls.server(), client)
    assert first.not_valid_after_utc - datetime.now(UTC) > timedelta(days=LEAF_DAYS - 1)
    party.peers.tls._leaf = party.peers.tls._leaf._replace(made_at=datetime.now(UTC) - timedelta(days=age))
    second = handshake(party.peers.tls.server(), client)
    assert len({first.serial_number, second.serial_number}) == shown
