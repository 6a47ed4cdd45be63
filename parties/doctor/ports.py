"""Whether other machines reach the operator port, and what the two ports show that the organisation brings."""

from datetime import UTC, datetime
from pathlib import Path

from parties.doctor.findings import FAILED, FEW_DAYS, HERE, MACHINE, NOT_CHECKED, OK, WARNING, Finding
from parties.doctor.modes import mode
from parties.server_certificate import OwnCertificate
from parties.settings import SETTINGS_FILE, PartySettings
from vfl.errors import JobError

OPERATOR, PEER = "operator port", "peer port"


def operator_port(folder: Path, settings: PartySettings | None) -> Finding:
    if settings is None:
        return Finding(
            MACHINE, OPERATOR, NOT_CHECKED, HERE, f"{SETTINGS_FILE} says who reaches it, and cannot be read."
        )
    operator = settings.operator
    if operator.is_local:
        return Finding(MACHINE, OPERATOR, OK, HERE, "This machine alone reaches it.")
    text = f"Reached over TLS on {operator.host}, from {', '.join(map(str, operator.allow))}."
    if operator.certificate:
        problem = _problem(OPERATOR, folder / operator.certificate, folder / operator.key)
        if problem is not None:
            return problem
    if any(network.prefixlen == 0 for network in operator.allow):
        fix = "Name in operator.allow only the networks of those who need it."
        return Finding(MACHINE, OPERATOR, WARNING, HERE, f"{text} So a stolen token is good everywhere.", fix)
    return Finding(MACHINE, OPERATOR, OK, HERE, text)


def peer_port(folder: Path, settings: PartySettings | None) -> Finding:
    if settings is None:
        return Finding(MACHINE, PEER, NOT_CHECKED, HERE, f"{SETTINGS_FILE} says what it shows, and cannot be read.")
    tls = settings.server.tls
    if tls is None:
        return Finding(MACHINE, PEER, OK, HERE, "It shows a certificate that the identity key issues.")
    problem = _problem(PEER, folder / tls.certificate, folder / tls.key)
    return problem or Finding(
        MACHINE, PEER, OK, HERE, f"It shows the organisation's own certificate, {tls.certificate}."
    )


def _problem(port: str, certificate: Path, key: Path) -> Finding | None:
    """What is wrong with a certificate that the organisation brings."""
    try:
        days = (OwnCertificate(certificate, key).chain.ends_at - datetime.now(UTC)).days
    except JobError as error:
        return Finding(MACHINE, port, FAILED, HERE, f"{error}.", error.fix)
    if days < FEW_DAYS:
        fix = f"Put a newer one at {certificate}; the server takes it up by itself."
        text = f"The certificate of the {port} is good for {max(days, 0)} days more."
        if days < 0:
            text = f"The certificate of the {port} has ended."
        return Finding(MACHINE, port, WARNING if days > 0 else FAILED, HERE, text, fix)
    of_key = mode(port, key, FAILED)
    return None if of_key.result == OK else of_key
