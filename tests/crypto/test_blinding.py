"""Points of ristretto255: made from hashes as the standard says, refused where no honest peer could have sent them."""

import copy
import hashlib
import os

import numpy as np
import pytest
import rbcl
from hypothesis import given, settings
from hypothesis import strategies as st
from rbcl._sodium import lib_path

from crypto.blinding import (
    POINT_BYTES,
    BlindingKey,
    ControlPoint,
    blind_points,
    check_encodings,
    check_points,
    fresh_order,
    points_of_hashes,
    split,
)
from crypto.errors import InvalidPoint

ONE = (1).to_bytes(32, "little")
IDENTITY = bytes(POINT_BYTES)
VECTORS = {
    "Ristretto is traditionally a short shot of espresso coffee": (
        "3066f82a1a747d45120d1740f14358531a8f04bbffe6a819f86dfe50f44a0a46"
    ),
    "made with the normal amount of ground coffee but extracted with": (
        "f26e5b6f7d362d2d2a94c5d0e7602cb4773c95a2e5c31a64f133189fa76ed61b"
    ),
}
"""RFC 9496, appendix A.3: SHA-512 of the text, and its element."""
NOT_CANONICAL = [
    "00ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "f3ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371",
    "3eb858e78f5a7254d8c9731174a94f76755fd3941c0ac93735c07ba14579630e",
]
"""RFC 9496, appendix A.2: not canonical, negative, no square root."""


def hashes(count):
    return b"".join(hashlib.sha512(bytes([number % 256, number // 256])).digest() for number in range(count))


@pytest.mark.parametrize("text", VECTORS)
def test_a_hash_becomes_the_point_of_the_standards_vectors(text):
    assert points_of_hashes(ONE, hashlib.sha512(text.encode()).digest()).hex() == VECTORS[text]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(), max_size=8))
def test_points_blinded_by_two_keys_are_the_same_whoever_came_first(texts):
    pieces = [hashlib.sha512(text).digest() for text in texts]
    first, second = BlindingKey().scalar().reveal(), BlindingKey().scalar().reveal()
    there, back = (
        blind_points(other, points_of_hashes(one, b"".join(pieces)))
        for one, other in ((first, second), (second, first))
    )
    assert there == back


def test_every_key_is_fresh_and_neither_prints_nor_pickles():
    one, other = BlindingKey(), BlindingKey()
    assert one.scalar().reveal() != other.scalar().reveal()
    assert one.scalar().reveal().hex() not in repr(one)
    with pytest.raises(TypeError, match="stays in its process"):
        copy.copy(one)  # it asks for what a pickle would hold


@pytest.mark.parametrize("point", NOT_CANONICAL)
def test_what_is_no_canonical_point_is_refused(point):
    good = points_of_hashes(ONE, hashes(1))
    for work in (check_points, blind_points):
        with pytest.raises(InvalidPoint, match="point 2 of the batch is not the canonical encoding"):
            work(ONE, good + bytes.fromhex(point))


def test_the_identity_is_refused_although_libsodium_takes_it_for_a_point():
    assert rbcl.crypto_core_ristretto255_is_valid_point(IDENTITY)
    for work in (check_points, blind_points):
        with pytest.raises(InvalidPoint, match="point 1 of the batch is the identity"):
            work(ONE, IDENTITY)


@pytest.mark.parametrize("point", [bytes.fromhex(point) for point in NOT_CANONICAL[:4]] + [IDENTITY])
def test_encodings_that_no_point_has_are_found_without_decoding(point):
    good = points_of_hashes(ONE, hashes(50))
    check_encodings(good)
    with pytest.raises(InvalidPoint):
        check_encodings(good + point + good)


def test_part_of_a_point_is_refused():
    with pytest.raises(InvalidPoint, match="33 bytes"):
        blind_points(ONE, bytes(33))


@pytest.mark.parametrize("count", [1, 2, 63, 300])
def test_a_control_point_passes_where_every_point_was_multiplied_in_its_place(count):
    points = points_of_hashes(BlindingKey().scalar().reveal(), hashes(count))
    control, peer = ControlPoint(points), BlindingKey().scalar().reveal()
    assert len(split(control.batch)) == count + 1
    assert control.checked(blind_points(peer, control.batch)) == blind_points(peer, points)


def test_a_control_point_finds_a_batch_in_another_order():
    control = ControlPoint(points_of_hashes(BlindingKey().scalar().reveal(), hashes(300)))
    answers = split(blind_points(BlindingKey().scalar().reveal(), control.batch))
    with pytest.raises(InvalidPoint, match="each in its place"):
        control.checked(b"".join(answers[at] for at in np.roll(np.arange(len(answers)), 1)))


def test_a_control_point_finds_answers_under_two_keys():
    control = ControlPoint(points_of_hashes(BlindingKey().scalar().reveal(), hashes(300)))
    half = len(control.batch) // 2 // POINT_BYTES * POINT_BYTES
    keys = BlindingKey().scalar().reveal(), BlindingKey().scalar().reveal()
    answers = blind_points(keys[0], control.batch[:half]) + blind_points(keys[1], control.batch[half:])
    with pytest.raises(InvalidPoint, match="each in its place"):
        control.checked(answers)


def test_an_order_is_a_permutation_and_a_new_one_each_time():
    orders = [fresh_order(200) for _ in range(2)]
    assert all(sorted(order) == list(range(200)) for order in orders)
    assert orders[0].tolist() != orders[1].tolist()


def test_the_file_that_the_library_is_loaded_from_does_not_stay():
    assert not os.path.exists(lib_path)  # noqa: PTH110 - a text of rbcl
