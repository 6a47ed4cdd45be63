"""The own machine: what runs here, and the folder of the party."""

import contextlib
import json
import os
import platform
import resource
import secrets
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from parties.doctor.disk import GIBIBYTE, disk
from parties.doctor.findings import FAILED, HERE, MACHINE, NOT_CHECKED, OK, WARNING, Finding
from parties.doctor.modes import mode
from parties.doctor.pool import pool
from parties.doctor.ports import operator_port, peer_port
from parties.settings import SETTINGS_FILE, TOKEN_FILE, PartySettings, load, load_identity
from parties.trust.key_file import KEY_FILE
from vfl.errors import JobError

LIBRARY_SECONDS = 15.0
SEAL_RELEASE = (4, 4)
LOW_MEMORY = 2 << 30
SLOW_FSYNC_SECONDS, FSYNCS = 0.05, 5
FEW_FILES = 1024


def machine(folder: Path | None) -> list[Finding]:
    """Of this machine, and of the party's folder where there is one here."""
    text = [_python(), _processor(), _memory(), _open_files()]
    if folder is None:
        why = "Only a server was named: run the command at its machine with --party DIR."
        return [*text, Finding(MACHINE, "folder", NOT_CHECKED, HERE, why)]
    settings, line = _settings(folder)
    return [
        *text,
        disk(MACHINE, folder),
        _fsync(folder),
        line,
        operator_port(folder, settings),
        peer_port(folder, settings),
        *([pool(folder, settings)] if settings else []),
        *_keys(folder, settings),
    ]


def libraries() -> list[Finding]:
    """Takes some seconds: they are loaded in a process of their own."""
    fix = "Install the project again, into a new virtual environment and with its constraints.txt."
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "parties.doctor.libraries"],
            capture_output=True,
            text=True,
            timeout=LIBRARY_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        why = f"They did not load within {LIBRARY_SECONDS:g} s: the machine is busy."
        return [Finding(MACHINE, "libraries", WARNING, HERE, why, "Run `vfl doctor` again when it is idle.")]
    if done.returncode < 0:
        why = f"Loading torch and tenseal ended a process with {signal.Signals(-done.returncode).name}."
        return [Finding(MACHINE, "libraries", FAILED, HERE, f"{why} They may be built for another processor.", fix)]
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason is known"])[-1][:200]
        return [Finding(MACHINE, "libraries", FAILED, HERE, f"torch or tenseal cannot be loaded: {last}", fix)]
    versions = json.loads(done.stdout)
    loaded = f"torch {versions['torch']} and tenseal {versions['tenseal']} load."
    return [Finding(MACHINE, "libraries", OK, HERE, loaded), _seal(tuple(versions["seal"]))]


def _seal(release: tuple[int, ...]) -> Finding:
    name = ".".join(map(str, release))
    if release >= SEAL_RELEASE:
        return Finding(MACHINE, "SEAL", OK, HERE, f"tenseal carries SEAL {name}.")
    return Finding(
        MACHINE,
        "SEAL",
        WARNING,
        HERE,
        f"tenseal carries SEAL {name}. SEAL 4.4 is safer with bytes that come from others, and no tenseal has it yet. "
        "What a peer sends is checked before SEAL sees it, and SEAL runs in workers alone.",
        "Update tenseal once a release of it carries SEAL 4.4.",
    )


def _python() -> Finding:
    return Finding(MACHINE, "Python", OK, HERE, f"Python {platform.python_version()} on {platform.machine()}.")


def _processor() -> Finding:
    count = os.cpu_count() or 1
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Finding(MACHINE, "processor", NOT_CHECKED, HERE, f"{count} processors; this system does not list more.")
    words = set(text.lower().split())
    instructions = [feature for feature in ("avx2", "avx512f", "aes", "asimd") if feature in words]
    if platform.machine() == "x86_64" and "avx2" not in instructions:
        fix = "Use a processor with AVX2, or let the virtual machine pass it on."
        return Finding(
            MACHINE, "processor", WARNING, HERE, f"{count} processors without AVX2: encryption is slow.", fix
        )
    return Finding(
        MACHINE, "processor", OK, HERE, f"{count} processors, with {', '.join(instructions) or 'nothing special'}."
    )


