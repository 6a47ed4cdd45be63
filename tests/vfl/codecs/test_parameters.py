"""One body holds a model exactly as agreed, and nothing else is taken for one (R3.2, R3.3, R3.9)."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vfl.codecs import CODECS, InvalidBody
from vfl.codecs.choice import bits_for_budget, bits_for_link
from vfl.codecs.parameters import (
    Format,
    Integers,
    bits_of,
    decode_parameters,
    encode_each,
    encode_parameters,
    expected_bytes,
    message_error,
    readers,
    shapes,
)
from vfl.errors import Diverged

HEADER_BYTES, HEADER_BYTES_PER_TENSOR = 64, 8
DRAW = np.random.default_rng(3)
MODEL: dict[str, NDArray[Any]] = {
    "first.weight": DRAW.standard_normal((200, 64)).astype(np.float32),
    "first.bias": DRAW.standard_normal(200).astype(np.float32),
    "norm.running_mean": DRAW.standard_normal(2000).astype(np.float32),
    "norm.num_batches_tracked": np.array(2**40 + 1, np.int64),
    "convolution.weight": DRAW.standard_normal((32, 4, 3, 3)).astype(np.float32),
    "small.weight": DRAW.standard_normal((10, 20)).astype(np.float32),
    "scale": np.array(-0.0, np.float32),
}
LIKE = shapes(MODEL)
COMPRESSED = {"first.weight", "convolution.weight"}
FOUR_BITS = Format("rotation", 4, unbiased=True)
BODY = encode_parameters(MODEL, FOUR_BITS, b"seed")


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("unbiased", [True, False])
def test_a_body_is_exactly_as_long_as_said_and_everything_small_comes_back_exactly(
    codec: str, bits: int, *, unbiased: bool
) -> None:
    agreed = Format(codec, bits, unbiased)
    body = encode_parameters(MODEL, agreed, b"seed")
    assert len(body) == expected_bytes(LIKE, agreed)
    decoded = decode_parameters(memoryview(body), LIKE, agreed)
    assert list(decoded) == list(MODEL)
    assert shapes(decoded) == LIKE
    for name in MODEL.keys() - COMPRESSED:
        assert decoded[name].tobytes() == MODEL[name].tobytes()
        decoded[name][...] = 0  # it can be trained on


def test_the_bytes_are_blocks_left_over_values_other_tensors_and_a_short_header() -> None:
    blocks = {"first.weight": [8192, 4096, 512], "convolution.weight": [1024, 128]}
    coded = sum(4 * length // 8 + 4 for lengths in blocks.values() for length in lengths)
    as_they_are = sum(MODEL[name].nbytes for name in MODEL.keys() - COMPRESSED)
    header = len(BODY) - coded - as_they_are
    assert 0 < header <= HEADER_BYTES + HEADER_BYTES_PER_TENSOR * len(MODEL)


def test_codec_none_is_exact_to_the_bit() -> None:
    agreed = Format("none", 32, unbiased=False)
    decoded = decode_parameters(encode_parameters(MODEL, agreed, b""), LIKE, agreed)
    assert {name: t.tobytes() for name, t in decoded.items()} == {name: t.tobytes() for name, t in MODEL.items()}


def test_bits_may_be_given_by_tensor_and_the_others_stay_exact() -> None:
    agreed = Format("rotation", {"first.weight": 2}, unbiased=False)
    decoded = decode_parameters(encode_parameters(MODEL, agreed, b"seed"), LIKE, agreed)
    np.testing.assert_array_equal(decoded["convolution.weight"], MODEL["convolution.weight"])
    error = message_error(MODEL, decoded, agreed)
    assert list(error.by_tensor) == ["first.weight"]
    assert error.measured == pytest.approx(0.1175, rel=0.1)


def test_bits_for_a_tensor_that_is_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="does not have: second"):
        encode_parameters(MODEL, Format("rotation", {"second": 2}, unbiased=False), b"seed")


@pytest.mark.parametrize(("codec", "bits"), [("rotation", 9), ("rotation", 0), ("block", 16), ("zip", 4)])
def test_a_format_that_no_codec_writes_is_refused(codec: str, bits: int) -> None:
    with pytest.raises(ValueError, match=r"bits|codec"):
        Format(codec, bits, unbiased=True)


def test_tensors_of_one_message_and_messages_of_other_seeds_are_rotated_differently() -> None:
    twice = {"a": MODEL["first.weight"], "b": MODEL["first.weight"]}
    decoded = decode_parameters(encode_parameters(twice, FOUR_BITS, b"seed"), shapes(twice), FOUR_BITS)
    assert not np.array_equal(decoded["a"], decoded["b"])
    assert encode_parameters(MODEL, FOUR_BITS, b"seed") == BODY != encode_parameters(MODEL, FOUR_BITS, b"seed 2")


def test_weights_that_are_not_float32_are_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="w is float64"):
        encode_parameters({"w": np.zeros((2, 2))}, FOUR_BITS, b"seed")


@pytest.mark.parametrize("name", ["first.weight", "first.bias"])
def test_parameters_that_are_not_finite_are_not_sent(name: str) -> None:
    spoiled = {**MODEL, name: np.full_like(MODEL[name], np.nan)}
    with pytest.raises(Diverged, match="not finite"):
        encode_parameters(spoiled, FOUR_BITS, b"seed")


def test_tensors_can_be_made_and_read_one_at_a_time() -> None:
    assert encode_each(iter(MODEL.values()), LIKE, FOUR_BITS, b"seed") == BODY
    reading = readers(BODY, LIKE, FOUR_BITS)
    for name, tensor in decode_parameters(BODY, LIKE, FOUR_BITS).items():
        np.testing.assert_array_equal(reading[name](), tensor)


def test_what_is_not_compressed_can_travel_as_bf16() -> None:
    form = Format("rotation", 4, unbiased=False, rest="half")
    body = encode_parameters(MODEL, form, b"seed")
    left = [n for n, shape in LIKE.items() if not isinstance(shape, Integers) and not bits_of(n, shape, form)]
    assert len(BODY) - len(body) == sum(2 * MODEL[name].size for name in left)
    decoded = decode_parameters(body, LIKE, form)
    assert all(np.allclose(decoded[name], MODEL[name], rtol=2**-8) for name in left)


# -- what a receiver refuses


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "0 bytes, and"),
        (BODY[:-1], "bytes, and"),
        (BODY + b"\0", "bytes, and"),
        (b"X" + BODY[1:], "not a body of parameters"),
        (BODY.replace(b"rotation", b"rotatiom"), "'rotatiom', and 'rotation' was agreed"),
        (encode_parameters(MODEL, Format("rotation", 4, unbiased=False), b"seed"), "another than was agreed"),
        (BODY[:21] + b"\x08" + BODY[22:], "8 tensors, and 7 are due"),
        (BODY[:41] + b"\x03" + BODY[42:], "tensor first.weight has 3 bits, and 4 were agreed"),
        (
            BODY[:-4] + np.array(np.nan, "<f4").tobytes(),
            "tensor scale cannot be read: the values of the body are not finite",
        ),
        (BODY[:55] + np.array(np.inf, "<f4").tobytes() + BODY[59:], "scales of the body are not finite"),
    ],
)
def test_a_body_that_is_not_as_agreed_is_refused_with_the_reason(body: bytes, text: str) -> None:
    with pytest.raises(InvalidBody, match=text):
        decode_parameters(body, LIKE, FOUR_BITS)


def test_a_body_of_other_bits_or_another_model_is_refused() -> None:
    with pytest.raises(InvalidBody):
        decode_parameters(BODY, LIKE, Format("rotation", 3, unbiased=True))
    with pytest.raises(InvalidBody):
        decode_parameters(BODY, {**LIKE, "first.bias": Integers((200,))}, FOUR_BITS)


@given(st.sampled_from(sorted(CODECS)), st.binary(max_size=6), st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_bytes_of_any_kind_are_refused_or_decode_to_finite_parameters(codec: str, noise: bytes, place: float) -> None:
    agreed = Format(codec, 4, unbiased=True)
    body = bytearray(encode_parameters(MODEL, agreed, b"seed"))
    at = int(place * (len(body) - len(noise)))
    body[at : at + len(noise)] = noise
    try:
        decoded = decode_parameters(bytes(body), LIKE, agreed)
    except InvalidBody as refused:
        assert str(refused)  # noqa: PT017 - either answer is right
    else:
        assert all(np.isfinite(tensor).all() for tensor in decoded.values())


# -- R3.9


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("unbiased", [True, False])
def test_the_measured_error_of_a_message_is_the_stated_one(bits: int, *, unbiased: bool) -> None:
    agreed = Format("rotation", bits, unbiased)
    decoded = decode_parameters(encode_parameters(MODEL, agreed, b"seed"), LIKE, agreed)
    error = message_error(MODEL, decoded, agreed)
    assert set(error.by_tensor) == COMPRESSED
    assert error.factor == pytest.approx(1, abs=0.1)
    assert not error.doubtful


def test_a_message_with_a_larger_error_than_stated_is_doubtful() -> None:
    decoded = decode_parameters(BODY, LIKE, FOUR_BITS)
    error = message_error(MODEL, {**decoded, "first.weight": decoded["first.weight"] * np.float32(1.1)}, FOUR_BITS)
    assert error.doubtful
    assert error.by_tensor["first.weight"] > 1.2 * 0.0096 > error.by_tensor["convolution.weight"]


def test_a_codec_that_states_no_error_cannot_be_doubted() -> None:
    agreed = Format("uniform", 1, unbiased=True)
    error = message_error(MODEL, decode_parameters(encode_parameters(MODEL, agreed, b""), LIKE, agreed), agreed)
    assert error.measured > 1
    assert error.stated is error.factor is None
    assert not error.doubtful


# -- bits from a link or a budget (4.7)


def test_a_link_gets_the_most_bits_that_arrive_in_time() -> None:
    million = 1 << 20
    assert [bits_for_link(speed, million, 1.0) for speed in (1, 140_000, 600_000, 1e9)] == [1, 1, 4, 8]


def test_bits_fall_as_a_budget_is_spent() -> None:
    million = 1 << 20
    left = [20e6, 11e6, 6e6, 3e6, 0]
    assert [bits_for_budget(spare, 10, million) for spare in left] == [8, 8, 4, 2, 1]
    assert bits_for_budget(20e6, 10, million, messages_per_round=4) == 3
    assert bits_for_budget(20e6, 0, million) == 8
