"""The codecs beside rotation: what each promises, and that layer-wise storage does not stall (codecs.md)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vfl.codecs import CODECS, InvalidBody
from vfl.codecs.codec import Floats

BLOCK, HALF, UNIFORM, SPARSE = (CODECS[name] for name in ("block", "half", "uniform", "sparse"))


def drawn(count: int) -> Floats:
    return np.random.default_rng(count).standard_normal(count).astype(np.float32)


def squared(values: Floats) -> float:
    return float(np.square(values, dtype=np.float64).sum())


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("count", [0, 1, 63, 64, 1000, 4099])
@pytest.mark.parametrize("bits", range(1, 9))
def test_a_body_has_exactly_the_length_that_was_said_and_no_other_is_decoded(name: str, count: int, bits: int) -> None:
    codec = CODECS[name]
    for unbiased in (True, False):
        body = codec.encode(drawn(count), bits, b"seed", unbiased=unbiased)
        assert len(body) == codec.body_bytes(count, bits)
        decoded = codec.decode(memoryview(body), count, bits, b"seed")
        assert decoded.shape == (count,)
        assert decoded.dtype == np.float32
    with pytest.raises(InvalidBody, match="bytes, and"):
        codec.decode(body + b"\0", count, bits, b"seed")


@pytest.mark.parametrize("name", [name for name in CODECS if CODECS[name].stated_error(4, True) is not None])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_no_message_is_worse_than_stated(name: str, bits: int) -> None:
    codec, values = CODECS[name], drawn(1 << 16)
    for unbiased in (True, False):
        decoded = codec.decode(codec.encode(values, bits, b"seed", unbiased=unbiased), len(values), bits, b"seed")
        assert squared(decoded - values) / squared(values) <= 1.2 * (codec.stated_error(bits, unbiased) or 0)


@pytest.mark.parametrize("name", ["half", "uniform", "block"])
def test_rounding_at_random_has_the_right_mean(name: str) -> None:
    codec, values, messages = CODECS[name], drawn(2048), 400
    decoded = [
        codec.decode(codec.encode(values, 3, b"%d" % i, unbiased=True), len(values), 3, b"") for i in range(messages)
    ]
    spread = np.mean([squared(each - values) for each in decoded])
    assert squared(np.mean(decoded, axis=0) - values) == pytest.approx(spread / messages, rel=0.15)


def test_the_page_states_the_errors_that_the_codecs_state() -> None:
    page = (Path(__file__).parents[3] / "docs" / "codecs.md").read_text("utf-8")
    for bits in range(1, 9):
        least, unbiased, on_grid = (
            f"{CODECS[name].stated_error(bits, scale):.4g}"
            for name, scale in (("rotation", False), ("rotation", True), ("grid", True))
        )
        assert f"| {bits} | {least} | {unbiased} |\n" in page
        assert f"| {bits} | {on_grid} |\n" in page


def test_half_keeps_eight_significant_bits() -> None:
    values = drawn(5000)
    decoded = HALF.decode(HALF.encode(values, 16, b"", unbiased=False), len(values), 16, b"")
    assert torch.equal(torch.from_numpy(decoded), torch.from_numpy(values).bfloat16().float())


def test_uniform_keeps_the_least_and_the_largest_value() -> None:
    values = drawn(5000)
    decoded = UNIFORM.decode(UNIFORM.encode(values, 4, b"", unbiased=False), len(values), 4, b"")
    assert decoded.min() == values.min()
    assert decoded.max() == pytest.approx(values.max(), rel=1e-6)
    assert len(np.unique(decoded)) == 16


def test_uniform_keeps_a_constant() -> None:
    values = np.full(100, -0.3, np.float32)
    np.testing.assert_array_equal(UNIFORM.decode(UNIFORM.encode(values, 2, b"", unbiased=True), 100, 2, b""), values)


def test_sparse_keeps_the_largest_values_and_their_places() -> None:
    values = drawn(1000)
    decoded = SPARSE.decode(SPARSE.encode(values, 100, b"", unbiased=False), 1000, 100, b"")
    kept = decoded != 0
    assert kept.sum() == 100
    np.testing.assert_array_equal(decoded[kept], values[kept])
    assert np.abs(values[kept]).min() >= np.abs(values[~kept]).max()


@pytest.mark.parametrize("positions", [[7, 1000], [7, 7], [8, 7], [0, 2**32 - 1]])
def test_positions_outside_the_tensor_or_out_of_order_are_refused(positions: list[int]) -> None:
    body = np.array(positions, "<u4").tobytes() + np.ones(2, "<f4").tobytes()
    with pytest.raises(InvalidBody, match="positions"):
        SPARSE.decode(body, 1000, 2, b"")


# -- storage = "layers": re-quantised after every step


def stored(weights: torch.Tensor, bits: int, seed: bytes, *, at_random: bool) -> torch.Tensor:
    values = weights.reshape(-1).numpy()
    body = BLOCK.encode(values, bits, seed, unbiased=at_random)
    return torch.from_numpy(BLOCK.decode(body, len(values), bits, seed)).reshape(weights.shape)


def weights_and_step(bits: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Stored weights whose blocks of 64 begin with their largest value; a mask of the other values; s."""
    span = max(1, 2 ** (bits - 1) - 1)
    weights = torch.from_numpy(drawn(64 * 256)).reshape(256, 64).clamp(-1, 1) / 2
    weights[:, 0] = span / 4
    others = torch.ones_like(weights)
    others[:, 0] = 0
    return stored(weights, bits, b"first", at_random=False), others, 0.25


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_a_gradient_of_a_hundredth_of_a_step_moves_the_weights_by_its_sum(bits: int) -> None:
    start, others, step = weights_and_step(bits)
    weights, updates = start, 50
    for i in range(updates):
        weights = stored(weights + others * step / 100, bits, b"%d" % i, at_random=True)
    moved = (weights - start)[:, 1:]
    # Each update of s/100 goes up a whole step with probability 1/100: the mean of n weights has a spread of
    # s * sqrt(50 * 0.01 * 0.99 / n).
    spread = step * np.sqrt(updates * 0.01 * 0.99 / moved.numel())
    assert float(moved.mean()) == pytest.approx(updates * step / 100, abs=4 * spread)
    assert torch.equal(weights[:, 0], start[:, 0])


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_with_nearest_rounding_the_same_gradient_moves_nothing(bits: int) -> None:
    start, others, step = weights_and_step(bits)
    weights = start
    for i in range(50):
        weights = stored(weights + others * step / 100, bits, b"%d" % i, at_random=False)
    assert torch.equal(weights, start)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("at_random", [True, False])
def test_weights_that_nothing_moves_stay_as_they_are(bits: int, *, at_random: bool) -> None:
    start = stored(torch.from_numpy(drawn(5000)), bits, b"first", at_random=False)
    weights = start
    for i in range(20):
        weights = stored(weights, bits, b"%d" % i, at_random=at_random)
    assert torch.equal(weights, start)


@pytest.mark.parametrize("magnitude", [1e-20, 1e-3, 1e20])
def test_a_block_of_any_magnitude_keeps_its_largest_value(magnitude: float) -> None:
    values = drawn(6400) * np.float32(magnitude)
    values[:64] *= np.float32(1e-3)
    decoded = BLOCK.decode(BLOCK.encode(values, 8, b"", unbiased=False), len(values), 8, b"").reshape(-1, 64)
    largest = np.abs(values.reshape(-1, 64)).max(axis=1)
    np.testing.assert_allclose(np.abs(decoded).max(axis=1), largest, rtol=2e-3)
