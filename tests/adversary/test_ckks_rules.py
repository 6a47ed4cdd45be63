"""The four rules of `crypto.ckks`: each attack succeeds against a build without its rule and fails against ours."""

from dataclasses import replace

import numpy as np
import pytest
from coefficient_scores import encrypt_coefficients, mask_scores, score_groups, scores
from tenseal import sealapi

from crypto.ciphertexts import Seeded, read_integers, read_seeded, read_words
from crypto.ckks import CkksPrivateKey
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import PRESETS, RING_DEGREE
from crypto.ring import block_coefficients, block_sums, centred
from crypto.seal_stream import ciphertext_payload, identifier, load, read_ciphertext, read_plain_words, stream

PRESET = PRESETS["ckks-linear"]
Q = PRESET.data_moduli[0]
COLUMNS = 6


class WithoutFreshZeros(CkksPublicKey):
    """Rule 1 left out: what goes back is not re-randomised."""

    def prepare_zeros(self, count):
        context = self._contexts.release
        words = np.zeros((2, 1, RING_DEGREE), np.uint64)
        body = ciphertext_payload(identifier(context.levels[0]), 1.0, words)
        while len(self._zeros) < count:
            self._zeros.append(load(sealapi.Ciphertext(), context.seal, stream(body)))


def table_and_weights():
    draws = np.random.Generator(np.random.Philox(3))
    return draws.normal(size=(50, COLUMNS)).clip(-3, 3), draws.normal(size=COLUMNS)


def scores_asked(kind, preset=PRESET):
    """(private key, what the key owner kept and received, quantised weights, the asking party's secrets)."""
    private = CkksPrivateKey(preset, 4096)
    public = kind(preset, private.public_material(1), 1)
    columns, weights = table_and_weights()
    embedding = public.load(encrypt_coefficients(private, columns), COLUMNS, 50, 1)
    own = [read_ciphertext(vector.ciphertext)[1, 0] for vector in embedding]
    score = scores(public, embedding, weights[None])
    before = read_ciphertext(score[0].ciphertext)
    masked, mask = mask_scores(public, score)
    return private, own, masked, mask, before, np.rint(weights * 2.0 ** (preset.sum_scale - preset.embedding_scale))


def solve_modulo(matrix, values, modulus):
    """Gaussian elimination on Python integers; the solution centred around zero."""
    rows = [[int(x) for x in row] + [int(v)] for row, v in zip(matrix, values, strict=True)]
    for i in range(len(rows)):
        pivot = next(j for j in range(i, len(rows)) if rows[j][i] % modulus)
        rows[i], rows[pivot] = rows[pivot], rows[i]
        inverse = pow(rows[i][i], -1, modulus)
        rows[i] = [x * inverse % modulus for x in rows[i]]
        for j in range(len(rows)):
            if j != i and rows[j][i]:
                rows[j] = [(x - rows[j][i] * y) % modulus for x, y in zip(rows[j], rows[i], strict=True)]
    return [centred(row[-1], modulus) for row in rows]


@pytest.mark.parametrize(("kind", "recovered"), [(WithoutFreshZeros, True), (CkksPublicKey, False)])
def test_rule_1_without_a_fresh_zero_the_second_polynomial_gives_all_weights_away(kind, recovered):
    _, own, masked, _, _, weights = scores_asked(kind)
    second = read_words(memoryview(masked.packed), (Q,), RING_DEGREE)[0]
    matrix = np.stack([words[:COLUMNS] for words in own], axis=1)
    solution = solve_modulo(matrix, second[:COLUMNS], Q)
    assert (solution == weights.astype(int).tolist()) is recovered


def test_rule_2_whole_first_polynomials_would_show_the_key_owner_every_score_unmasked():
    """With c0 the key owner decrypts all coefficients; what we send instead is uniform under its key."""
    private, _, masked, _, before, _ = scores_asked(CkksPublicKey)
    secret = private._secret[Q]
    whole = [(int(a) + int(b) * int(s)) % Q for a, b, s in zip(before[0, 0], before[1, 0], secret, strict=True)]
    scores = [centred(value, Q) / 2.0**PRESET.sum_scale for value in block_coefficients(whole, RING_DEGREE, Q)]
    columns, weights = table_and_weights()
    assert np.allclose(scores[: len(columns)], columns @ weights, atol=1e-4)
    numbers = read_integers(masked.masked, RING_DEGREE, Q)
    sent = read_words(memoryview(masked.packed), (Q,), RING_DEGREE)[0]
    seen = [(a + int(b) * int(s)) % Q for a, b, s in zip(numbers, sent, secret, strict=True)]
    values = np.array(block_coefficients(seen, RING_DEGREE, Q)[:50], float)
    assert abs(values.mean() / Q - 0.5) < 0.2
    assert values.std() / Q > 0.2


