"""A network's scores from encrypted weights: right, covered by noise, and no more numbers than rows."""

import numpy as np
import pytest

from crypto import encrypted_quadratics
from crypto.ciphertexts import seeded_bytes
from crypto.encrypted_quadratics import EncryptedQuadratics, QuadraticKey, products_of
from crypto.errors import InvalidCiphertext
from crypto.scoring_keys import ScoreBlock, WeightMaterial
from crypto.scoring_parameters import (
    DEGREE,
    FIRST,
    QUADRATIC,
    WEIGHT_MODULI,
    layout_for,
    quadratic_scores_bytes,
    slopes_bytes,
    weights_bytes,
)
from crypto.seal_stream import SEED_BYTES, ciphertext_payload, identifier, load, stream

WIDTH, OUTPUTS = 5, 2


def case(rows, width=WIDTH, outputs=OUTPUTS, seed=1):
    """(embedding, weights of products, slopes)."""
    draws = np.random.Generator(np.random.Philox(seed))
    pairs = width * (width + 1) // 2
    return (
        draws.normal(size=(rows, width)).clip(-3, 3),
        draws.normal(size=(outputs, pairs)) / 4,
        draws.normal(size=(rows, outputs, width)),
    )


def in_clear(embedding, squares, slopes):
    return products_of(embedding) @ squares.T + np.einsum("roc,rc->ro", slopes, embedding)


def both_ends(squares, width=WIDTH, kind=EncryptedQuadratics):
    key = QuadraticKey(width)
    return key, kind(key.encrypt(squares), width, len(squares))


def read(embedding, squares, slopes):
    key, quadratics = both_ends(squares, embedding.shape[1])
    block = quadratics.scores(embedding, key.encrypt_slopes(slopes))
    return key.read(block, len(embedding), len(squares))


@pytest.mark.parametrize(("rows", "width", "outputs"), [(1, 5, 2), (7, 16, 1), (700, 16, 1), (2100, 3, 2), (70, 64, 1)])
def test_scores_are_those_of_the_clear_weights_with_the_noise_that_is_named(rows, width, outputs):
    given = case(rows, width, outputs)
    errors = read(*given) - in_clear(*given)
    assert np.abs(errors).max() < 7 * QUADRATIC.score_noise < 1e-3
    if rows > 500:
        assert errors.std() == pytest.approx(QUADRATIC.score_noise, rel=0.1)


def test_values_and_weights_that_are_zero_are_no_error():
    embedding, squares, slopes = case(20)
    embedding[:, 0], squares[1], slopes[3] = 0, 0, 0
    for rows in (embedding, embedding * 0):
        assert np.abs(read(rows, squares, slopes) - in_clear(rows, squares, slopes)).max() < 1e-3


def test_how_much_is_computed_says_nothing_of_the_values_of_a_row():
    embedding, squares, slopes = case(1)
    work = []
    for values in (embedding, embedding * 0, embedding * [[0, 1, 0, 1, 1]]):
        key, quadratics = both_ends(squares)
        quadratics.scores(values, key.encrypt_slopes(slopes))
        work.append(quadratics.operations)
    layout = layout_for(WIDTH)
    products = (layout.slopes + layout.squares) * OUTPUTS
    assert work == [{"multiply plain": products, "encrypt zero": OUTPUTS}] * 3


