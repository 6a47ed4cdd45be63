"""Whether others may read a file or a folder of the party."""

from pathlib import Path

from parties.doctor.findings import FAILED, HERE, MACHINE, OK, Finding

OTHERS = 0o077
"""Mode bits of everybody but the owner."""


def mode(check: str, path: Path, result: str) -> Finding:
    try:
        bits = path.stat().st_mode & 0o777
    except OSError as error:
        fix = "Put it back from your backup."
        return Finding(MACHINE, check, FAILED, HERE, f"{path} cannot be looked at: {error.strerror}.", fix)
    if bits & OTHERS:
        fix = f"chmod {'700' if path.is_dir() else '600'} {path}"
        return Finding(MACHINE, check, result, HERE, f"Others may read it: its mode is {bits:04o}.", fix)
    return Finding(MACHINE, check, OK, HERE, f"Its owner alone may read it ({bits:04o}).")
