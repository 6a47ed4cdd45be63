"""Laws of the two ends of CKKS: what is opened is the sum plus noise, and nothing else crosses."""

import copy
import itertools
import os
import pickle  # noqa: TID251 - to show that a key refuses it
from dataclasses import replace

import numpy as np
import pytest
from tenseal import sealapi

from crypto import seal_stream
from crypto.ciphertexts import seeded_bytes
from crypto.ckks import CkksPrivateKey, Masked, PublicMaterial, repeats
from crypto.ckks_columns import to_slots
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import PRESETS, RING_DEGREE, SLOTS
from crypto.ckks_sums import EncryptedSums
from crypto.errors import InvalidCiphertext, KeyUsedUp, OutOfRange
from crypto.packing import groups_for
from vfl.models.polynomial import Numbers, Top
from vfl.models.scorer import Shape
from vfl.spec.sections import Optimiser

LINEAR = PRESETS["ckks-linear"]
NOISE_FREE = replace(LINEAR, noise=0.0)
COLUMNS, OWN = 5, 3
VALUES = COLUMNS + OWN


def both_ends(preset=NOISE_FREE, values=VALUES, values_per_key=200):
    private = CkksPrivateKey(preset, values_per_key)
    material = private.public_material(values)
    return private, CkksPublicKey(preset, material, values), material


def batch(rows, seed=0):
    draws = np.random.Generator(np.random.Philox(seed))
    weights, target = draws.normal(size=COLUMNS), draws.integers(0, 2, rows).astype(float)
    return draws.normal(size=(rows, COLUMNS)).clip(-3, 3), draws.normal(size=(rows, OWN)), weights, target


def received(private, public, columns):
    """Columns as the evaluator holds them after they have crossed."""
    times = repeats(len(columns))
    return public.load(private.encrypt_rows(columns, times), columns.shape[1], len(columns), times)


def sums_of(public, errors, factors):
    sums = EncryptedSums(len(errors) * len(factors))
    public.add_products(sums, [(error, factor) for error in errors for factor in factors])
    return sums


def gradient(private, public, rows, seed=0):
    """(opened sums, exact sums) of one linear step."""
    columns, own, weights, target = batch(rows, seed)
    embedding = received(private, public, columns)
    error = public.weighted_sum(embedding, weights / 4, 0.5 - target)
    masked, mask = public.mask_sums(sums_of(public, [error], [*embedding, *own.T]))
    opened = mask.remove(private.open(masked, groups_for(VALUES)))
    exact = columns @ weights / 4 + 0.5 - target
    return opened, np.concatenate([columns.T @ exact, own.T @ exact])


@pytest.mark.parametrize("rows", [1, 7, 199, 4095, 4096])
def test_opened_sums_equal_the_sums_over_distinct_rows(rows):
    private, public, _ = both_ends()
    opened, exact = gradient(private, public, rows)
    np.testing.assert_allclose(opened, exact, atol=1e-4 * max(1.0, np.abs(exact).max()))


def test_a_wider_batch_than_slots_is_refused():
    with pytest.raises(OutOfRange, match="4097 rows"):
        repeats(SLOTS + 1)


def test_a_small_batch_repeats_its_rows_and_leaves_the_rest_empty():
    slots = np.array(to_slots(np.arange(1.0, 1001.0), 4))
    assert (slots[:4000].reshape(4, 1000) == np.arange(1.0, 1001.0)).all()
    assert not slots[4000:].any()


def test_opened_values_carry_the_presets_noise_and_the_ciphertexts_is_a_thousand_times_smaller():
    noisy: list[float] = []
    quiet: list[float] = []
    for seed in range(6):
        for preset, errors in ((LINEAR, noisy), (NOISE_FREE, quiet)):
            private, public, _ = both_ends(preset)
            opened, exact = gradient(private, public, SLOTS, seed)
            errors.extend((opened - exact) / SLOTS * 2.0**LINEAR.sum_scale)
    assert np.std(noisy) == pytest.approx(2.0**LINEAR.noise, rel=0.5)
    assert np.std(quiet) < 2.0**LINEAR.noise / 2**10


