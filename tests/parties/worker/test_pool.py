"""Children of a worker: the results in order, errors by name, and no child that outlives its worker."""

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
from parties.errors import WorkerVanished
from parties.worker.pool import WorkPool
from vfl.setup import one_by_one

SECONDS = 30
HASHES = [hashlib.sha512(bytes([number])).digest() * (1 + number % 3) for number in range(17)]
OWNER = """
import sys
from crypto.blinding import points_of_hashes
from parties.worker.pool import WorkPool

pool = WorkPool(2)
print(len(list(pool.map(points_of_hashes, (1).to_bytes(32, "little"), [bytes(range(64))] * 3))), flush=True)
print(*(child._process.pid for child in pool._children), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def pool():
    pool = WorkPool(3)
    yield pool
    pool.close()


def test_the_results_are_those_of_one_process_in_the_order_of_the_pieces(pool):
    scalar = BlindingKey().scalar()
    alone = list(one_by_one(points_of_hashes, scalar, HASHES))
    assert list(pool.map(points_of_hashes, scalar, HASHES)) == alone
    assert list(pool.map(blind_points, scalar, alone)) == list(one_by_one(blind_points, scalar, alone))
    assert list(pool.map(blind_points, scalar, [])) == []


def test_what_the_function_raises_is_raised_here(pool):
    with pytest.raises(InvalidPoint, match="the identity"):
        list(pool.map(blind_points, BlindingKey().scalar(), [bytes(32)]))


def test_pieces_larger_than_a_pipe_do_not_stop_it(pool):
    scalar = BlindingKey().scalar()
    points = points_of_hashes(scalar, HASHES[0])
    (result,) = pool.map(blind_points, scalar, [points * 100])
    assert len(result) == 100 * len(points)
    with pytest.raises(InvalidPoint, match="not a whole number"):
        list(pool.map(blind_points, scalar, [bytes(3 << 20) + b"1"] * 7))


def test_a_child_runs_functions_of_one_package_alone(pool):
    with pytest.raises(WorkerVanished):
        list(pool.map(os.path.join, b"", [b""]))


def test_a_child_that_dies_ends_the_work_with_its_name(pool):
    scalar = BlindingKey().scalar()
    list(pool.map(points_of_hashes, scalar, HASHES))
    os.kill(pool._children[1]._process.pid, signal.SIGKILL)
    with pytest.raises(WorkerVanished, match="child process"):
        list(pool.map(points_of_hashes, scalar, HASHES))


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