def _memory() -> Finding:
    available = _available_memory()
    if available is None:
        return Finding(MACHINE, "memory", NOT_CHECKED, HERE, "This system does not say how much memory is free.")
    text = f"{available / GIBIBYTE:.1f} GiB are free."
    if available < LOW_MEMORY:
        return Finding(MACHINE, "memory", WARNING, HERE, text, "An encrypted job may need 2 GiB: free some, or add.")
    return Finding(MACHINE, "memory", OK, HERE, text)


def _available_memory() -> int | None:
    """What the machine, and the container if there is one, have left."""
    left = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        left += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        most, used = (int((group / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        left.append(most - used)
    return min(left, default=None)


def _open_files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < FEW_FILES:
        fix = f"Raise it to {FEW_FILES} or more: `ulimit -n`, or LimitNOFILE of the service."
        return Finding(MACHINE, "open files", WARNING, HERE, f"A process may have {soft} open files only.", fix)
    return Finding(MACHINE, "open files", OK, HERE, f"A process may have {soft} open files.")


def _fsync(folder: Path) -> Finding:
    path, took = folder / f".doctor.{secrets.token_hex(4)}", []
    try:
        with path.open("xb") as file:
            for _ in range(FSYNCS):
                file.write(bytes(4096))
                file.flush()
                began = time.perf_counter()
                os.fsync(file.fileno())
                took.append(time.perf_counter() - began)
    except OSError as error:
        fix = f"Free space, or give {folder} to the user of the server."
        return Finding(MACHINE, "fsync", FAILED, HERE, f"{folder} cannot be written: {error.strerror}.", fix)
    finally:
        path.unlink(missing_ok=True)
    seconds = statistics.median(took)
    text = f"{seconds * 1000:.1f} ms until what is written is on the disk."
    if seconds > SLOW_FSYNC_SECONDS:
        return Finding(MACHINE, "fsync", WARNING, HERE, text, "Put the folder on a local disk that is not busy.")
    return Finding(MACHINE, "fsync", OK, HERE, text)


def _settings(folder: Path) -> tuple[PartySettings | None, Finding]:
    try:
        settings = load(folder)
    except OSError as error:
        fix = f"Give {folder} to the user of the server."
        return None, Finding(MACHINE, SETTINGS_FILE, FAILED, HERE, f"It cannot be read: {error.strerror}.", fix)
    except JobError as error:
        return None, Finding(MACHINE, SETTINGS_FILE, FAILED, HERE, f"{error}.", error.fix)
    return settings, Finding(MACHINE, SETTINGS_FILE, OK, HERE, f"It can be read; this party is {settings.name}.")


def _keys(folder: Path, settings: PartySettings | None) -> Iterator[Finding]:
    yield mode("folder", folder, FAILED)
    yield mode(KEY_FILE, folder / KEY_FILE, FAILED)
    yield mode(TOKEN_FILE, folder / TOKEN_FILE, FAILED)
    if settings is None:
        why = f"{SETTINGS_FILE} says where it is, and cannot be read."
        yield Finding(MACHINE, "passphrase", NOT_CHECKED, HERE, why)
        return
    passphrase = folder / settings.identity.passphrase_file
    is_beside = passphrase.resolve().parent == folder.resolve()
    line = mode("passphrase", passphrase, FAILED if is_beside else WARNING)
    if line.result == OK and is_beside:
        text = "It lies beside the key: who can read the folder, or a backup of all of it, has both."
        fix = "Move it to a secret of systemd or Docker: docs/trust.md, One key for each party."
        line = Finding(MACHINE, "passphrase", WARNING, HERE, text, fix)
    yield line
    try:
        identity = load_identity(folder, settings)
    except JobError as error:
        yield Finding(MACHINE, "key opens", FAILED, HERE, f"{error}.", error.fix)
    else:
        yield Finding(MACHINE, "key opens", OK, HERE, f"The passphrase opens the key of {identity.name}.")
