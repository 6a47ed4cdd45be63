"""What operations cost on this machine, kept in the party's folder as long as machine and libraries stay the same."""

import platform
from importlib.metadata import version
from pathlib import Path

import msgspec

from parties.errors import StorageFailed
from parties.private_files import write_private

FILE = "calibration.json"
LIBRARIES = ("tenseal", "torch", "numpy", "rbcl", "cryptography", "sqlalchemy")
"""With another version of one of them, costs are measured anew."""
PROCESSOR_LINES = Path("/proc/cpuinfo")


class Calibration(msgspec.Struct, frozen=True):
    machine: dict[str, str]
    """The processor and the versions of libraries, by which costs were measured."""
    costs: dict[str, float] = {}


def load(folder: Path) -> Calibration:
    """Without costs where there are none, or those of another machine."""
    here = Calibration(machine())
    try:
        stored = msgspec.json.decode((folder / FILE).read_bytes(), type=Calibration)
    except (OSError, msgspec.DecodeError):
        return here
    return stored if stored.machine == here.machine else here


def store(folder: Path, calibration: Calibration) -> None:
    """Raises StorageFailed."""
    try:
        write_private(folder / FILE, msgspec.json.format(msgspec.json.encode(calibration), indent=1))
    except OSError as error:
        raise StorageFailed(f"{folder / FILE} cannot be written: {error.strerror}") from error


def machine() -> dict[str, str]:
    return {"processor": _processor(), "python": platform.python_version()} | {
        name: version(name) for name in LIBRARIES
    }


def _processor() -> str:
    """As Linux names it; elsewhere as Python does."""
    try:
        lines = PROCESSOR_LINES.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
