"""A Dask cluster of the party's own: the same results bit for bit, no secret on it, and named endings."""

import datetime as dt
import os
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from crypto.blinding import check_points, points_of_hashes
from crypto.ckks import CkksPrivateKey
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import PRESETS
from crypto.errors import InvalidPoint
from crypto.pieces import HERE, SecretBytes
from parties.doctor import pool as doctor
from parties.doctor.findings import FAILED, OK
from parties.errors import ClusterUnreachable
from parties.server_settings import PoolSettings
from parties.settings import PartySettings
from parties.worker.frames import ClusterTerms
from parties.worker.pool import WorkPool
from vfl.models.polynomial import Top
from vfl.models.scorer import Shape
from vfl.protocols.ckks_blocks import StepBlocks, step_of
from vfl.spec.sections import Optimiser

SECONDS = 120
SCALAR, HASHES = (7).to_bytes(32, "little"), [bytes([9]) * 64]


def authority(folder, name):
    """A certificate authority, and a certificate of it for this machine; PEM files NAME-ca, NAME and NAME-key."""
    own, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = dt.datetime.now(dt.UTC)

    def issued(key, subject, *, is_authority):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(today - dt.timedelta(days=1))
            .not_valid_after(today + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(own, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    machine = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dask")])
    (folder / f"{name}-ca.pem").write_bytes(issued(own, issuer, is_authority=True))
    (folder / f"{name}.pem").write_bytes(issued(leaf, machine, is_authority=False))
    plain = serialization.NoEncryption()
    (folder / f"{name}-key.pem").write_bytes(
        leaf.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )


def terms(folder, scheduler, name="bank"):
    files = (str(folder / f"{name}{end}.pem") for end in ("-ca", "", "-key"))
    return ClusterTerms(scheduler, *files)


class DaskCluster:
    """A scheduler and two workers of one thread, over TLS on this machine."""

    def __init__(self, folder):
        self.folder, self._processes = folder, []
        self.scheduler = self._start("scheduler", "--port", "0", "--no-dashboard", seen=r"Scheduler at: *(tls://\S+)")
        for _ in range(2):
            self.add_worker()

    def add_worker(self):
        options = ("--nworkers", "1", "--nthreads", "1", "--no-dashboard", "--no-nanny")
        self._start("worker", self.scheduler, *options, seen=r"Registered to: *(\S+)")

    def kill_a_worker(self):
        self._processes[-1].send_signal(signal.SIGKILL)

    def close(self):
        for process in reversed(self._processes):
            process.kill()
            process.communicate(timeout=SECONDS)

    def _start(self, kind, *options, seen):
        files = terms(self.folder, "")
        tls = ("--tls-ca-file", files.ca, "--tls-cert", files.certificate, "--tls-key", files.key)
        command = [sys.executable, "-m", "dask", kind, *options, "--host", "127.0.0.1", "--protocol", "tls", *tls]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=self.folder)
        self._processes.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if said := re.search(seen, line):
                threading.Thread(target=process.stderr.read, daemon=True).start()
                return said[1]
        raise AssertionError(f"the {kind} did not start")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    authority(folder, "bank")
    authority(folder, "stranger")
    started = DaskCluster(folder)
    yield started
    started.close()


@pytest.fixture
def pool(cluster):
    pool = WorkPool(2, 0, terms(cluster.folder, cluster.scheduler))
    yield pool
    pool.close()


def points(count):
    return [points_of_hashes(SCALAR, bytes([1 + number]) * 64) for number in range(count)]


def test_what_dask_workers_do_is_the_same_bit_for_bit_and_no_secret_leaves_the_machine(pool):
    preset, shape = PRESETS["ckks-linear"], Shape(2, 0, 0, 8)
    values = shape.outputs * (shape.embedding + 1)
    private = CkksPrivateKey(preset, 200)
    material = private.public_material(values)
    public = CkksPublicKey(preset, material, values)
    step = step_of(preset, values, material, Top(shape, "linear", Optimiser(), bytes(32), 12.0), np.zeros((8, 0)), 0.0)
    draws = np.random.default_rng(1)
    blocks = [(private.encrypt_rows(draws.normal(size=(50, 2)), 80), draws.random((50, 8))) for _ in range(4)]

    def summed(pool):
        work = StepBlocks(pool, step, public, len(blocks))
        for columns, targets in blocks:
            work.give(columns, 80, np.zeros((50, 0)), targets, None)
        return work.summed().packed

    here, there = summed(HERE), summed(pool)
    assert np.array_equal(np.array(here.words), np.array(there.words))
    assert here.units == there.units
    assert not pool.pids  # all of it was on the cluster
    assert list(pool.map(points_of_hashes, SecretBytes(SCALAR), HASHES)) == [points_of_hashes(SCALAR, HASHES[0])]
    assert len(pool.pids) == 2  # what needs a secret was done by children


def test_the_doctor_says_whether_the_cluster_of_party_toml_can_be_used(cluster):
    table = {"kind": "dask", "scheduler": cluster.scheduler}
    own, strange = (
        {"ca": f"{name}-ca.pem", "certificate": f"{name}.pem", "key": f"{name}-key.pem"}
        for name in ("bank", "stranger")
    )
    good = doctor.pool(cluster.folder, PartySettings(name="bank", pool=PoolSettings.model_validate(table | own)))
    assert (good.result, good.text) == (OK, f"2 Dask workers at {cluster.scheduler}.")
    foreign = PoolSettings.model_validate(table | strange)
    assert doctor.pool(cluster.folder, PartySettings(name="bank", pool=foreign)).result == FAILED
    assert "processes of this machine" in doctor.pool(cluster.folder, PartySettings(name="bank")).text


def test_what_a_dask_worker_refuses_is_raised_here_and_nothing_of_it_is_left(pool):
    with pytest.raises(InvalidPoint, match="the identity"):
        list(pool.map(check_points, b"", [bytes(32)] * 5))
    assert list(pool.map(check_points, b"", points(3))) == points(3)


def test_a_dask_worker_that_is_killed_in_the_middle_changes_nothing_but_the_time(cluster, pool):
    many = points(40)
    results = pool.map(check_points, b"", many)
    first = next(results)
    cluster.kill_a_worker()
    assert [first, *results] == many
    cluster.add_worker()


@pytest.mark.parametrize(
    ("scheduler", "name"),
    [(None, "stranger"), ("tls://127.0.0.1:9", "bank")],
    ids=["another authority", "no scheduler"],
)
def test_a_cluster_that_is_not_there_or_does_not_trust_this_party_is_named(cluster, scheduler, name):
    pool = WorkPool(2, 0, terms(cluster.folder, scheduler or cluster.scheduler, name))
    with pytest.raises(ClusterUnreachable, match=r"(?i)error|timed out"):
        list(pool.map(check_points, b"", points(1)))
    pool.close()
