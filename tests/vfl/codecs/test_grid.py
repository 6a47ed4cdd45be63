"""Codes on the shared grid add: the sum is exact, and a word that could wrap is refused (codecs.md)."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vfl.codecs.codec import Floats
from vfl.codecs.grid import GRID, from_sum, refuse_wrap, to_codes, word_bits
from vfl.errors import SpecConflict

SHARED = b"seed of the round"
CLIENTS, CLIP = 12, 2.0


def updates(count: int, norm: float = CLIP) -> list[Floats]:
    draw = np.random.default_rng(count)
    vectors = [draw.standard_normal(count).astype(np.float32) for _ in range(CLIENTS)]
    return [vector * np.float32(norm / np.linalg.norm(vector)) for vector in vectors]


def codes_of(vectors: list[Floats], bits: int) -> list[NDArray[np.uint32]]:
    return [to_codes(vector, CLIP, bits, SHARED, b"own %d" % i) for i, vector in enumerate(vectors)]


@pytest.mark.parametrize("count", [1, 100, 4096, 5001])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_the_sum_of_codes_decodes_to_the_exact_sum_also_modulo_the_word(count: int, bits: int) -> None:
    codes = codes_of(updates(count), bits)
    assert all(code.max() < 2**bits for code in codes)
    word = {8: np.uint8, 16: np.uint16}[word_bits(bits, CLIENTS)]
    mask = np.random.default_rng(0).integers(0, 2**16, count).astype(word)  # as secure sums will add and take away
    wrapped = mask.copy()
    for code in codes:
        wrapped += code.astype(word)
    wrapped -= mask
    exact = np.array(codes, np.uint64).sum(axis=0)
    np.testing.assert_array_equal(wrapped, exact)
    total = from_sum(wrapped, CLIENTS, CLIP, bits, SHARED)
    np.testing.assert_array_equal(total, from_sum(exact, CLIENTS, CLIP, bits, SHARED))
    each = [from_sum(code, 1, CLIP, bits, SHARED).astype(np.float64) for code in codes]
    np.testing.assert_allclose(total, np.sum(each, axis=0), atol=1e-4)


@pytest.mark.parametrize("count", [1 << 14, 20_001])
@pytest.mark.parametrize(("bits", "published"), [(4, 0.036), (6, 0.0021), (8, 1.9e-4)])
def test_the_error_of_a_message_of_norm_c_is_the_stated_one(count: int, bits: int, published: float) -> None:
    vector = updates(count)[0]
    errors = []
    for shared in (b"round %d" % number for number in range(30)):
        decoded = from_sum(to_codes(vector, CLIP, bits, shared, b"own"), 1, CLIP, bits, shared)
        errors.append(np.linalg.norm(decoded - vector) ** 2 / CLIP**2)
    assert GRID.stated_error(bits, True) == pytest.approx(published, rel=0.05)
    assert np.mean(errors) == pytest.approx(published, rel=0.15 if bits == 8 else 0.03)  # cut tails are rare


def test_errors_of_clients_with_seeds_of_their_own_average_out() -> None:
    vector = updates(1 << 14)[0]
    codes = codes_of([vector] * CLIENTS, 4)
    mean = from_sum(np.array(codes, np.uint64).sum(axis=0), CLIENTS, CLIP, 4, SHARED) / CLIENTS
    assert np.linalg.norm(mean - vector) ** 2 / CLIP**2 == pytest.approx(0.036 / CLIENTS, rel=0.15)


def test_a_vector_longer_than_c_is_cut_to_norm_c() -> None:
    vector = updates(1 << 14, norm=10 * CLIP)[0]
    decoded = from_sum(to_codes(vector, CLIP, 8, SHARED, b"own"), 1, CLIP, 8, SHARED)
    np.testing.assert_allclose(np.linalg.norm(decoded), CLIP, rtol=1e-3)
    assert np.vdot(decoded, vector) / np.linalg.norm(vector) == pytest.approx(CLIP, rel=1e-3)


def test_one_large_value_is_spread_over_the_whole_vector() -> None:
    for place in (0, 4100, 5000):
        vector = np.zeros(5001, np.float32)
        vector[place] = CLIP
        codes = to_codes(vector, CLIP, 8, SHARED, b"own")
        decoded = from_sum(codes, 1, CLIP, 8, SHARED)
        assert np.linalg.norm(decoded - vector) / CLIP < 0.05


@pytest.mark.parametrize(("bits", "cohort", "word"), [(8, 100, 16), (8, 1, 8), (8, 256, 16), (8, 257, 24), (1, 3, 8)])
def test_a_word_is_the_least_multiple_of_eight_that_holds_the_sum(bits: int, cohort: int, word: int) -> None:
    assert word_bits(bits, cohort) == word
    assert cohort * (2**bits - 1) < 2**word
    refuse_wrap(bits, cohort, word)


def test_a_word_too_small_is_refused_and_the_ways_out_are_named() -> None:
    with pytest.raises(SpecConflict, match="300 clients' codes of 8 bits needs 17 bits") as refused:
        refuse_wrap(8, 300, 16)
    assert "at most 256 clients per round with 8 bits" in refused.value.fix
    assert "at most 7 bits with 300 clients" in refused.value.fix
    assert "words of 24 bits" in refused.value.fix
    refuse_wrap(8, 256, 16)
    refuse_wrap(7, 300, 16)
