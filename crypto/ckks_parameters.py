"""CKKS parameter presets: our own table, chosen by (top model, loss error) and checked before any key is made.

A peer names a preset, it never sends parameters (threat_model.md). Importing this loads no encryption library, so a
server process may plan with it.

The layout differs from the prototypes of ckks_training.md in one way, recorded in
docs/adr/0003-products-at-the-last-level.md: the first prime has 60 bits, so the product of error and embedding fits
under it without a rescale, and every key used at the last level lives under (first prime, special prime) alone. Shorter
moduli are exposed, uploads shrink and the released sums carry less noise.
"""

import math
from dataclasses import dataclass, replace

RING_DEGREE = 8192
SLOTS = RING_DEGREE // 2

SECURITY_BITS = 128
MODULUS_BITS_LIMIT = {8192: 214, 16384: 430, 32768: 868}
"""Largest modulus at 128 bits by ring degree, ternary secrets (Bossuat et al., "Security Guidelines for Implementing
Homomorphic Encryption", ePrint 2024/463)."""

MODULUS_BITS_PER_KEY_WORD = MODULUS_BITS_LIMIT[RING_DEGREE] / RING_DEGREE
"""How much modulus one unknown key word carries at that limit: 0.0261 bits (ckks_training.md)."""

BITS_PER_TERNARY_WORD = math.log2(3)

NOISE_BITS_PER_DOUBLED_WEIGHTS = 5
"""How much the ciphertext noise in the sums of a network grows when its weight limit doubles
(docs/protocols/ckks_training.md)."""

_Q0, _SPECIAL = 1152921504606748673, 1152921504606830593
_RESCALE = (16760833, 16580609, 16515073)
_NETWORK_SPECIAL = 562949952847873
"""49 bits: what key switching adds is far below the rest, and the bits it saves go where scales need them."""
_NETWORK_RESCALE = (4294475777, 1032193, 4293918721, 786433)


@dataclass(frozen=True)
class CkksPreset:
    """One parameter set. Scales, noise and limits are in bits (log2); all moduli are primes = 1 mod 2 RING_DEGREE."""

    name: str
    data_moduli: tuple[int, ...]
    """First prime, which carries the released values, then one prime per rescale."""
    embedding_scale: int
    level_scales: tuple[int, ...]
    """Scale of a weighted sum that lands on 1, 2, ... primes; 0 where none does."""
    sum_scale: int
    """Scale of a released value: error times embedding, unscaled."""
    error_primes: int
    """Primes the loss error stands on."""
    noise: float
    """Standard deviation the key owner adds to every opened value, sized for weights at their limit and the worst that
    standardised columns can be (docs/protocols/ckks_training.md)."""
    weight_limit: float
    """Largest sum of absolute weights of one output or hidden neuron, for which range and noise are sized."""
    largest_weight_limit: float
    """How far a specification may raise it; the noise then grows."""
    values_per_key: int
    """Opened values under one key that leave it secret from a label party that deviates (heuristic)."""
    output_noise: float = 0.0
    """The same for sums of an output layer above hidden neurons, whose ciphertexts carry more noise of their own."""
    special_modulus: int = _SPECIAL

    def for_weights(self, limit: float) -> "CkksPreset":
        """The same keys, with the noise that weights up to this limit need."""
        if limit <= self.weight_limit:
            return self
        more = NOISE_BITS_PER_DOUBLED_WEIGHTS * math.log2(limit / self.weight_limit)
        return replace(self, weight_limit=limit, noise=self.noise + more, output_noise=self.output_noise + more)

    @property
    def rescales(self) -> int:
        return len(self.data_moduli) - 1

    @property
    def key_moduli(self) -> tuple[int, ...]:
        """Moduli of relinearisation keys: the level below a fresh ciphertext, and the special prime."""
        return (*self.data_moduli[: max(1, self.rescales)], self.special_modulus)

    @property
    def release_moduli(self) -> tuple[int, int]:
        """Moduli of the packing keys, which serve the last level only."""
        return (self.data_moduli[0], self.special_modulus)

    @property
    def public_moduli(self) -> tuple[int, ...]:
        """Moduli of the public key, which encrypts zeros at the last level and labels where the loss error stands."""
        return (*self.data_moduli[: self.error_primes], self.special_modulus)

    @property
    def modulus_bits(self) -> int:
        """Bits of all primes together, which the security of the ring degree limits."""
        return sum(modulus.bit_length() for modulus in (*self.data_moduli, self.special_modulus))

    @property
    def exposed_bits(self) -> int:
        """Bits of the largest modulus under which anything is published."""
        return max(
            sum(m.bit_length() for m in moduli) for moduli in (self.data_moduli, self.key_moduli, self.public_moduli)
        )

    @property
    def value_range(self) -> float:
        """Largest absolute mean a released sum may have."""
        return self.data_moduli[0] / 4 / 2.0**self.sum_scale

    @property
    def relative_noise(self) -> float:
        """Noise of an opened value in units of a mean over full slots."""
        return math.pow(2.0, self.noise - self.sum_scale)

    @property
    def key_owner_margin(self) -> int:
        """Opened values a deviating label party needs for the key (ckks_training.md, heuristic)."""
        spare_words = RING_DEGREE - self.exposed_bits / MODULUS_BITS_PER_KEY_WORD
        words_per_value = (math.log2(self.data_moduli[0]) - self.noise) / BITS_PER_TERNARY_WORD
        return int(spare_words / words_per_value)