@pytest.mark.parametrize(("noise", "recovered"), [(0.0, True), (PRESET.noise, False)])
def test_rule_3_exact_answers_are_exact_linear_equations_in_the_key(noise, recovered):
    """Eight unknown key words, eight answers: without noise they are solved for, with noise they are not.

    N answers would do the same to all N words; the rest of the key is given here so that the test stays small.
    """
    preset, unknown = replace(PRESET, noise=noise), 8
    private = CkksPrivateKey(preset, 4096)
    public = CkksPublicKey(preset, private.public_material(1), 1)
    secret = private._secret[Q]
    matrix, values = [], []
    for answer in range(unknown):
        data = encrypt_coefficients(private, np.full((1, 1), answer / 10))
        score = scores(public, public.load(data, 1, 1, 1), np.ones((1, 1)))
        total = read_ciphertext(score[0].ciphertext)
        opened, mask = opening(private, public, score)
        constant = (opened - mask) * RING_DEGREE % Q
        first, second = sum(int(x) for x in total[0, 0]), total[1, 0]
        known = sum(int(c) * int(s) for c, s in zip(second[unknown:], secret[unknown:], strict=True))
        matrix.append([int(c) for c in second[:unknown]])
        values.append((constant - first - known) % Q)
    solution = [x % Q for x in solve_modulo(matrix, values, Q)]
    assert (solution == [int(s) for s in secret[:unknown]]) is recovered


def opening(private, public, score):
    """One masked opening without Enc(0): the asking party deviates to read the bare equation."""
    public._zeros = []
    WithoutFreshZeros.prepare_zeros(public, 1)
    masked, mask = mask_scores(public, score)
    (opened,) = np.frombuffer(private.open(masked, score_groups(1, 1)), "<u8").tolist()
    return opened, mask.numbers[0]


def test_rule_4_two_ciphertexts_under_one_seed_give_the_difference_of_their_values_away():
    private = CkksPrivateKey(PRESET, 200)
    data = encrypt_coefficients(private, np.array([[1.0, 2.5]]))
    moduli = PRESET.data_moduli
    ours = read_seeded(data, 2, moduli, RING_DEGREE, set())
    assert ours[0].seed != ours[1].seed
    difference = difference_of_constants(ours[0], ours[1])
    assert abs(difference - 1.5) > 1
    # A build that draws one seed: the second polynomials cancel, and c0 - c0' is the difference of the messages.
    shared = [reseeded(private, value) for value in (1.0, 2.5)]
    assert difference_of_constants(*shared) == pytest.approx(1.5, abs=1e-3)


def reseeded(private, value):
    """An encryption of `value` with the second polynomial of a fixed seed, by hand: c0 = m + e - a s."""
    secret = private._secret[Q]
    plain = private._contexts.data.encode(value, len(PRESET.data_moduli), 2.0**PRESET.embedding_scale)
    message = read_plain_words(plain).reshape(len(PRESET.data_moduli), RING_DEGREE)[0]
    a = np.random.Generator(np.random.Philox(9)).integers(0, Q, RING_DEGREE, np.uint64)
    words = [(int(m) - int(x) * int(s)) % Q for m, x, s in zip(message, a, secret, strict=True)]
    return Seeded(np.array([words], np.uint64), bytes(64))


def difference_of_constants(first, second):
    """Constant coefficient of c0' - c0, unscaled."""
    words = np.array([(int(b) - int(a)) % Q for a, b in zip(first.words[0], second.words[0], strict=True)], np.uint64)
    constant = sum(block_sums(words, 1, Q)) * pow(RING_DEGREE, -1, Q) % Q
    return centred(constant, Q) / 2.0**PRESET.embedding_scale


def test_rule_4_the_owner_cannot_choose_the_random_half_of_the_public_key():
    """The wire has room for one polynomial and a seed: a public key with a zero second half cannot be written."""
    private = CkksPrivateKey(PRESET, 200)
    material = private.public_material(1)
    release = PRESET.public_moduli
    (public,) = read_seeded(material.public, 1, release, RING_DEGREE, set())
    assert len(material.public) == public.words.shape[0] * 8 * RING_DEGREE + 64
    loaded = CkksPublicKey(PRESET, material, 1)
    loaded.prepare_zeros(2)
    first, second = (read_ciphertext(zero) for zero in loaded._zeros)
    assert (first[1] != second[1]).mean() > 0.99
