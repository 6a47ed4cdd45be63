"""One server process per folder of a party."""

import fcntl
from pathlib import Path
from typing import IO

from parties.errors import PartyInUse, StorageFailed

LOCK_FILE = "party.lock"


def hold(folder: Path) -> IO[bytes]:
    """The lock is held until the file is closed, and goes with the process. Raises PartyInUse, StorageFailed."""
    path = folder / LOCK_FILE
    try:
        file = path.open("ab")
    except OSError as error:
        raise StorageFailed(f"{path} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise PartyInUse(f"a server already runs on {folder}") from error
    return file
