"""Masks cancel exactly modulo 2^W, are uniform, and words travel in W / 8 bytes."""

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto.masking import add_mask, machine_word, modulo, pack, subtract_mask, unpack

WIDTHS = range(8, 65, 8)
SEED = hashlib.sha256(b"seed").digest()


def drawn(count, word_bits, seed=0):
    """Words below 2^W; 2^64 is no numpy integer."""
    return modulo(np.random.default_rng(seed).integers(0, 2**64 - 1, count, np.uint64, endpoint=True), word_bits)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(WIDTHS), st.integers(0, 300), st.binary(min_size=32, max_size=32), st.integers(0, 2**32))
def test_a_mask_that_was_added_can_be_taken_off(word_bits, count, seed, number):
    plain = drawn(count, word_bits, number)
    masked = plain.astype(machine_word(word_bits))
    add_mask(masked, seed)
    subtract_mask(masked, seed)
    assert np.array_equal(modulo(masked, word_bits), plain)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(WIDTHS), st.integers(1, 300), st.integers(0, 2**32))
def test_packed_words_come_back(word_bits, count, number):
    plain = drawn(count, word_bits, number)
    body = pack(plain, word_bits)
    assert len(body) == count * word_bits // 8
    assert np.array_equal(unpack(body, word_bits), plain)


@pytest.mark.parametrize("word_bits", WIDTHS)
def test_a_mask_may_be_packed_off_and_still_cancels(word_bits):
    """What is cut from a machine word on the wire is a multiple of 2^W."""
    plain = drawn(1000, word_bits)
    masked = plain.astype(machine_word(word_bits))
    add_mask(masked, SEED)
    arrived = unpack(pack(masked, word_bits), word_bits)
    subtract_mask(arrived, SEED)
    assert np.array_equal(modulo(arrived, word_bits), plain)


def test_masks_of_many_chunks_are_the_cipher_stream():
    masked = np.zeros(400_003, np.dtype("<u2"))
    add_mask(masked, SEED)
    stream = Cipher(ChaCha20(SEED, bytes(16)), mode=None).encryptor().update(bytes(masked.nbytes))
    assert masked.tobytes() == stream


def test_pair_masks_of_twenty_members_cancel_in_the_sum():
    members, plain = range(20), [drawn(257, 24, number) for number in range(20)]
    masked = [vector.astype(machine_word(24)) for vector in plain]
    for i in members:
        for j in members[i + 1 :]:
            seed = hashlib.sha256(bytes([i, j])).digest()
            add_mask(masked[i], seed)
            subtract_mask(masked[j], seed)
    assert np.array_equal(modulo(np.sum(masked, axis=0), 24), modulo(np.sum(plain, axis=0), 24))


@pytest.mark.parametrize("word_bits", [8, 16, 24, 40])
def test_masked_bytes_are_uniform_whatever_the_words(word_bits):
    """Chi-square of each byte of the word over 256 values, against 6 standard deviations."""
    masked = np.full(1 << 16, 7, machine_word(word_bits))
    add_mask(masked, SEED)
    octets = np.frombuffer(pack(masked, word_bits), np.uint8).reshape(-1, word_bits // 8)
    for column in octets.T:
        counts = np.bincount(column, minlength=256)
        chi_square = float(np.sum((counts - 256.0) ** 2 / 256.0))
        assert abs(chi_square - 255) < 6 * np.sqrt(2 * 255)


def test_different_seeds_give_unrelated_masks():
    one, other = np.zeros(4096, np.dtype("<u1")), np.zeros(4096, np.dtype("<u1"))
    add_mask(one, SEED)
    add_mask(other, hashlib.sha256(SEED).digest())
    assert np.mean(one == other) < 0.02


@pytest.mark.parametrize("word_bits", [0, 7, 12, 72, -8])
def test_words_of_other_widths_are_refused(word_bits):
    with pytest.raises(ValueError, match="multiple of 8"):
        machine_word(word_bits)
