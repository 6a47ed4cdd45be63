"""A linear model's scores from encrypted weights: right, covered by noise, and no more numbers than rows."""

import copy

import numpy as np
import pytest

from crypto import encrypted_weights
from crypto.ciphertexts import write_words
from crypto.encrypted_weights import EncryptedWeights, WeightsKey
from crypto.errors import InvalidCiphertext
from crypto.scoring_keys import ScoreBlock, WeightMaterial
from crypto.scoring_parameters import (
    DEGREE,
    FIRST,
    LINEAR,
    RESCALE,
    SPECIAL,
    scores_bytes,
    weights_bytes,
)
from crypto.seal_stream import ciphertext_payload, identifier, load, stream

COLUMNS, OUTPUTS = 5, 2


def both_ends(weights):
    key = WeightsKey()
    return key, EncryptedWeights(key.encrypt(weights), weights.shape[1], len(weights))


def case(rows, seed=1):
    draws = np.random.Generator(np.random.Philox(seed))
    return draws.normal(size=(rows, COLUMNS)).clip(-3, 3), draws.normal(size=(OUTPUTS, COLUMNS))


@pytest.mark.parametrize("rows", [1, 200, DEGREE, DEGREE + 3])
def test_scores_are_those_of_the_clear_weights_with_the_noise_that_is_named(rows):
    columns, weights = case(rows)
    key, encrypted = both_ends(weights)
    errors = key.read(encrypted.scores(columns), rows, OUTPUTS) - columns @ weights.T
    assert np.abs(errors).max() < 7 * LINEAR.score_noise
    if rows > 1000:
        assert errors.std() == pytest.approx(LINEAR.score_noise, rel=0.05)


def test_columns_and_weights_that_are_zero_are_no_error():
    columns, weights = case(20)
    columns[:, 0], weights[1] = 0, 0
    key, encrypted = both_ends(weights)
    assert np.abs(key.read(encrypted.scores(columns), 20, OUTPUTS) - columns @ weights.T).max() < 1e-3
    assert np.abs(key.read(encrypted.scores(columns * 0), 20, OUTPUTS)).max() < 1e-3


def test_how_much_is_computed_says_nothing_of_the_values_of_a_row():
    columns, weights = case(1)
    work = []
    for values in (columns, columns * 0, columns * [[0, 1, 0, 1, 1]]):
        _, encrypted = both_ends(weights)
        encrypted.scores(values)
        work.append(encrypted.operations)
    assert work == [{"multiply plain": COLUMNS * OUTPUTS, "encrypt zero": OUTPUTS}] * 3


def test_the_noise_covers_the_ciphertexts_own_at_the_limit_of_weights_and_columns(monkeypatch):
    """Of 64 columns at the clip: what is left without the feature party's noise is 2^18 times smaller."""
    monkeypatch.setattr(encrypted_weights, "LINEAR", LINEAR._replace(score_noise=0.0))
    columns, weights = np.full((DEGREE, 64), 3.0), np.full((1, 64), 12.0 / 64)
    key, encrypted = both_ends(weights)
    bare = (key.read(encrypted.scores(columns), DEGREE, 1) - 36.0) * LINEAR.unit
    assert bare.std() < LINEAR.noise / 2**18
    assert abs(bare.mean()) < LINEAR.noise / 2**12  # weights are rounded
    assert LINEAR.largest_score > 36.0


def test_a_score_out_of_range_is_unknown_and_no_error():
    key, encrypted = both_ends(np.array([[12.0]]))
    scores = key.read(encrypted.scores(np.array([[16.0], [1.0]])), 2, 1)
    assert np.isnan(scores[0, 0])
    assert scores[1, 0] == pytest.approx(12, abs=0.01)


def test_parameters_are_within_what_the_ring_allows_at_128_bits():
    bits = sum(modulus.bit_length() for modulus in (FIRST, RESCALE, SPECIAL))
    assert bits <= 106  # ePrint 2024/463, degree 4096, ternary secrets
    assert all(modulus % (2 * DEGREE) == 1 for modulus in (FIRST, RESCALE, SPECIAL))


def test_sizes_are_known_before_and_the_rows_cost_fourteen_bytes_each():
    columns, weights = case(DEGREE)
    key = WeightsKey()
    material = key.encrypt(weights[:1])
    block = EncryptedWeights(material, COLUMNS, 1).scores(columns)
    assert sum(map(len, material)) == weights_bytes(COLUMNS)
    assert sum(map(len, block)) == scores_bytes(DEGREE, 1) == 14 * DEGREE


class WithoutFreshZeros(EncryptedWeights):
    """Rule 1 left out."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._encryptor = self

    def encrypt_zero(self, level, into):
        body = ciphertext_payload(identifier(level), 1.0, np.zeros((2, 1, DEGREE), np.uint64))
        load(into, self._contexts.public.seal, stream(body))


@pytest.mark.parametrize(("kind", "told"), [(WithoutFreshZeros, True), (EncryptedWeights, False)])
def test_without_a_fresh_zero_the_second_polynomial_tells_whether_a_guess_of_all_rows_is_right(kind, told):
    key, rows = WeightsKey(), np.random.Generator(np.random.Philox(5)).integers(0, 2, (50, 1)).astype(float)
    material = key.encrypt(np.ones((1, 1)))
    sent = kind(material, 1, 1).scores(rows).polynomials
    wrong = rows.copy()
    wrong[7] = 1 - wrong[7]
    guessed = [WithoutFreshZeros(material, 1, 1).scores(guess).polynomials == sent for guess in (rows, wrong)]
    assert guessed == [told, False]


def test_weights_of_the_owners_choice_read_one_number_for_each_row_and_no_more():
    """Rule 2: a weight X^N-1 - 1 would bring the rows' differences too, at coefficients that do not travel."""
    columns, _ = case(20)
    block = both_ends(np.ones((1, COLUMNS)))[1].scores(columns)
    assert len(block.coefficients) == 20 * 7


def test_a_key_does_not_print_pickle_or_copy():
    key = WeightsKey()
    assert repr(key) == str(key) == "WeightsKey(...)"
    for leak in (copy.copy, copy.deepcopy, lambda key: key.__reduce__()):  # as pickle would
        with pytest.raises(TypeError, match="stays in the process"):
            leak(key)


def test_the_feature_partys_end_refuses_what_no_honest_label_party_sends():
    key = WeightsKey()
    material = key.encrypt(np.ones((1, 2)))
    half = len(material.weights) // 2
    for public, weights, text in (
        (material.public, material.weights[:-1], "were due"),
        (material.public, material.weights[:half] * 2, "a seed is used twice"),
        (b"\xff" * len(material.public), material.weights, "a word is not below its prime"),
        (bytes(len(material.public)), material.weights, "a polynomial is zero"),
    ):
        with pytest.raises(InvalidCiphertext, match=text):
            EncryptedWeights(WeightMaterial(public, weights), 2, 1)


def test_the_label_partys_end_refuses_what_no_honest_feature_party_sends():
    key, encrypted = both_ends(np.ones((1, COLUMNS)))
    block = encrypted.scores(case(20)[0])
    outside = write_words(np.full((1, 20), 2**54, np.uint64), (FIRST,))
    for polynomials, coefficients, text in (
        (block.polynomials[:-1], block.coefficients, "were due"),
        (block.polynomials, block.coefficients[:-7], "were due"),
        (bytes(len(block.polynomials)), block.coefficients, "a polynomial is zero"),
        (block.polynomials, outside, "a word is not below its prime"),
    ):
        with pytest.raises(InvalidCiphertext, match=text):
            key.read(ScoreBlock(polynomials, coefficients), 20, 1)
