"""What the rules of crypto/paillier.py keep out: each attack works without its rule, and fails with it."""

import secrets
from math import isqrt

import gmpy2
import numpy as np
import phe
import pytest

from crypto.errors import InvalidCiphertext, InvalidKey
from crypto.paillier import KeyMaterial, PaillierPrivateKey, PaillierPublicKey, fingerprint
from crypto.paillier_parameters import PROOF_ROOTS, PaillierParameters, unpacked
from crypto.paillier_powers import product_of_powers
from crypto.paillier_proof import check, prove
from crypto.paillier_sums import agreed_bits, middle_value, without_other_limbs

BITS = 512
"""Too few for anybody's data, and as good as many for what is shown here."""


@pytest.fixture(scope="module")
def key():
    return PaillierPrivateKey(BITS)


@pytest.fixture(scope="module")
def public(key):
    return PaillierPublicKey(key.material, BITS)


@pytest.fixture(scope="module")
def unguarded(key):
    """Decrypts whatever comes, as phe does."""
    return phe.PaillierPrivateKey(phe.PaillierPublicKey(key.n), key._p, key._q).raw_decrypt


def on_the_wire(key, *ciphertexts):
    return fingerprint(key.n) + b"".join(int(number).to_bytes(BITS // 4, "big") for number in ciphertexts)


def factors_from(answer, n):
    """Of a decryption m of 0 or of a multiple of n: m (p + q) = 1 modulo n."""
    total = int(gmpy2.invert(answer, n))
    root = isqrt(total**2 - 4 * n)
    return {(total - root) // 2, (total + root) // 2}


@pytest.mark.parametrize("multiple", [0, 1, 5], ids=["zero", "the modulus", "a multiple of it"])
def test_the_decryption_of_a_multiple_of_the_modulus_factors_it_and_is_refused(key, unguarded, multiple):
    ciphertext = multiple * key.n
    assert factors_from(unguarded(ciphertext), key.n) == {key._p, key._q}
    with pytest.raises(InvalidCiphertext):
        key.open(on_the_wire(key, ciphertext), 1)


def test_the_decryption_of_a_multiple_of_one_prime_shows_the_other_and_is_refused(key, public, unguarded):
    p, q = key._p, key._q
    ciphertext = p * secrets.randbelow(key.n)
    assert unguarded(ciphertext) * q % p == 1
    for gate in (key.open, public.load):
        with pytest.raises(InvalidCiphertext, match="shares a factor"):
            gate(on_the_wire(key, 4, ciphertext, 9), 3)


def test_a_multiple_of_a_prime_carries_weights_through_every_mask_and_is_refused(key, public):
    """What a deviating key owner would send as a row."""
    p = key._p
    told_apart = []
    for weight in (0, 1, 2):
        masked, _ = public.mask([gmpy2.powmod(p * 12345, weight, public.square)])
        body = int.from_bytes(masked[-BITS // 4 :], "big")
        told_apart.append((body % p == 0, body % p**2 == 0))
    assert told_apart == [(False, False), (True, False), (True, True)]
    with pytest.raises(InvalidCiphertext, match="shares a factor"):
        public.load(on_the_wire(key, p * 12345), 1)


def test_a_number_beyond_the_square_would_be_a_second_name_of_another_and_is_refused(key, public, unguarded):
    assert unguarded(key.n**2 + 7) == unguarded(7)
    for gate in (key.open, public.load):
        with pytest.raises(InvalidCiphertext, match="not between"):
            gate(on_the_wire(key, key.n**2 + 7), 1)


def test_a_ciphertext_of_another_key_decrypts_to_a_number_all_the_same_and_is_refused(key, public, unguarded):
    other = PaillierPrivateKey(BITS)
    foreign = other.encrypt([5])
    number = int.from_bytes(foreign[-BITS // 4 :], "big") % key.n**2
    assert unguarded(number) not in {5, 0}
    for gate in (key.open, public.load):
        with pytest.raises(InvalidCiphertext, match="another key"):
            gate(foreign, 1)


def test_a_batch_of_another_length_would_shift_every_number_in_it_and_is_refused(key, public):
    body = key.encrypt([1, 2])
    shifted = [int.from_bytes(body[at : at + BITS // 4], "big") for at in range(31, len(body) - BITS // 4, BITS // 4)]
    assert all(number % key.n**2 > 0 for number in shifted)  # numbers like any others
    for wrong in (body[:-1], body + b"\0", body[: -BITS // 4], b""):
        for gate in (key.open, public.load):
            with pytest.raises(InvalidCiphertext, match="bytes are not 2 numbers"):
                gate(wrong, 2)


def modulus_with(small_factor):
    """(n, q) with n = small_factor x q and q = 1 modulo small_factor, so that they are not prime to each other."""
    bits = BITS - small_factor.bit_length() + 1
    while True:
        q = (secrets.randbits(bits - 1) | (3 << (bits - 2))) // small_factor * small_factor + 1
        if (q * small_factor).bit_length() == BITS and gmpy2.is_prime(q):
            return q * small_factor, q


@pytest.mark.parametrize("small_factor", [5, 4099])
def test_a_modulus_with_a_small_factor_shows_weights_modulo_it_and_is_refused(small_factor):
    n, q = modulus_with(small_factor)
    generator = next(g for g in range(2, 100) if gmpy2.powmod(g, (q - 1) // small_factor, q) != 1)
    weight = 3
    r, mask = 1 + secrets.randbelow(n - 1), secrets.randbelow(n)
    masked = gmpy2.powmod(generator, weight, n**2) * (1 + mask * n) * gmpy2.powmod(r, n, n**2) % n**2
    shown = gmpy2.powmod(masked, (q - 1) // small_factor, q)
    step = gmpy2.powmod(generator, (q - 1) // small_factor, q)
    assert next(w for w in range(small_factor) if gmpy2.powmod(step, w, q) == shown) == weight
    size = BITS // 8
    with pytest.raises(InvalidKey, match="factor below"):
        PaillierPublicKey(KeyMaterial(n.to_bytes(size, "big"), bytes(PROOF_ROOTS * size)), BITS)


def test_a_modulus_that_is_not_prime_to_its_group_cannot_be_proven():
    while True:  # p divides q - 1: no small factor is there to be seen
        p = int(gmpy2.next_prime(secrets.randbits(100) | (3 << 98)))
        q = next((q for a in range(2, 4000, 2) if gmpy2.is_prime(q := (a << 298) * p + 1)), 0)
        if q:
            break
    n = p * q
    with pytest.raises(ZeroDivisionError):
        prove(p, q)
    with pytest.raises(InvalidKey, match="does not hold"):
        check(n, n.bit_length(), [1 + secrets.randbelow(n - 1) for _ in range(PROOF_ROOTS)])


def test_keys_of_another_length_and_primes_are_refused(key):
    modulus, proof = key.material
    with pytest.raises(InvalidKey, match="length"):
        PaillierPublicKey(KeyMaterial(modulus, proof), 2 * BITS)
    with pytest.raises(InvalidKey, match="bits and not"):
        PaillierPublicKey(KeyMaterial((key.n >> 1).to_bytes(BITS // 8, "big"), proof), BITS)
    with pytest.raises(InvalidKey, match="is a prime"):
        check(int(gmpy2.prev_prime(1 << BITS)), BITS, [1] * PROOF_ROOTS)
    with pytest.raises(InvalidKey, match="does not hold"):
        PaillierPublicKey(KeyMaterial(modulus, proof[:-1] + bytes([proof[-1] ^ 1])), BITS)


def test_without_a_fresh_random_power_the_key_owner_tests_a_guess_of_weights(key, public):
    """It knows the randomness of what it encrypted, and takes the plaintext, mask and all, off by decrypting."""
    weights = [12, -7, 1900]
    rows = public.load(key.encrypt([5, 6, 7]), 3)
    combined = product_of_powers(rows, weights, public.square)

    def guessed(ciphertext, guess):
        (plaintext,) = key.open(on_the_wire(key, ciphertext), 1)
        randomness = product_of_powers(
            [row * (1 - m * key.n) % key.n**2 for row, m in zip(rows, (5, 6, 7), strict=True)], guess, key.n**2
        )
        return ciphertext * (1 - plaintext * key.n) % key.n**2 == randomness

    bare = combined * (1 + secrets.randbelow(key.n) * key.n) % key.n**2
    assert guessed(bare, weights)
    assert not guessed(bare, [12, -7, 1901])
    masked, _ = public.mask([combined])
    assert not guessed(int.from_bytes(masked[-BITS // 4 :], "big"), weights)


def test_limbs_beside_the_middle_one_show_the_key_owners_sums_unless_it_hides_them():
    p = PaillierParameters(2048, 12, 12.0, 256)
    weights, sums = np.array([3, -5, 11, 2]), np.array([1234, -77, 4000, -9])
    product = np.convolve(weights[::-1], sums)  # limbs of the product of two packed numbers
    offset = p.limbs - 4
    number = sum(int(value) << ((offset + at) * p.limb_bits) for at, value in enumerate(product))
    limbs = unpacked(number, 2 * p.limbs - 1, p.limb_bits)[offset : offset + 7]
    assert limbs[0] / weights[-1] == sums[0]  # and so on, one after the other
    assert middle_value(number, p) == weights @ sums
    hidden = [without_other_limbs(number, p) for _ in range(50)]
    assert {middle_value(each, p) for each in hidden} == {weights @ sums}
    for at in (*range(p.limbs - 1), *range(p.limbs, 2 * p.limbs - 2)):
        assert len({unpacked(each, 2 * p.limbs - 1, p.limb_bits)[at] for each in hidden}) == 50
    assert max(hidden) < 1 << (p.key_bits - 3)
    assert min(hidden) >= 0


def test_what_hides_the_other_limbs_never_reaches_the_middle_one():
    p = PaillierParameters(3072, 16, 12.0, 4096)
    largest = 1 << (p.value_bits - 1)
    for sign in (1, -1):
        number = sum(sign * largest << (at * p.limb_bits) for at in range(2 * p.limbs - 1) if at != p.limbs - 1)
        assert all(middle_value(without_other_limbs(number, p), p) == 0 for _ in range(200))


def test_a_label_party_that_fills_a_limb_with_more_than_one_value_reads_the_agreed_bits_alone():
    p = PaillierParameters(2048, 12, 12.0, 256)
    two = 5 + (77 << p.value_bits)
    assert unpacked(two, 1, p.limb_bits) == [two]  # 77 is a value of another row
    answers = [unpacked(agreed_bits([two], 1, 1, p)[0], 1, p.limb_bits)[0] for _ in range(50)]
    assert {answer % (1 << p.value_bits) for answer in answers} == {5}
    assert len({answer >> p.value_bits for answer in answers}) == 50
