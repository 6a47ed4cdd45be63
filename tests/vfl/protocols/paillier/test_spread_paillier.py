"""Paillier steps in one, two and three processes: the same ciphertexts and numbers bit for bit."""

import numpy as np
import pytest

from crypto.paillier import PaillierPrivateKey, PaillierPublicKey
from crypto.paillier_parameters import PaillierParameters
from crypto.paillier_sums import LinearErrors, encrypted_sums, packed_moments, packed_rows, unflattened
from crypto.pieces import HERE
from parties.worker.pool import WorkPool

BITS, WIDTH, ROWS, OWN, OUTPUTS = 1024, 7, 30, 3, 2


@pytest.fixture(scope="module")
def pools():
    """Of one, two and three processes."""
    spread = [WorkPool(2, 0), WorkPool(3, 0)]
    yield [HERE, *spread]
    for pool in spread:
        pool.close()


@pytest.fixture(scope="module")
def key():
    return PaillierPrivateKey(BITS)


def test_the_sums_of_a_step_and_what_is_opened_of_them_are_the_same_however_many_processes_share_the_work(pools, key):
    p, public, draws = (
        PaillierParameters(BITS, 12, 12.0, 64),
        PaillierPublicKey(key.material, BITS),
        np.random.default_rng(1),
    )
    z = draws.integers(-9000, 9000, size=(ROWS, WIDTH))
    own = draws.integers(-9000, 9000, size=(ROWS, OWN))
    errors = LinearErrors(draws.integers(-90, 90, size=(OUTPUTS, WIDTH)), draws.integers(-90, 90, size=(ROWS, OUTPUTS)))
    rows, moments = (
        unflattened(public.load(key.encrypt(plain), len(plain)), WIDTH, p)
        for plain in (packed_rows(z, p), packed_moments(z, p))
    )
    one, *others = ([int(c) for c in encrypted_sums(public, moments, rows, errors, own, p, pool)] for pool in pools)
    assert others == [one, one]
    masked, _ = public.mask(one)
    opened, *again = (key.open(masked, len(one), pool) for pool in pools)
    assert again == [opened, opened]


def test_encryptions_and_masks_of_several_processes_are_fresh_and_open_to_the_same(pools, key):
    public, plain = PaillierPublicKey(key.material, BITS), list(range(40))
    for pool in pools:
        sent = key.encrypt(plain, pool)
        ciphertexts = public.load(sent, len(plain))
        assert len({int(each) for each in ciphertexts}) == len(plain)
        masked, masks = public.mask(ciphertexts, pool)
        assert masks.remove(key.written(key.open(masked, len(plain), pool))) == plain
