"""What the ports of a server show: a certificate that the organisation brings, or one that the identity key issues.

Who calls the operator port or a witness, and shows no certificate, needs for the second kind the file that the server
writes: it pins that key. What the peer port issues for itself: tls.py.
"""

import logging
import ssl
import threading
from pathlib import Path

from parties.errors import SettingsError
from parties.private_files import write_private
from parties.trust.certificates import OwnChain, identity_certificate, issue_leaf, operator_context
from parties.trust.identity import Identity

_LOG = logging.getLogger("parties")


class IssuedCertificate:
    """By the identity key, and anew when it is time. Safe for several threads."""

    def __init__(self, identity: Identity, pinned_by: Path) -> None:
        """`pinned_by` is written: who has that file believes this key and no other."""
        self._pinned_by, self._lock = pinned_by, threading.Lock()
        self.renew(identity)

    def renew(self, identity: Identity) -> None:
        """By this key from now on: who has the file of the one before needs the new file."""
        with self._lock:
            write_private(self._pinned_by, identity_certificate(identity.private))
            self._identity = identity
            self._issue()

    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        with self._lock:
            if self._leaf.is_due:
                self._issue()
            return self._context

    def _issue(self) -> None:
        self._leaf = issue_leaf(self._identity.private, self._identity.name)
        self._context = operator_context(self._leaf)


class OwnCertificate:
    """That the organisation brings, and may replace while the server runs. Safe for several threads.

    Raises SettingsError.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key, self._lock = certificate, key, threading.Lock()
        self._read()

    @property
    def chain(self) -> OwnChain:
        """For the next connection; while new files cannot be used, what was read before is shown."""
        with self._lock:
            self._read_again()
            return self._chain

    def context(self) -> ssl.SSLContext:
        """The same, for a port that asks for no certificate of the caller."""
        with self._lock:
            self._read_again()
            return self._context

    def _read_again(self) -> None:
        try:
            if self._changed_at() != self._read_at:
                self._read()
        except SettingsError as error:
            _LOG.warning("the certificate that was read before is still shown: %s", error)

    def _changed_at(self) -> tuple[int, int]:
        try:
            return self._certificate.stat().st_mtime_ns, self._key.stat().st_mtime_ns
        except OSError as error:
            raise unreadable(error) from error

    def _read(self) -> None:
        changed_at = self._changed_at()
        try:
            chain = OwnChain(self._certificate.read_bytes() + b"\n" + self._key.read_bytes())
            context = operator_context(chain)
        except ssl.SSLError as error:
            raise SettingsError(
                f"{self._certificate} and {self._key} are no certificate with its private key",
                fix="Name as certificate a chain in PEM, and as key its private key in PEM, without a passphrase.",
            ) from error
        except OSError as error:
            raise unreadable(error) from error
        self._read_at, self._chain, self._context = changed_at, chain, context


def unreadable(error: OSError) -> SettingsError:
    return SettingsError(f"{error.filename} cannot be read: {error.strerror}", fix="Correct its name or its owner.")
