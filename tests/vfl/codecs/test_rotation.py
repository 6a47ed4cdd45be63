"""The error of the rotation codec is known before the input is (codecs.md)."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from vfl.codecs import CODECS, Codec, InvalidBody
from vfl.codecs.centroids import DISTORTION, POSITIVE_CENTROIDS, centroids
from vfl.codecs.codec import Floats
from vfl.codecs.hadamard import rotate, rotate_back, transform
from vfl.codecs.packing import pack, packed_bytes, unpack
from vfl.errors import Diverged
from vfl.schedule import philox

ROTATION = CODECS["rotation"]
WIDTHS = range(1, 9)
INPUTS: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal": lambda draw, count: draw.standard_normal(count).astype(np.float32),
    "log-normal": lambda draw, count: draw.lognormal(size=count).astype(np.float32),
    "student-t": lambda draw, count: draw.standard_t(5, count).astype(np.float32),
}


def drawn(name: str, count: int) -> Floats:
    return INPUTS[name](np.random.default_rng(count), count)


def there_and_back(codec: Codec, values: Floats, bits: int, seed: bytes, *, unbiased: bool = True) -> Floats:
    body = codec.encode(values, bits, seed, unbiased=unbiased)
    assert len(body) == codec.body_bytes(len(values), bits)
    return codec.decode(body, len(values), bits, seed)


def relative_error(decoded: Floats, values: Floats) -> float:
    return float(np.square(decoded - values, dtype=np.float64).sum() / np.square(values, dtype=np.float64).sum())


def seeds(number: int) -> list[bytes]:
    return [f"message {i}".encode() for i in range(number)]


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_tables_are_the_fixed_point_of_lloyd_and_max(bits: int) -> None:
    upper = np.array(POSITIVE_CENTROIDS[bits])
    ends = np.array([0, *(upper[1:] + upper[:-1]) / 2, np.inf])
    density = np.exp(-(ends**2) / 2) / math.sqrt(2 * math.pi)
    share = np.diff([math.erf(end / math.sqrt(2)) / 2 for end in ends])
    np.testing.assert_allclose(-np.diff(density) / share, upper, atol=2e-6)
    assert 1 - 2 * (share * upper**2).sum() == pytest.approx(DISTORTION[bits], rel=1e-2 / 2**bits, abs=2e-8)
    assert len(centroids(bits)) == 2**bits


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("length", [1 << 14, 1 << 17])
@pytest.mark.parametrize("bits", WIDTHS)
def test_the_error_is_the_stated_one_whatever_the_input_looks_like(name: str, length: int, bits: int) -> None:
    values = drawn(name, length)
    for unbiased in (True, False):
        errors = [
            relative_error(there_and_back(ROTATION, values, bits, seed, unbiased=unbiased), values)
            for seed in seeds((1 << 18) // length)
        ]
        tolerance = 0.02 if bits <= 4 else 0.03  # in 2^18 values rare large ones weigh more, the finer the steps are
        assert np.mean(errors) == pytest.approx(ROTATION.stated_error(bits, unbiased), rel=tolerance)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_mean_of_a_thousand_messages_is_the_input(bits: int) -> None:
    values = drawn("normal", 1 << 14)
    mean = np.mean([there_and_back(ROTATION, values, bits, seed) for seed in seeds(1000)], axis=0, dtype=np.float64)
    stated = ROTATION.stated_error(bits, True)
    assert stated is not None
    assert relative_error(np.asarray(mean, np.float32), values) == pytest.approx(stated / 1000, rel=0.1)


def test_the_unbiased_scale_keeps_the_part_along_the_input() -> None:
    values = drawn("log-normal", 1 << 14)
    decoded = there_and_back(ROTATION, values, 1, b"seed")
    assert np.vdot(decoded, values) == pytest.approx(np.vdot(values, values), rel=1e-4)


def ten_clients_at_one_bit(codec: Codec, messages: list[bytes]) -> float:
    values = drawn("normal", 1 << 14)
    decoded = [there_and_back(codec, values, 1, seed) for seed in messages]
    mean: Floats = np.array(decoded).mean(axis=0)
    return relative_error(mean, values)


def test_errors_of_ten_clients_at_one_bit_average_out() -> None:
    assert ten_clients_at_one_bit(ROTATION, seeds(10)) <= 1.05 * 0.0571


def test_without_rotation_or_with_one_seed_for_all_they_do_not() -> None:
    assert ten_clients_at_one_bit(CODECS["uniform"], seeds(10)) > 10 * 0.0571
    assert ten_clients_at_one_bit(ROTATION, 10 * [b"one seed"]) > 5 * 0.0571


@pytest.mark.parametrize("bits", WIDTHS)
def test_packing_and_unpacking_change_nothing_at_any_length(bits: int) -> None:
    draw = np.random.default_rng(bits)
    for count in range(301):
        codes = draw.integers(0, 2**bits, count).astype(np.uint8)
        body = pack(codes, bits)
        assert len(body) == packed_bytes(count, bits) == math.ceil(bits * count / 8)
        np.testing.assert_array_equal(unpack(np.frombuffer(body, np.uint8), count, bits), codes)


def test_code_i_takes_bits_b_times_i_and_up() -> None:
    assert pack(np.array([1, 2, 3, 4, 5, 6, 7, 0, 5], np.uint8), 3) == (0o507654321).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("count", "blocks", "left_over"),
    [(127, [], 127), (1024, [1024], 0), (200_000, [65536, 65536, 65536, 2048, 1024, 256], 64)],
)
@pytest.mark.parametrize("bits", WIDTHS)
def test_a_body_is_as_long_as_its_blocks_need(count: int, blocks: list[int], left_over: int, bits: int) -> None:
    expected = sum(math.ceil(bits * length / 8) + 4 for length in blocks) + 4 * left_over
    assert ROTATION.body_bytes(count, bits) == expected
    values = drawn("normal", count)
    decoded = there_and_back(ROTATION, values, bits, b"seed")
    np.testing.assert_array_equal(decoded[count - left_over :], values[count - left_over :])


@pytest.mark.parametrize("exponent", range(13))
def test_the_chain_of_small_products_is_the_walsh_hadamard_transform(exponent: int) -> None:
    count = 1 << exponent
    values = drawn("normal", count)
    matrix: NDArray[np.float64] = np.ones((1, 1))
    for _ in range(min(exponent, 10)):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    if exponent <= 10:
        np.testing.assert_allclose(transform(values), matrix @ values, atol=1e-3)
    np.testing.assert_allclose(transform(transform(values)), count * values, rtol=1e-4, atol=1e-3 * count)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100, 1000, 5000])
def test_a_rotation_keeps_norms_and_can_be_taken_back(count: int) -> None:
    values = drawn("log-normal", count)
    rotated = rotate(values, philox(b"seed", "test"))
    assert np.linalg.norm(rotated) == pytest.approx(np.linalg.norm(values), rel=1e-5)
    np.testing.assert_allclose(rotate_back(rotated, philox(b"seed", "test")), values, rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_body_and_another_seed_another() -> None:
    values = drawn("normal", 3000)
    bodies = [ROTATION.encode(values, 3, seed, unbiased=True) for seed in (b"a", b"a", b"b")]
    assert bodies[0] == bodies[1] != bodies[2]


@pytest.mark.parametrize("factor", [0.0, 1e-40, 1e-20, 1e20])
def test_no_magnitude_breaks_it(factor: float) -> None:
    values = drawn("normal", 4096) * np.float32(factor)
    decoded = there_and_back(ROTATION, values, 4, b"seed")
    assert np.isfinite(decoded).all()
    assert factor < 1e-30 or relative_error(decoded / np.float32(factor), values / np.float32(factor)) < 0.011


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -1e31])
def test_what_is_not_finite_is_not_sent(codec: str, poison: float) -> None:
    values = drawn("normal", 2048)
    values[77] = poison
    with pytest.raises(Diverged):
        CODECS[codec].encode(values, 4, b"seed", unbiased=True)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 3e38])
def test_a_scale_that_is_not_finite_is_refused(poison: float) -> None:
    body = bytearray(ROTATION.encode(drawn("normal", 2048), 4, b"seed", unbiased=True))
    body[:4] = np.array(poison, "<f4").tobytes()
    with pytest.raises(InvalidBody, match="not finite"):
        ROTATION.decode(bytes(body), 2048, 4, b"seed")
