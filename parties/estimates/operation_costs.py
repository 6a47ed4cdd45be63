"""What one operation costs on this machine, by groups; each is measured when a job first needs it.

Measured are processor seconds, on which other work on the machine has less influence than on the clock, and for what
waits for the disk the clock. It takes some seconds for all groups together, in a process of its own (`main.py`).
"""

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from parties.estimates.costs import MEMORY, Costs
from vfl.planning.work import BYTE, MESSAGE, REPORT, START, WAIT

TRIES, IDS, COMMITS = 5, 64, 12
COMMITS_OF_A_MESSAGE = 4
"""A message is stored by its sender, by its receiver, and both times with a receipt before it goes on."""
HANDLED = 9
"""What else both servers do with a message, in the time of a commit's own work: frames, TLS, HTTP, signatures. Found
by `benchmarks/forecast.py` on jobs in clear, which do little else."""
PIECE_BYTES = 128 << 10
"""A server handles bodies in pieces; at each side so many bytes cost as much as a commit's own work. Found in the same
way, on encrypted jobs."""


def measured(group: str, folder: Path, started: float) -> Costs:
    """All costs of a group, by `group/operation`; `started` are the processor seconds that this process took to start.

    `folder` is the party's: what is stored for a message is stored on its disk.
    """
    costs = {f"{group}/{operation}": cost for operation, cost in GROUPS[group](folder, started)}
    return costs | {f"{group}/{MEMORY}": float(_memory())}


def _median(action: Callable[[], object], tries: int = TRIES) -> float:
    """Processor seconds; the first time is not counted."""
    action()
    return statistics.median(_once(action, time.process_time) for _ in range(tries))


def _once(action: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    action()
    return clock() - start


def _loading(module: str) -> float:
    """Processor seconds until it is imported, in a process of its own: here a rehearsal may have loaded it before."""
    script = (
        "import time, msgspec, numpy; before = time.process_time(); "
        f"import {module}; print(time.process_time() - before)"
    )
    done = subprocess.run(  # noqa: S603 - a module that is named in this file
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def _memory() -> int:
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest << 10


def _process(_folder: Path, started: float) -> Iterator[tuple[str, float]]:
    yield START.partition("/")[2], started


def _server(folder: Path, _started: float) -> Iterator[tuple[str, float]]:
    """What both servers do with what a worker says."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - by groups

    from parties.storage.database import Job, Store, now  # noqa: PLC0415

    with tempfile.TemporaryDirectory(dir=folder) as name:
        store = Store(Path(name))
        store.add(
            Job(id="job", name="job", state="running", role="", party="", peers=[], spec_digest="", created_at=now()),
            b"",
        )

        def commit() -> None:
            store.record("job", "step", "a step", {"step": 1}, step=1)

        commit()
        waited = sorted(_once(commit, time.perf_counter) for _ in range(COMMITS))[: COMMITS // 2]
        own = _median(commit)
        store.close()
    key, signed = Ed25519PrivateKey.generate(), bytes(512)
    signature = _median(lambda: key.public_key().verify(key.sign(signed), signed))
    megabyte = bytes(1 << 20)
    yield REPORT.partition("/")[2], own
    yield MESSAGE.partition("/")[2], HANDLED * own + 2 * signature
    yield WAIT.partition("/")[2], COMMITS_OF_A_MESSAGE * max(0.0, statistics.median(waited) - own)
    yield BYTE.partition("/")[2], _carried(megabyte) / len(megabyte) + own / PIECE_BYTES


def _carried(body: bytes) -> float:
    """At one side: through TLS, hashed, and copied on its way."""
    import hashlib  # noqa: PLC0415 - by groups

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

    cipher, nonce = AESGCM(bytes(32)), bytes(12)
    passed = _median(lambda: cipher.encrypt(nonce, body, None))
    return passed + 2 * _median(lambda: hashlib.sha256(body).digest()) + 4 * _median(lambda: bytes(bytearray(body)))


def _clear(_folder: Path, _started: float) -> Iterator[tuple[str, float]]:
    from vfl.counting.costs import of_numbers  # noqa: PLC0415 - by groups

    yield "start", _loading("vfl.protocols.split_training")
    yield from of_numbers(time.process_time)


def _ristretto(_folder: Path, _started: float) -> Iterator[tuple[str, float]]:
    from crypto.blinding import HASH_BYTES, BlindingKey, blind_points, check_points, points_of_hashes  # noqa: PLC0415

    yield "start", _loading("vfl.protocols.alignment")
    hashes = np.random.default_rng(0).bytes(IDS * HASH_BYTES)
    scalar = BlindingKey().scalar().reveal()
    points = points_of_hashes(scalar, hashes)
    yield "hashed id", _median(lambda: points_of_hashes(scalar, hashes)) / IDS
    yield "power", _median(lambda: blind_points(scalar, points)) / IDS
    yield "checked id", _median(lambda: check_points(b"", points)) / IDS


def _ckks(_folder: Path, _started: float) -> Iterator[tuple[str, float]]:
    from crypto.ckks_costs import costs  # noqa: PLC0415 - by groups

    yield "start", _loading("vfl.protocols.ckks_training")
    yield from costs(time.process_time)


def _paillier(_folder: Path, _started: float) -> Iterator[tuple[str, float]]:
    from crypto.paillier_costs import costs  # noqa: PLC0415 - by groups, and of an extra

    yield "start", _loading("vfl.protocols.paillier_training")
    yield from costs(time.process_time)


def _moments(_folder: Path, _started: float) -> Iterator[tuple[str, float]]:
    from crypto.moments_costs import costs  # noqa: PLC0415 - by groups

    yield "start", _loading("vfl.protocols.one_pass")
    yield from costs(time.process_time)


def _torch(_folder: Path, _started: float) -> Iterator[tuple[str, float]]:
    from vfl.counting.costs import of_networks  # noqa: PLC0415 - by groups

    yield "start", _loading("vfl.models.tabular")
    yield from of_networks(time.process_time)


GROUPS: dict[str, Callable[[Path, float], Iterator[tuple[str, float]]]] = {
    "process": _process,
    "server": _server,
    "clear": _clear,
    "ristretto": _ristretto,
    "ckks": _ckks,
    "moments": _moments,
    "paillier": _paillier,
    "torch": _torch,
}
"""In the order in which they are measured: memory grows with each."""
