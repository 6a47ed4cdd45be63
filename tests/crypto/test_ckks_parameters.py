"""The preset table is checked before any key is made."""

from dataclasses import replace

import pytest

from crypto.ckks_parameters import PRESETS, RING_DEGREE, preset_for, weaknesses

LOSSES = {"ckks-linear": "linear", "ckks-linear-cubic": "cubic", "ckks-linear-squared": "squared", "ckks-mlp": "linear"}
HIDDEN_LAYERS = {"ckks-mlp": 1}


def is_prime(n):
    """Miller-Rabin with bases that decide every integer below 2^64."""
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        x = pow(base, odd, n)
        if x not in (1, n - 1) and all((x := x * x % n) != n - 1 for _ in range(twos - 1)):
            return False
    return True


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_preset_fits_its_loss_error_in_levels_range_and_security(preset):
    assert weaknesses(preset, HIDDEN_LAYERS.get(preset.name, 0), LOSSES[preset.name], 3.0) == []
    assert preset.modulus_bits <= 214
    moduli = (*preset.data_moduli, preset.special_modulus)
    assert len(set(moduli)) == len(moduli)
    assert all(is_prime(m) and m % (2 * RING_DEGREE) == 1 for m in moduli)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_linear_models_key_rotates_before_a_deviating_label_party_could_have_it(preset):
    assert (preset.values_per_key < preset.key_owner_margin) is (preset.name not in HIDDEN_LAYERS)


@pytest.mark.parametrize("loss", ["linear", "cubic", "squared"])
def test_the_preset_follows_from_top_model_and_loss_error(loss):
    assert LOSSES[preset_for("linear", loss).name] == loss


def test_a_model_too_deep_for_the_preset_is_named():
    (found,) = weaknesses(PRESETS["ckks-linear"], 0, "cubic", 3.0)
    assert "needs 3 rescales, and preset ckks-linear has 1: the model is too deep" in found


@pytest.mark.parametrize(("hidden_layers", "loss"), [(2, "linear"), (1, "cubic")])
def test_a_network_deeper_than_one_square_layer_is_named(hidden_layers, loss):
    (found,) = weaknesses(PRESETS["ckks-mlp"], hidden_layers, loss, 3.0)
    assert f"{hidden_layers} hidden layer(s)" in found
    assert "too deep" in found


def test_a_network_fits_its_preset_whatever_its_task():
    assert preset_for("mlp", "squared") == preset_for("mlp", "linear") == PRESETS["ckks-mlp"]


def test_a_modulus_beyond_128_bits_of_security_is_named():
    wide = replace(PRESETS["ckks-linear-cubic"], data_moduli=(PRESETS["ckks-linear"].data_moduli[0],) * 5)
    assert any("above the 214 that give 128 bits" in found for found in weaknesses(wide, 0, "cubic", 3.0))


def test_weights_or_inputs_beyond_the_range_are_named():
    assert any("holds means up to 32" in found for found in weaknesses(PRESETS["ckks-linear"], 0, "linear", 30.0))