def test_weights_that_are_all_zero_are_no_error():
    private, public, _ = both_ends()
    columns, own, _, target = batch(SLOTS)
    embedding = received(private, public, columns)
    error = public.weighted_sum(embedding, np.zeros(COLUMNS), 0.5 - target)
    masked, mask = public.mask_sums(sums_of(public, [error], [*embedding, *(own * 0).T]))
    opened = mask.remove(private.open(masked, groups_for(VALUES)))
    np.testing.assert_allclose(opened[:COLUMNS], columns.T @ (0.5 - target), atol=0.01)
    np.testing.assert_allclose(opened[COLUMNS:], 0, atol=1e-6)


def test_a_key_opens_its_cap_and_not_one_value_more():
    private, public, _ = both_ends(values_per_key=2 * VALUES)
    for _ in range(2):
        gradient(private, public, 100)
    with pytest.raises(KeyUsedUp, match="8 values were asked for, and this key may open 0 more"):
        gradient(private, public, 100)


def test_a_private_key_does_not_print_pickle_or_copy():
    private, _, _ = both_ends()
    assert repr(private) == "CkksPrivateKey(...)"
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="stays in the process"):
            leave(private)


def test_no_word_of_the_secret_is_in_any_byte_that_leaves():
    private, public, material = both_ends()
    columns, own, weights, target = batch(SLOTS)
    sent = private.encrypt_rows(columns, 1)
    embedding = public.load(sent, COLUMNS, SLOTS, 1)
    error = public.weighted_sum(embedding, weights, -target)
    masked, _ = public.mask_sums(sums_of(public, [error], [*embedding, *own.T]))
    left = b"".join([*material, sent, private.open(masked, groups_for(VALUES))])
    for words in private._secret.values():
        for start in range(0, RING_DEGREE, 512):
            assert words[start : start + 2].tobytes() not in left


def test_what_the_evaluator_receives_does_not_decrypt():
    """Every key the evaluator could guess from what it has opens nothing: another secret gives uniform numbers."""
    private, public, _ = both_ends()
    stranger = CkksPrivateKey(NOISE_FREE, 200)
    columns, own, weights, target = batch(SLOTS)
    embedding = received(private, public, columns)
    error = public.weighted_sum(embedding, weights, -target)
    masked, mask = public.mask_sums(sums_of(public, [error], [*embedding, *own.T]))
    answered = stranger.open(masked, groups_for(VALUES))
    values = [(value - number) % mask.modulus for value, number in zip(words_of(answered), mask.numbers, strict=True)]
    assert min(values) > mask.modulus // 1000
    assert max(values) - min(values) > mask.modulus // 10


def words_of(data):
    return np.frombuffer(data, "<u8").tolist()


def test_two_askings_for_the_same_sums_share_no_masked_number():
    private, public, _ = both_ends()
    columns, own, weights, target = batch(SLOTS)
    embedding = received(private, public, columns)
    error = public.weighted_sum(embedding, weights, -target)
    (first, _), (second, _) = (public.mask_sums(sums_of(public, [error], [*embedding, *own.T])) for _ in range(2))
    for left, right in itertools.product(np.frombuffer(first.masked, "<u8"), np.frombuffer(second.masked, "<u8")):
        assert left != right
    assert first.packed != second.packed


