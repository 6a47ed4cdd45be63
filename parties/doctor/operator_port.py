"""Whether other machines reach the operator port, and what it shows them."""

from datetime import UTC, datetime
from pathlib import Path

from parties.doctor.findings import FAILED, FEW_DAYS, HERE, MACHINE, NOT_CHECKED, OK, WARNING, Finding
from parties.doctor.modes import mode
from parties.operator_tls import own_certificate
from parties.server_settings import OperatorSettings
from parties.settings import SETTINGS_FILE, PartySettings
from vfl.errors import JobError

CHECK = "operator port"


def operator_port(folder: Path, settings: PartySettings | None) -> Finding:
    if settings is None:
        return Finding(MACHINE, CHECK, NOT_CHECKED, HERE, f"{SETTINGS_FILE} says who reaches it, and cannot be read.")
    operator = settings.operator
    if operator.is_local:
        return Finding(MACHINE, CHECK, OK, HERE, "This machine alone reaches it.")
    text = f"Reached over TLS on {operator.host}, from {', '.join(map(str, operator.allow))}."
    if operator.certificate and (problem := _certificate(folder, operator)) is not None:
        return problem
    if any(network.prefixlen == 0 for network in operator.allow):
        fix = "Name in operator.allow only the networks of those who need it."
        return Finding(MACHINE, CHECK, WARNING, HERE, f"{text} So a stolen token is good everywhere.", fix)
    return Finding(MACHINE, CHECK, OK, HERE, text)


def _certificate(folder: Path, settings: OperatorSettings) -> Finding | None:
    """What is wrong with the one that the organisation brings."""
    try:
        days = (own_certificate(folder, settings).ends_at - datetime.now(UTC)).days
    except JobError as error:
        return Finding(MACHINE, CHECK, FAILED, HERE, f"{error}.", error.fix)
    if days < FEW_DAYS:
        fix = f"Put a newer one at {folder / settings.certificate}; the server takes it up by itself."
        text = f"The certificate of the operator port is good for {max(days, 0)} days more."
        return Finding(MACHINE, CHECK, WARNING if days > 0 else FAILED, HERE, text, fix)
    of_key = mode(CHECK, folder / settings.key, FAILED)
    return None if of_key.result == OK else of_key
