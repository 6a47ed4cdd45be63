"""Exact arithmetic beside SEAL, against the slow definition."""

import numpy as np
import pytest

from crypto.ckks_parameters import PRESETS, RING_DEGREE
from crypto.packing import groups_for
from crypto.ring import (
    block_coefficients,
    block_inner_products,
    block_sums,
    centred,
    primitive_root,
    uniform_words,
)

Q = PRESETS["ckks-linear"].data_moduli[0]
SMALL = 64  # Q = 1 mod 16384, so every smaller power of two divides Q - 1 too


def bit_reversed(index, bits):
    return int(f"{index:0{bits}b}"[::-1], 2)


def transform_by_definition(coefficients):
    """Word i is the value at psi^(2 rev(i) + 1)."""
    psi, n = primitive_root(Q, len(coefficients)), len(coefficients)
    points = [pow(psi, 2 * bit_reversed(i, n.bit_length() - 1) + 1, Q) for i in range(n)]
    return [sum(c * pow(x, k, Q) for k, c in enumerate(coefficients)) % Q for x in points]


@pytest.mark.parametrize("blocks", [1, 2, 16, SMALL])
def test_coefficients_at_multiples_come_from_block_sums_alone(blocks):
    coefficients = uniform_words(SMALL, Q)
    words = np.array(transform_by_definition(coefficients), np.uint64)
    sums = block_sums(words, blocks, Q)
    assert block_coefficients(sums, SMALL, Q) == coefficients[:: SMALL // blocks]


def test_a_numbered_vector_of_the_transform():
    """X^3 + 2 over eight words: values at odd powers of the root, bit-reversed, and back."""
    words = transform_by_definition([2, 0, 0, 1, 0, 0, 0, 0])
    psi = primitive_root(Q, 8)
    assert words[0] == (pow(psi, 3, Q) + 2) % Q
    assert words[1] == (pow(psi, 27, Q) + 2) % Q
    assert block_coefficients(words, 8, Q) == [2, 0, 0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("blocks", [1, 32, RING_DEGREE])
def test_inner_products_are_exact_for_words_of_sixty_bits(blocks):
    left, right = (np.array(uniform_words(RING_DEGREE, Q), np.uint64) for _ in range(2))
    slow = [
        sum(int(a) * int(b) for a, b in zip(x, y, strict=True)) % Q
        for x, y in zip(left.reshape(blocks, -1), right.reshape(blocks, -1), strict=True)
    ]
    assert block_inner_products(left, right, blocks, Q) == slow


def test_uniform_words_fill_the_whole_range_below_the_modulus():
    words = uniform_words(4000, Q)
    assert max(words) < Q
    assert max(words) > Q * 0.99
    assert min(words) < Q * 0.01
    assert abs(sum(words) / 4000 / Q - 0.5) < 0.05


def test_centred_picks_the_representative_nearest_zero():
    assert [centred(v, 7) for v in range(7)] == [0, 1, 2, 3, -3, -2, -1]


@pytest.mark.parametrize("count", [1, 2, 3, 11, 17, 31, 64, 65, 650, 1024, 1500, 4096])
def test_groups_hold_every_value_once(count):
    groups = groups_for(count)
    assert sum(group.values for group in groups) == count
    assert all(group.values <= group.width and group.width & (group.width - 1) == 0 for group in groups)


def test_seventeen_values_travel_as_sixteen_and_one():
    assert groups_for(17) == ((16, 16), (1, 1))
