"""Paillier keys, packing and exact sums, against phe and against plain integers."""

import copy

import gmpy2
import numpy as np
import phe
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.errors import InvalidCiphertext
from crypto.paillier import PaillierPrivateKey, PaillierPublicKey
from crypto.paillier_parameters import PaillierParameters, packed, unpacked
from crypto.paillier_powers import FixedBase, product_of_powers
from crypto.paillier_sums import (
    LinearErrors,
    agreed_bits,
    blurred,
    encrypted_scores,
    encrypted_sums,
    gradients,
    packed_columns,
    packed_moments,
    packed_rows,
    scores,
    unflattened,
)

BITS = 512


@pytest.fixture(scope="module")
def key():
    return PaillierPrivateKey(BITS)


@pytest.fixture(scope="module")
def public(key):
    return PaillierPublicKey(key.material, BITS)


def test_a_private_key_is_neither_printed_nor_copied(key):
    assert str(key._p) not in repr(key)
    with pytest.raises(TypeError, match="stays in the process"):
        copy.copy(key)


def test_phe_decrypts_what_a_key_encrypts(key):
    sent = key.encrypt([0, 1, key.n - 1, -5])
    numbers = [int.from_bytes(sent[at : at + BITS // 4], "big") for at in range(32, len(sent), BITS // 4)]
    theirs = phe.PaillierPrivateKey(phe.PaillierPublicKey(key.n), key._p, key._q)
    assert [theirs.raw_decrypt(number) for number in numbers] == [0, 1, key.n - 1, key.n - 5]


def test_the_random_part_of_an_encryption_is_an_nth_power_and_never_the_same(key):
    sent = key.encrypt([0] * 20)
    powers = [int.from_bytes(sent[at : at + BITS // 4], "big") for at in range(32, len(sent), BITS // 4)]
    assert len(set(powers)) == 20
    order = (key._p - 1) * (key._q - 1)
    assert all(gmpy2.powmod(power, order, key.n**2) == 1 for power in powers)
    # Neither half stays in a smaller group than it may: the generators reach all of it.
    for prime in (key._p, key._q):
        assert {gmpy2.legendre(power % prime, prime) for power in powers} == {1, -1}


def test_what_was_prepared_ahead_is_used_once(key, public):
    key.prepare(3)
    assert len({key.encrypt([7]) for _ in range(5)}) == 5
    public.prepare(3)
    ciphertexts = public.load(key.encrypt([7]), 1)
    assert len({public.mask(ciphertexts)[0] for _ in range(5)}) == 5


def test_masked_numbers_come_back_and_a_mask_is_taken_off_once(key, public):
    ciphertexts = public.load(key.encrypt([41, -3]), 2)
    masked, masks = public.mask(ciphertexts)
    opened = key.open(masked, 2)
    assert opened != [41, key.n - 3]
    answer = key.written(opened)
    assert masks.remove(answer) == [41, -3]
    with pytest.raises(InvalidCiphertext):
        masks.remove(answer)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=30), st.integers(42, 130))
def test_packed_integers_are_unpacked(values, limb_bits):
    assert unpacked(packed(values, limb_bits), len(values), limb_bits) == values


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 2**64), st.integers(-(2**90), 2**90)), max_size=40))
def test_a_product_of_powers_is_that_of_each_power(powers):
    modulus = (2**61 - 1) * (2**89 - 1)
    bases = [base for base, _ in powers if gmpy2.gcd(base, modulus) == 1]
    exponents = [exponent for base, exponent in powers if gmpy2.gcd(base, modulus) == 1]
    expected = 1
    for base, exponent in zip(bases, exponents, strict=True):
        expected = expected * pow(base, exponent, modulus) % modulus
    assert product_of_powers(bases, exponents, modulus) == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 2**61), st.integers(0, 2**100 - 1))
def test_a_power_by_table_is_the_power(base, exponent):
    assert FixedBase(base, 2**61 - 1, 100).power(exponent) == pow(base, exponent, 2**61 - 1)


@pytest.mark.parametrize(("bits", "width", "outputs"), [(512, 5, 1), (1024, 7, 3), (512, 1, 2)])
def test_gradients_are_exact_at_the_limits_of_inputs_and_weights(bits, width, outputs):
    p = PaillierParameters(bits, 12, 12.0, 64)
    key = PaillierPrivateKey(bits)
    public = PaillierPublicKey(key.material, bits)
    draws, rows, most = np.random.default_rng(bits + width), 90, 3 * p.one
    z = draws.choice([-most, 0, most, 1], size=(rows, width))
    own = np.column_stack([draws.choice([-most, most], size=(rows, 2)), np.full(rows, p.one)])
    weights = np.zeros((outputs, width), dtype=np.int64)
    weights[:, 0] = -12 * p.one
    errors = LinearErrors(weights, draws.integers(-38 * p.one, 38 * p.one, size=(rows, outputs)))
    of_rows = packed_rows(z, p)
    loaded = unflattened(public.load(key.encrypt(of_rows), len(of_rows)), width, p)
    of_moments = packed_moments(z, p)
    moments = unflattened(public.load(key.encrypt(of_moments), len(of_moments)), width, p)
    masked, masks = public.mask(encrypted_sums(public, moments, loaded, errors, own, p))
    opened = key.open(masked, p.opened_numbers(width, 2, outputs))
    result = gradients(masks.remove(key.written(agreed_bits(opened, width, outputs, p))), errors, own, p)
    of_each_row = z.astype(object) @ weights.T.astype(object) + errors.constants.astype(object) * p.one
    expected = of_each_row.T @ np.column_stack([z, own]).astype(object)
    assert result.tolist() == [value / p.one**3 for value in expected.ravel()]


def test_scores_are_blurred_below_their_twelfth_bit(key, public):
    p = PaillierParameters(BITS, 12, 12.0, 64)
    draws, rows = np.random.default_rng(3), 40
    z, weights = draws.integers(-12000, 12000, size=(rows, 4)), draws.integers(-9000, 9000, size=(2, 4))
    columns = packed_columns(z, p)
    masked, masks = public.mask(encrypted_scores(public, public.load(key.encrypt(columns), len(columns)), weights))
    opened = key.open(masked, 2 * len(p.score_groups(rows)))
    read = scores(masks.remove(key.written(blurred(opened, rows, 2, p))), rows, 2, p)
    error = (read - z @ weights.T / p.one**2) * 2**12
    assert np.abs(error).max() <= 1
    assert np.abs(error).mean() > 0.3
