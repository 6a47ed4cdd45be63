"""TLS between parties: leaf certificates that an identity key issues, and who is trusted because of which key.

    trust anchor   made here from a pinned key alone; what is trusted is its name and key, so its own signature is not
                   looked at (RFC 5280, 6.1.1)
    leaf           P-256, 90 days, signed by the identity key; renewed after 60; a peer need not hear of it
    own chain      what an organisation brings for its server instead; a caller trusts that very certificate, once the
                   identity key has signed it (shown_certificate.py)

No host name is checked on either side: a party may move to another machine and take its key along. TLS 1.3 only, and
both sides show a certificate.
"""

import contextlib
import os
import secrets
import ssl
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from parties.trust.identity import IdentityKey

LEAF_DAYS, RENEWED_AFTER_DAYS = 90, 60
CLOCK_HOURS = 24
"""A leaf is valid from before it is made, for peers whose clock is behind."""
_SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=False,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)
"""What an issuer must say of itself where a reader is strict (RFC 5280, 4.2.1.9)."""
_ALWAYS = datetime(2020, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


class Leaf(NamedTuple):
    """A server's certificate and its key, as PEM."""

    pem: bytes
    made_at: datetime

    @property
    def ends_at(self) -> datetime:
        return self.made_at + timedelta(days=LEAF_DAYS)

    @property
    def is_due(self) -> bool:
        """Whether it is time to make another."""
        return datetime.now(UTC) - self.made_at > timedelta(days=RENEWED_AFTER_DAYS)


class OwnChain(NamedTuple):
    """A certificate that an organisation brings, the chain behind it and its key, as PEM."""

    pem: bytes

    @property
    def ends_at(self) -> datetime:
        return x509.load_pem_x509_certificates(self.pem)[0].not_valid_after_utc


def issue_leaf(issuer: Ed25519PrivateKey, name: str, days: int = LEAF_DAYS) -> Leaf:
    """A certificate for the server of the party `name`, which this identity key answers for."""
    made_at, key = datetime.now(UTC), ec.generate_private_key(ec.SECP256R1())
    public = issuer.public_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(_issuer_name(IdentityKey(public.public_bytes_raw())))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(made_at - timedelta(hours=CLOCK_HOURS) + min(timedelta(), timedelta(days=days)))
        .not_valid_after(made_at + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        .sign(issuer, None)
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Leaf(certificate.public_bytes(Encoding.PEM) + private, made_at)


def server_context(shown: Leaf | OwnChain, trusted: Iterable[IdentityKey]) -> ssl.SSLContext:
    """For the peer port: whoever connects shows a leaf that one of these keys has issued."""
    context = _context(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), shown, trusted)
    context.num_tickets = 0  # a session that is taken up again would not ask who is trusted now
    return context


def client_context(leaf: Leaf, trusted: Iterable[IdentityKey], signed: bytes = b"") -> ssl.SSLContext:
    """For calls to one peer: its server shows a leaf that one of its own keys has issued, or the certificate (DER)
    that such a key has signed."""
    context = _context(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), leaf, trusted)
    if signed:
        _trust_itself(context, signed)
    return context


def unverified_context(leaf: Leaf) -> ssl.SSLContext:
    """For one question whose answer is signed, to a server that shows nothing known: nobody is believed because of
    such a connection, and nothing else is said over it."""
    context = _context(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), leaf, ())
    context.verify_mode = ssl.CERT_NONE
    return context


def operator_context(shown: Leaf | OwnChain) -> ssl.SSLContext:
    """For the operator port: whoever connects shows a token, and no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _load(context, shown)
    return context


def identity_certificate(issuer: Ed25519PrivateKey) -> bytes:
    """PEM of the certificate that an operator names with --ca: it pins this identity key."""
    return _anchor(IdentityKey(issuer.public_key().public_bytes_raw()), issuer).public_bytes(Encoding.PEM)


def calling_context(trusted: bytes) -> ssl.SSLContext:
    """For calls to an operator port whose certificate one of these (PEM) has issued.

    An identity key issues for one party alone, so the host may have any name. An authority issues for many: then the
    certificate must name the host that is called. Raises ValueError for what is no certificate.
    """
    context = ssl.create_default_context(cadata=trusted.decode("ascii"))
    context.check_hostname = not all(map(_is_of_identity, x509.load_pem_x509_certificates(trusted)))
    return context


def pinned_context(chain: bytes) -> ssl.SSLContext:
    """For calls to a server whose certificate is this one, the first of a chain in PEM, or was issued by it.

    Whatever host it names. Raises ValueError for what is no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.minimum_version = False, ssl.TLSVersion.TLSv1_3
    _trust_itself(context, first_of(chain))
    return context


def first_of(chain: bytes) -> bytes:
    """The certificate (DER) that a server shows with this chain (PEM). Raises ValueError for what is no certificate."""
    return x509.load_pem_x509_certificates(chain)[0].public_bytes(Encoding.DER)


def issuer_of(certificate: bytes) -> str:
    """The name of the key that issued a certificate (DER) which TLS has verified already."""
    (name,) = x509.load_der_x509_certificate(certificate).issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def issuer_name(key: IdentityKey) -> str:
    """As `issuer_of` answers for a leaf of this key."""
    return key.digest.hex()  # 64 characters, as many as a common name may have (RFC 5280, appendix A.1)


def _context(context: ssl.SSLContext, shown: Leaf | OwnChain, trusted: Iterable[IdentityKey]) -> ssl.SSLContext:
    context.check_hostname = False  # the key says who it is, not a name
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _load(context, shown)
    for key in trusted:
        context.load_verify_locations(cadata=_anchor(key, Ed25519PrivateKey.generate()).public_bytes(Encoding.DER))
    return context


def _trust_itself(context: ssl.SSLContext, certificate: bytes) -> None:
    """And not because of who has issued it."""
    context.load_verify_locations(cadata=certificate)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _load(context: ssl.SSLContext, shown: Leaf | OwnChain) -> None:
    """Python's ssl reads certificates from a file alone: one that only this user can read, and only for a moment."""
    descriptor, path = tempfile.mkstemp(prefix="vfl-leaf-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(shown.pem)
        context.load_cert_chain(path, password=lambda: "")  # asks nobody at a terminal
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108 - the path is a string


def _is_of_identity(certificate: x509.Certificate) -> bool:
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        return False
    return certificate.subject == _issuer_name(IdentityKey(key.public_bytes_raw()))


def _issuer_name(key: IdentityKey) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer_name(key))])


def _anchor(key: IdentityKey, signer: Ed25519PrivateKey) -> x509.Certificate:
    """It says no more than this name and this key; whoever trusts it does not look at who signed it."""
    name = _issuer_name(key)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public)
        .serial_number(1 + secrets.randbits(64))
        .not_valid_before(_ALWAYS[0])
        .not_valid_after(_ALWAYS[1])
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS_CERTIFICATES, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public), critical=False)
        .sign(signer, None)
    )