PRESETS: dict[str, CkksPreset] = {
    preset.name: preset
    for preset in (
        CkksPreset(
            name="ckks-linear",
            data_moduli=(_Q0, _RESCALE[0]),
            embedding_scale=25,
            level_scales=(28,),
            sum_scale=53,
            error_primes=1,
            noise=43,
            weight_limit=12.0,
            largest_weight_limit=12.0,
            values_per_key=200,
        ),
        CkksPreset(
            name="ckks-linear-cubic",
            data_moduli=(_Q0, *_RESCALE),
            embedding_scale=27,
            level_scales=(0, 0, 25),
            sum_scale=54,
            error_primes=1,
            noise=45.5,
            weight_limit=4.0,
            largest_weight_limit=4.0,
            values_per_key=100,
        ),
        CkksPreset(
            name="ckks-linear-squared",
            data_moduli=(_Q0, _RESCALE[0]),
            embedding_scale=26,
            level_scales=(26,),
            sum_scale=52,
            error_primes=1,
            noise=42,
            weight_limit=6.0,
            largest_weight_limit=6.0,
            values_per_key=200,
        ),
        # One hidden layer fits without a refresh: docs/adr/0006-no-refresh-for-one-hidden-layer.md.
        CkksPreset(
            name="ckks-mlp",
            data_moduli=(_Q0, *_NETWORK_RESCALE),
            special_modulus=_NETWORK_SPECIAL,
            embedding_scale=30,
            level_scales=(0, 29, 0, 29),
            sum_scale=56,
            error_primes=2,
            noise=45.5,
            output_noise=48.5,
            weight_limit=6.0,
            largest_weight_limit=12.0,
            values_per_key=4096,
        ),
    )
}

ROOMY_VALUES_PER_KEY = 4096
"""Cap under the `standard` policy where nothing is claimed against a label party that deviates."""

CUT_SCALE = 48
"""Scale of cut errors on their way to the key owner, which decrypts them whole."""


def rescales_needed(hidden_layers: int, loss: str) -> int:
    """Levels a top model consumes: the weighted sum, a cubic's two products, and four per hidden layer.

    A hidden layer costs its square and the next weighted sum on the way up, and on the way down the product of the
    errors above with its slope; its own weighted sum is the one every model has.
    """
    return 1 + 3 * hidden_layers + (2 if loss == "cubic" else 0)


def preset_for(top: str, loss: str) -> CkksPreset:
    """The preset of a top model ("linear", "mlp") and a loss error ("linear", "cubic", "squared")."""
    if top == "mlp":
        return PRESETS["ckks-mlp"]
    return PRESETS[f"ckks-{top}" if loss == "linear" else f"ckks-{top}-{loss}"]


def weaknesses(preset: CkksPreset, hidden_layers: int, loss: str, input_bound: float) -> list[str]:
    """Why this preset cannot run a top model with so many hidden layers and this loss error; empty when it can.

    `input_bound` is the largest absolute input value. Checked before any key is made: levels, range and security. Sums
    of a model with hidden layers have no useful bound; the label party watches those it opens instead.
    """
    reasons = []
    needed = rescales_needed(hidden_layers, loss)
    if preset.rescales < needed:
        layers = "model linear" if not hidden_layers else f"model with {hidden_layers} hidden layer(s)"
        reasons.append(
            f"top {layers} with {loss} error needs {needed} rescales, and preset {preset.name} has {preset.rescales}: "
            "the model is too deep for the preset"
        )
    if preset.modulus_bits > MODULUS_BITS_LIMIT[RING_DEGREE]:
        reasons.append(
            f"preset {preset.name} has a modulus of {preset.modulus_bits} bits, above the "
            f"{MODULUS_BITS_LIMIT[RING_DEGREE]} that give {SECURITY_BITS} bits of security at ring degree {RING_DEGREE}"
        )
    score = preset.weight_limit * input_bound
    worst_error = {"linear": score / 4 + 1.5, "squared": score + input_bound, "cubic": 0.15012 * score + 1.5}[loss]
    if not hidden_layers and worst_error * input_bound > preset.value_range:
        reasons.append(
            f"preset {preset.name} holds means up to {preset.value_range:.0f}, and weights at their limit reach "
            f"{worst_error * input_bound:.0f}"
        )
    return reasons