@pytest.mark.parametrize(("rows", "bound", "bits"), [(256, 3.0, 18), (64, 3.0, 18), (1, 3.0, 18), (1, 16.0, 16.5)])
def test_the_noise_covers_the_ciphertexts_own_at_the_limit_of_weights_and_columns(monkeypatch, rows, bound, bits):
    """Of 16 columns at the clip, or a bottom model's largest outputs, and weights at the higher limit: by how much the
    same rows under fresh ciphertexts differ, against the feature party's noise."""
    monkeypatch.setattr(encrypted_quadratics, "QUADRATIC", QUADRATIC._replace(score_noise=0.0))
    signs = np.where(np.random.default_rng(2).integers(0, 2, (rows, 16)), bound, -bound)
    pairs = np.full((1, 136), 0.12 * 6 * 2 * 12 * 12 / 256)
    slopes = np.full((rows, 1, 16), 6 * (2 * 0.12 * 36 + 0.5) * 12 / 16)
    assert np.abs(in_clear(signs, pairs, slopes)).max() < QUADRATIC.largest_score
    draws = -(-64 // rows)  # of few rows, enough for a deviation: that of one difference says little
    pairs_of_reads = [read(signs, pairs, slopes) - read(signs, pairs, slopes) for _ in range(draws)]
    differences = np.concatenate(pairs_of_reads) * QUADRATIC.unit
    assert np.sqrt(np.mean(np.square(differences)) / 2) < QUADRATIC.noise / 2**bits


def test_rows_are_opened_in_full_ciphertexts_and_powers_of_two():
    layout = layout_for(16)
    assert (layout.rows, layout.entries, layout.slopes, layout.squares) == (256, 16, 1, 9)
    assert [len(piece) for piece in layout.pieces(700)] == [256, 256, 128, 32, 16, 8, 4]
    for rows in (1, 255, 256, 257, 4096):
        assert [row for piece in layout.pieces(rows) for row in piece] == list(range(rows))


def test_weights_of_the_owners_choice_read_one_number_for_each_row_and_no_more():
    """Rule 2: no other coefficient of the first polynomials travels."""
    for rows in (1, 20, 300):
        embedding, squares, slopes = case(rows)
        key, quadratics = both_ends(squares)
        assert len(quadratics.scores(embedding, key.encrypt_slopes(slopes)).coefficients) == 7 * rows * OUTPUTS


def test_what_is_not_a_score_of_a_row_is_not_in_the_numbers_that_travel(monkeypatch):
    """Slopes for rows that are not there, and the imaginary parts of the sums, change no number."""
    monkeypatch.setattr(encrypted_quadratics, "QUADRATIC", QUADRATIC._replace(score_noise=0.0))
    embedding, squares, slopes = case(20)
    layout = layout_for(WIDTH)
    more = np.concatenate([slopes, np.full((layout.rows - 20, OUTPUTS, WIDTH), 9.0)])
    key, quadratics = both_ends(squares)
    scores = key.read(quadratics.scores(embedding, key.encrypt_slopes(more)), 20, OUTPUTS)
    assert np.abs(scores - in_clear(embedding, squares, slopes)).max() < 1e-4


def test_numbers_out_of_range_make_the_scores_unknown_that_follow_from_them_and_no_error():
    embedding, squares, slopes = case(3)
    slopes[0, 0] = 4 * QUADRATIC.largest_score * np.array([1, 0, 0, 0, 0]) / embedding[0, 0]
    scores = read(embedding, squares, slopes)
    assert np.isnan(scores[:2, 0]).all()
    others = in_clear(embedding, squares, slopes)
    assert np.abs(scores[2] - others[2]).max() < 1e-3
    assert np.abs(scores[:, 1] - others[:, 1]).max() < 1e-3


def test_sizes_are_known_before():
    rows, layout = 300, layout_for(WIDTH)
    embedding, squares, slopes = case(rows)
    key = QuadraticKey(WIDTH)
    material, encrypted = key.encrypt(squares), key.encrypt_slopes(slopes)
    block = EncryptedQuadratics(material, WIDTH, OUTPUTS).scores(embedding, encrypted)
    assert sum(map(len, material)) == weights_bytes(OUTPUTS * layout.squares)
    assert len(encrypted) == slopes_bytes(layout, rows, OUTPUTS)
    assert sum(map(len, block)) == quadratic_scores_bytes(layout, rows, OUTPUTS)


def test_a_row_of_sixteen_columns_costs_less_than_a_thousand_bytes_from_a_thousand_rows_on():
    assert layout_for(16).bytes(1024) < 1000 * 1024
    assert layout_for(16).bytes(DEGREE) < 400 * DEGREE


class WithoutFreshZeros(EncryptedQuadratics):
    """Rule 1 left out."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._encryptor = self

    def encrypt_zero(self, level, into):
        body = ciphertext_payload(identifier(level), 1.0, np.zeros((2, 1, DEGREE), np.uint64))
        load(into, self._contexts.public.seal, stream(body))


@pytest.mark.parametrize(("kind", "told"), [(WithoutFreshZeros, True), (EncryptedQuadratics, False)])
def test_without_a_fresh_zero_the_second_polynomial_tells_whether_a_guess_of_all_rows_is_right(kind, told):
    embedding, squares, slopes = case(50)
    key, rows = QuadraticKey(WIDTH), np.sign(embedding)
    material, encrypted = key.encrypt(squares), key.encrypt_slopes(slopes)
    sent = kind(material, WIDTH, OUTPUTS).scores(rows, encrypted).polynomials
    wrong = rows.copy()
    wrong[7, 2] *= -1
    guessed = [
        WithoutFreshZeros(material, WIDTH, OUTPUTS).scores(guess, encrypted).polynomials == sent
        for guess in (rows, wrong)
    ]
    assert guessed == [told, False]


def test_the_feature_partys_end_refuses_what_no_honest_label_party_sends():
    embedding, squares, slopes = case(20)
    key, quadratics = both_ends(squares)
    material, encrypted = key.encrypt(squares), key.encrypt_slopes(slopes)
    quadratics.scores(embedding, encrypted)
    words = seeded_bytes(WEIGHT_MODULI, DEGREE) - SEED_BYTES  # of the first ciphertext
    for sent, text in (
        (encrypted, "a seed is used twice"),
        (encrypted[:-1], "were due"),
        (b"\xff" * words + key.encrypt_slopes(slopes)[words:], "a word is not below its prime"),
        (bytes(words) + key.encrypt_slopes(slopes)[words:], "a polynomial is zero"),
    ):
        with pytest.raises(InvalidCiphertext, match=text):
            quadratics.scores(embedding, sent)
    with pytest.raises(InvalidCiphertext, match="were due"):
        EncryptedQuadratics(WeightMaterial(material.public, material.weights[:-1]), WIDTH, OUTPUTS)


def test_the_label_partys_end_refuses_what_no_honest_feature_party_sends():
    embedding, squares, slopes = case(20)
    key, quadratics = both_ends(squares)
    block = quadratics.scores(embedding, key.encrypt_slopes(slopes))
    for polynomials, coefficients, text in (
        (block.polynomials[:-1], block.coefficients, "were due"),
        (block.polynomials, block.coefficients[:-7], "were due"),
        (bytes(len(block.polynomials)), block.coefficients, "a polynomial is zero"),
        (block.polynomials, (2**54).to_bytes(7, "little") * 40, "a word is not below its prime"),
    ):
        with pytest.raises(InvalidCiphertext, match=text):
            key.read(ScoreBlock(polynomials, coefficients), 20, OUTPUTS)
    assert FIRST < 2**54


def test_a_key_does_not_print():
    assert repr(QuadraticKey(WIDTH)) == "QuadraticKey(...)"
