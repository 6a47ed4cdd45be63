"""What a check found, whose side it concerns, and how to put it right."""

from collections.abc import Iterable

import msgspec

OK, WARNING, FAILED, NOT_CHECKED = "ok", "warning", "failed", "not checked"
HERE, BETWEEN = "here", "between"
FEW_DAYS = 20
"""A certificate is renewed before so few are left."""
MACHINE, SERVER, NETWORK, PEER, JOB = "own machine", "own server", "network", "peer", "job"


class Finding(msgspec.Struct, frozen=True):
    """One line of the table."""

    area: str
    """own machine, own server, network, peer or job."""
    check: str
    result: str
    """ok, warning, failed or not checked."""
    side: str
    """Where it is put right: here, a peer's name, or between the two."""
    text: str
    fix: str = ""


def not_checked(area: str, checks: Iterable[str], side: str, why: str) -> list[Finding]:
    return [Finding(area, check, NOT_CHECKED, side, why) for check in checks]
