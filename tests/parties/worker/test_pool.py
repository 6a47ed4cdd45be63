"""The pool of a worker: results in their order, errors by name, and no child that outlives its worker."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crypto.blinding import BlindingKey, blind_points, points_of_hashes
from crypto.errors import InvalidPoint
from crypto.pieces import HERE, SecretBytes
from parties.errors import WorkerVanished
from parties.worker.pool import WorkPool

SECONDS = 30
HASHES = [hashlib.sha512(bytes([number])).digest() * (1 + number % 3) for number in range(17)]
OWNER = """
import sys
from crypto.blinding import points_of_hashes
from parties.worker.pool import WorkPool

pool = WorkPool(2, 0)
print(len(list(pool.map(points_of_hashes, (1).to_bytes(32, "little"), [bytes(range(64))] * 3))), flush=True)
print(*pool.pids, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def pools():
    """Of one, two and three processes, which do all work themselves."""
    pools = [WorkPool(size, 0) for size in (1, 2, 3)]
    yield pools
    for pool in pools:
        pool.close()


@pytest.fixture(scope="module")
def pool(pools):
    return pools[-1]


def test_the_results_are_those_of_one_process_in_the_order_of_the_pieces_however_many_there_are(pools):
    scalar = BlindingKey().scalar()
    alone = list(HERE.map(points_of_hashes, scalar, HASHES))
    twice = list(HERE.map(blind_points, scalar, alone))
    for pool in pools:
        assert list(pool.map(points_of_hashes, scalar, HASHES)) == alone
        assert list(pool.map(blind_points, scalar, alone)) == twice
        assert list(pool.map(blind_points, scalar, [])) == []


def test_what_the_function_raises_is_raised_here_and_nothing_of_it_is_left(pool):
    scalar = BlindingKey().scalar()
    with pytest.raises(InvalidPoint, match="the identity"):
        list(pool.map(blind_points, scalar, [bytes(32)] * 5))
    assert list(pool.map(points_of_hashes, scalar, HASHES)) == list(HERE.map(points_of_hashes, scalar, HASHES))


def test_pieces_larger_than_a_pipe_do_not_stop_it(pool):
    scalar = BlindingKey().scalar()
    points = points_of_hashes(scalar.reveal(), HASHES[0])
    (result,) = pool.map(blind_points, scalar, [points * 100])
    assert len(result) == 100 * len(points)
    with pytest.raises(InvalidPoint, match="not a whole number"):
        list(pool.map(blind_points, scalar, [bytes(3 << 20) + b"1"] * 7))


def test_a_pool_starts_no_process_before_the_work_has_proved_heavy():
    pool = WorkPool(2, start_seconds=3600)
    scalar = BlindingKey().scalar()
    assert list(pool.map(points_of_hashes, scalar, HASHES)) == list(HERE.map(points_of_hashes, scalar, HASHES))
    assert not pool.pids


def test_work_that_proves_heavy_goes_on_in_children_without_a_piece_lost_or_done_twice():
    pool, scalar = WorkPool(2, start_seconds=1e-6), BlindingKey().scalar()
    assert list(pool.map(points_of_hashes, scalar, HASHES)) == list(HERE.map(points_of_hashes, scalar, HASHES))
    assert len(pool.pids) == 2
    pool.close()


def test_a_secret_that_pieces_share_neither_prints_nor_pickles():
    secret = SecretBytes(b"canary")
    assert "canary" not in repr(secret)
    with pytest.raises(TypeError, match="stays on its machine"):
        secret.__reduce__()


def test_a_child_runs_functions_of_a_few_packages_alone():
    pool = WorkPool(2, 0)
    with pytest.raises(WorkerVanished, match="exited with status 1"):
        list(pool.map(os.path.join, b"", [b""]))
    pool.close()


def test_a_child_that_dies_ends_the_work_with_its_name():
    pool, scalar = WorkPool(2, 0), BlindingKey().scalar()
    list(pool.map(points_of_hashes, scalar, HASHES))
    os.kill(pool.pids[1], signal.SIGKILL)
    with pytest.raises(WorkerVanished, match="child process of the worker was ended by signal 9"):
        list(pool.map(points_of_hashes, scalar, HASHES))
    pool.close()


def test_children_end_with_their_worker_however_it_ends():
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "3\n"
        children = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(children) == 2
        owner.kill()
        owner.wait(SECONDS)
        deadline = time.monotonic() + SECONDS
        while any(_runs(pid) for pid in children):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def _runs(pid: int) -> bool:
    """Whether it is there, and not only waits for somebody to ask how it ended."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
