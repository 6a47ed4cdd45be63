"""How the operator port speaks to other machines, and how the command line on its own machine calls it then."""

import ssl
from pathlib import Path

from parties.errors import SettingsError
from parties.server_certificate import IssuedCertificate, OwnCertificate, unreadable
from parties.server_settings import OperatorSettings
from parties.trust.certificates import pinned_context
from parties.trust.identity import Identity

CA_FILE = "operator.ca.pem"
"""Pins the identity key for an operator elsewhere."""


def operator_certificate(
    folder: Path, settings: OperatorSettings, identity: Identity
) -> IssuedCertificate | OwnCertificate | None:
    """What it shows; None where this machine alone is answered, in clear. Raises SettingsError."""
    if settings.is_local:
        return None
    if settings.certificate:
        return OwnCertificate(folder / settings.certificate, folder / settings.key)
    return IssuedCertificate(identity, folder / CA_FILE)


def calls_of_this_machine(folder: Path, settings: OperatorSettings) -> ssl.SSLContext | None:
    """What a program that can read the party's folder calls the operator port with. Raises SettingsError."""
    if settings.is_local:
        return None
    path = folder / (settings.certificate or CA_FILE)
    try:
        return pinned_context(path.read_bytes())
    except OSError as error:
        raise unreadable(error) from error
    except ValueError as error:
        raise SettingsError(f"{path} is no certificate in PEM", fix="Name another as operator.certificate.") from error
