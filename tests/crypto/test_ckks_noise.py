"""What the key owner adds against what the ciphertexts carry, where it is least: weights at the limit, worst inputs.

The contract lets all weight stand on one column. The worst a standardised column can be, clipped at three standard
deviations, is three in every ninth row and zero in the others: its mean square is one, and no higher moment is larger.
"""

from dataclasses import replace

import numpy as np
import pytest

from crypto.ciphertexts import read_integers
from crypto.ckks import CkksPrivateKey
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import PRESETS, SLOTS
from crypto.ckks_sums import EncryptedSums
from crypto.packing import groups_for
from crypto.ring import centred
from vfl.models.polynomial import OUTPUT_SHARE, Top
from vfl.models.scorer import Shape
from vfl.spec.sections import Optimiser

NEURONS = 1
RUNS = 49
"""So many runs, each under a key of its own, give the factor to a sixth of a bit, or a third where every row is
clipped: their deviation from their mean has as many degrees of freedom as 48 differences of two."""
LOSS_RUNS = 13

RARE = np.where(np.arange(SLOTS) % 9 == 0, 3.0, 0.0)
CLIPPED = np.full(SLOTS, 3.0)
"""No standardised column, only a batch that happens to hold such rows."""

AT_THE_LIMIT = [
    ("ckks-linear", 12, "linear", 10.5, 9.25),
    ("ckks-linear-cubic", 4, "cubic", 9.5, 7.5),
    ("ckks-linear-squared", 6, "squared", 10.5, 9.25),
    ("ckks-mlp", 6, "linear", 8, 6.5),
    ("ckks-mlp", 12, "linear", 8, 6.5),
]
"""Preset, limit of weights, loss error, and how many times the ciphertext noise the key owner's is, in bits: worst
columns, every row clipped."""


def at_its_limit(preset, loss):
    """A top model with all weight on one column."""
    hidden = NEURONS if preset.name == "ckks-mlp" else 0
    top = Top(Shape(1, 1, hidden, 1), loss, Optimiser(), bytes(32), preset.weight_limit)
    for name, matrix in top._weights._matrices.items():
        share = OUTPUT_SHARE if hidden and name == "weights" else 1.0
        matrix[:] = 0.0
        matrix[:, 0] = share * preset.weight_limit
    return top


def opened(preset, loss, column):
    """(integers of one step's sums at the limit of weights, modulus, how many belong to an output layer)."""
    top = at_its_limit(preset, loss)
    output = top.shape.hidden + 1 if top.shape.hidden else 0
    values = top.joined_weights.size + output
    private = CkksPrivateKey(replace(preset, noise=0.0, output_noise=0.0), values)
    public = CkksPublicKey(preset, private.public_material(values), values)
    embedding = public.load(private.encrypt_rows(column[:, None], 1), 1, SLOTS, 1)
    sums = EncryptedSums(values)
    targets = (np.arange(SLOTS) % 2).astype(float)[:, None]
    public.add_products(sums, top.passes(public, embedding, column[:, None], targets).products)
    masked, mask = public.mask_sums(sums)
    words = read_integers(private.open(masked, groups_for(values)), values, mask.modulus)
    return [word - number for word, number in zip(words, mask.numbers, strict=True)], mask.modulus, output


def carried(integers, modulus):
    """The noise of ciphertexts in what was opened of the same rows under several keys: a row for each key."""
    first = integers[0]
    return np.std(
        [[centred((x - y) % modulus, modulus) for x, y in zip(run, first, strict=True)] for run in integers],
        axis=0,
        ddof=1,
    )


def factors(preset, loss, column, runs=RUNS):
    """How many times the ciphertext noise the key owner's is, in bits, for each layer's sums.

    Encryptions of the same rows under several keys differ by their ciphertext noise alone.
    """
    results = [opened(preset, loss, column) for _ in range(runs)]
    _, modulus, output = results[0]
    noise = carried([integers for integers, *_ in results], modulus)
    layers = [(preset.noise, noise[: len(noise) - output])]
    if output:
        layers.append((preset.output_noise, noise[-output:]))
    return [added - np.log2(np.sqrt(np.mean(of_layer**2))) for added, of_layer in layers]


@pytest.mark.parametrize(("name", "limit", "loss", "worst_columns", "every_row_clipped"), AT_THE_LIMIT)
def test_the_key_owners_noise_covers_the_ciphertexts_at_the_limit_of_weights(
    name, limit, loss, worst_columns, every_row_clipped
):
    preset = PRESETS[name].for_weights(limit)
    assert preset.weight_limit == limit
    assert min(factors(preset, loss, RARE)) > worst_columns
    assert min(factors(preset, loss, CLIPPED)) > every_row_clipped


def opened_loss(preset, loss, column):
    """(integer of the sum of squared errors at the limit of weights, modulus)."""
    top = at_its_limit(preset, loss)
    private = CkksPrivateKey(replace(preset, noise=0.0, output_noise=0.0), 1)
    public = CkksPublicKey(preset, private.public_material(1), 1)
    embedding = public.load(private.encrypt_rows(column[:, None], 1), 1, SLOTS, 1)
    sums, targets = EncryptedSums(1), (np.arange(SLOTS) % 2).astype(float)[:, None]
    public.add_products(sums, top.squared_errors(public, embedding, column[:, None], targets, np.ones(SLOTS)))
    masked, mask = public.mask_sums(sums)
    (word,) = read_integers(private.open(masked, groups_for(1)), 1, mask.modulus)
    return word - mask.numbers[0], mask.modulus


@pytest.mark.parametrize(("name", "limit", "loss"), [case[:3] for case in AT_THE_LIMIT])
@pytest.mark.parametrize(("column", "bits"), [(RARE, 7), (CLIPPED, 5)], ids=["worst columns", "every row clipped"])
def test_the_same_noise_covers_the_sum_of_squared_errors(name, limit, loss, column, bits):
    preset = PRESETS[name].for_weights(limit)
    results = [opened_loss(preset, loss, column) for _ in range(LOSS_RUNS)]
    (noise,) = carried([[word] for word, _ in results], results[0][1])
    assert preset.noise - np.log2(noise) > bits


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_both_ends_of_what_a_preset_allows_are_measured(preset):
    measured = {limit for name, limit, *_ in AT_THE_LIMIT if name == preset.name}
    assert measured == {preset.weight_limit, preset.largest_weight_limit}


def test_noise_sized_from_first_weights_would_be_drowned_once_weights_have_grown():
    """What was in force before: primes of 24 bits, weights that may add up to 32."""
    special = PRESETS["ckks-linear"].special_modulus
    first_weights = replace(
        PRESETS["ckks-mlp"],
        data_moduli=(PRESETS["ckks-mlp"].data_moduli[0], 16760833, 16580609, 16515073, 16465921),
        special_modulus=special,
        embedding_scale=24,
        level_scales=(0, 26, 0, 25),
        sum_scale=52,
        noise=41.5,
        output_noise=44,
        weight_limit=32.0,
    )
    assert max(factors(first_weights, "linear", RARE, runs=5)) < 0
