"""Encrypted steps in one, two and three processes: the same sums bit for bit, and the same refusals."""

import numpy as np
import pytest

from crypto.ckks import CkksPrivateKey
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import PRESETS
from crypto.errors import InvalidCiphertext
from crypto.packing import groups_for
from crypto.pieces import HERE
from parties.worker.pool import WorkPool
from vfl.models.polynomial import Numbers, Top
from vfl.models.scorer import Shape
from vfl.protocols.ckks_blocks import StepBlocks, step_of
from vfl.spec.sections import Optimiser

PRESET, SHAPE, ROWS, BLOCKS = PRESETS["ckks-linear"], Shape(3, 2, 0, 4), 50, 5
VALUES = SHAPE.outputs * (SHAPE.embedding + SHAPE.own + 1)
TOP = Top(SHAPE, "linear", Optimiser(), bytes(32), PRESET.weight_limit)
DRAWS = np.random.default_rng(3)
Z = DRAWS.normal(size=(BLOCKS, ROWS, SHAPE.embedding)).clip(-3, 3)
OWN = DRAWS.normal(size=(BLOCKS, ROWS, SHAPE.own)).clip(-3, 3)
TARGETS = (DRAWS.random((BLOCKS, ROWS, SHAPE.outputs)) < 0.5).astype(float)
WEIGHTS = DRAWS.uniform(0.5, 1.0, size=(BLOCKS, ROWS))
TIMES = 80


@pytest.fixture(scope="module")
def pools():
    """Of one, two and three processes."""
    spread = [WorkPool(2, 0), WorkPool(3, 0)]
    yield [HERE, *spread]
    for pool in spread:
        pool.close()


@pytest.fixture(scope="module")
def keys():
    private = CkksPrivateKey(PRESET, 200)
    material = private.public_material(VALUES)
    return private, material, CkksPublicKey(PRESET, material, VALUES)


def step(pool, keys, batches, *, mixing=None):
    _, material, public = keys
    mixing = np.zeros((SHAPE.joined, 0)) if mixing is None else mixing
    of_step = step_of(PRESET, VALUES, material, TOP, mixing, 0.0)
    work = StepBlocks(pool, of_step, public, len(batches))
    for number, columns in enumerate(batches):
        work.give(columns, TIMES, OWN[number], TARGETS[number], WEIGHTS[number])
    return work.summed()


def sums_in_clear():
    passes = (
        TOP.passes(Numbers(), list(z.T), own, targets, weights)
        for z, own, targets, weights in zip(Z, OWN, TARGETS, WEIGHTS, strict=True)
    )
    return sum(Numbers().sums(of_block.products) for of_block in passes)


def test_the_sums_of_a_step_are_the_same_bit_for_bit_however_many_processes_share_its_blocks(pools, keys):
    private, _, public = keys
    encrypted = [private.encrypt_rows(z, TIMES) for z in Z]
    one, *others = (step(pool, keys, encrypted).packed for pool in pools)
    for other in others:
        assert other.units == one.units
        assert np.array_equal(np.array(other.words), np.array(one.words))
    masked, mask = public.mask_packed(one)
    opened = mask.remove(private.open(masked, groups_for(VALUES), blocks=BLOCKS))
    assert np.abs(opened - sums_in_clear()).max() < 0.01 * ROWS * BLOCKS


def test_columns_that_several_processes_encrypt_are_those_of_one(pools, keys):
    private = keys[0]
    mixing = np.eye(4)[:, :2]
    errors = []
    for pool in pools:
        encrypted = [private.encrypt_rows(z, TIMES, pool) for z in Z]
        cut = step(HERE, keys, encrypted, mixing=mixing).cut_errors
        errors.append([private.decrypt_cut(of_block, 2, ROWS) for of_block in cut])
    assert np.allclose(errors[0], errors[1], atol=1e-4)
    assert np.allclose(errors[0], errors[2], atol=1e-4)


def test_the_cut_error_of_each_block_comes_back_in_the_order_of_the_blocks(pools, keys):
    private = keys[0]
    encrypted = [private.encrypt_rows(z, TIMES) for z in Z]
    one, *others = (
        [private.decrypt_cut(cut, 2, ROWS) for cut in step(pool, keys, encrypted, mixing=np.eye(4)[:, :2]).cut_errors]
        for pool in pools
    )
    assert len({round(float(errors[0, 0]), 3) for errors in one}) == BLOCKS
    for other in others:
        assert np.allclose(other, one, atol=1e-4)


def test_what_no_honest_party_sends_is_refused_in_whichever_process_it_is_loaded(pools, keys):
    good, *rest = [keys[0].encrypt_rows(z, TIMES) for z in Z]
    bad = b"\xff" * 64 + rest[-1][64:]
    for pool in pools:
        with pytest.raises(InvalidCiphertext, match="not below its prime"):
            step(pool, keys, [good, *rest[:-1], bad])
        assert len(step(pool, keys, [good, *rest]).cut_errors) == BLOCKS


def test_a_seed_is_refused_in_any_later_block_though_another_process_loads_it(keys):
    private, _, public = keys
    first, second = (private.encrypt_rows(z, TIMES) for z in Z[:2])
    public.check_seeds(first, SHAPE.embedding)
    public.check_seeds(second, SHAPE.embedding)
    with pytest.raises(InvalidCiphertext, match="a seed is used twice"):
        public.check_seeds(first, SHAPE.embedding)