def test_the_gate_refuses_what_no_honest_owner_sends():
    private, public, material = both_ends()
    good = private.encrypt_rows(batch(10)[0], 1)
    size = seeded_bytes(LINEAR.data_moduli, RING_DEGREE)
    too_large = b"\xff" * 8 + good[8:]
    zero = bytes(RING_DEGREE * 8) + good[RING_DEGREE * 8 :]
    for bad, rule in (
        (good[:-1], "5 ciphertexts of"),
        (good + good, "5 ciphertexts of"),
        (too_large, "not below its prime"),
        (zero, "polynomial is zero"),
        (good[:size] * COLUMNS, "seed is used twice"),
        (b"", "5 ciphertexts of"),
    ):
        with pytest.raises(InvalidCiphertext, match=rule):
            CkksPublicKey(LINEAR, private.public_material(VALUES), VALUES).load(bad, COLUMNS, 10, 1)
    public.load(good, COLUMNS, 10, 1)
    with pytest.raises(InvalidCiphertext, match="seed is used twice"):
        public.load(good, COLUMNS, 10, 1)
    for bad_material in (
        PublicMaterial(bytes(len(material.public)), material.relinearise, material.packing),
        PublicMaterial(material.public, material.relinearise[:-1], material.packing),
        PublicMaterial(material.public, material.public, material.packing),
        PublicMaterial(material.public, material.relinearise, b""),
    ):
        with pytest.raises(InvalidCiphertext):
            CkksPublicKey(LINEAR, bad_material, VALUES)


def test_the_key_owner_refuses_requests_it_did_not_agree_to():
    private, public, _ = both_ends()
    columns, own, weights, target = batch(SLOTS)
    embedding = received(private, public, columns)
    error = public.weighted_sum(embedding, weights, -target)
    masked, _ = public.mask_sums(sums_of(public, [error], [*embedding, *own.T]))
    for bad in (
        Masked(masked.packed[:-8], masked.masked),
        Masked(masked.packed, masked.masked[:-8]),
        Masked(b"\xff" * len(masked.packed), masked.masked),
        Masked(masked.packed, b"\xff" * len(masked.masked)),
    ):
        with pytest.raises(InvalidCiphertext):
            private.open(bad, groups_for(VALUES))


NETWORK = replace(PRESETS["ckks-mlp"], noise=0.0, output_noise=0.0)


def network_gradients(preset, rows, weight_scale, seed=0):
    """(opened sums, exact sums, how many belong to the output layer) of one step of a small network."""
    columns, own, _, target = batch(rows, seed)
    shape = Shape(COLUMNS, OWN, 4, 1)
    top = Top(shape, "linear", Optimiser(), bytes([seed]) * 32, 1e9)
    for matrix in top._weights._matrices.values():
        np.multiply(matrix, weight_scale, out=matrix)
    values = top.joined_weights.size + 5
    private, public, _ = both_ends(preset, values, values)
    passes = top.passes(public, received(private, public, columns), own, target[:, None])
    sums = EncryptedSums(values)
    public.add_products(sums, passes.products)
    masked, mask = public.mask_sums(sums)
    opened = mask.remove(private.open(masked, groups_for(values), 5))
    return opened, Numbers().sums(top.passes(Numbers(), list(columns.T), own, target[:, None]).products), 5


def test_a_networks_opened_values_carry_the_noise_of_their_layer():
    """Sums above hidden neurons have a noise of their own, and half the scale of the others; the bias has the whole."""
    preset = PRESETS["ckks-mlp"]
    runs = [network_gradients(preset, SLOTS, 1.0, seed) for seed in range(10)]
    noisy, exact_sums = (np.array([run[part] for run in runs]) for part in (0, 1))
    errors = (noisy - exact_sums) / SLOTS * 2.0**preset.sum_scale
    assert np.std(errors[:, :-5]) == pytest.approx(2.0**preset.noise, rel=0.35)
    assert np.std(errors[:, -5:-1]) == pytest.approx(2 * 2.0**preset.output_noise, rel=0.5)


def test_the_file_that_secret_keys_pass_through_is_empty_whenever_it_is_not_in_use() -> None:
    key = CkksPrivateKey(PRESETS["ckks-linear"], 64)
    assert key.public_material(1).public
    assert os.fstat(seal_stream._MEMORY._descriptor).st_size == 0
    with pytest.raises(RuntimeError):
        seal_stream.load(sealapi.SecretKey(), key._contexts.data.seal, b"not a stream")
    assert os.fstat(seal_stream._MEMORY._descriptor).st_size == 0
