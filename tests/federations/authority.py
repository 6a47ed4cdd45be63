"""A certificate authority of an organisation, which issues through an intermediate one."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

PEM = Encoding.PEM


class Authority:
    def __init__(self) -> None:
        self._root_key, self._key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self._root, self._own = name("Authority of Example Ltd"), name("Servers of Example Ltd")
        self.certificate = issued(self._root, self._root_key, self._root, self._root_key, is_authority=True)
        self._intermediate = issued(self._own, self._key, self._root, self._root_key, is_authority=True)

    @property
    def pem(self) -> bytes:
        """What people are given who trust it."""
        return self.certificate.public_bytes(PEM)

    def write(self, folder: Path, address: str = "127.0.0.1", days: float = 60) -> x509.Certificate:
        """own.pem and own.key: a chain and a key for a server at this address."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = issued(name("vfl"), key, self._own, self._key, address=address, days=days)
        (folder / "own.key").write_bytes(key.private_bytes(PEM, PrivateFormat.PKCS8, NoEncryption()))
        (folder / "own.key").chmod(0o600)
        (folder / "own.pem").write_bytes(leaf.public_bytes(PEM) + self._intermediate.public_bytes(PEM))
        return leaf


def issued(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool = False,
    address: str = "127.0.0.1",
    days: float = 60,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if not is_authority:
        host = x509.IPAddress(ipaddress.ip_address(address))
        builder = builder.add_extension(x509.SubjectAlternativeName([host]), critical=False)
    return builder.sign(issuer_key, SHA256())


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
