"""How much room the file system of a folder has."""

import shutil
from pathlib import Path

from parties.doctor.findings import FAILED, HERE, OK, WARNING, Finding

GIBIBYTE = 1 << 30
LITTLE, NOTHING = 2 * GIBIBYTE, 100 << 20


def disk(area: str, folder: Path) -> Finding:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(area, "disk", FAILED, HERE, f"{folder} cannot be read: {error.strerror}.", "Correct its path.")
    text = f"{free / GIBIBYTE:.1f} GiB are free."
    result = FAILED if free < NOTHING else WARNING if free < LITTLE else OK
    return Finding(area, "disk", result, HERE, text, "" if result == OK else f"Free space where {folder} lies.")
