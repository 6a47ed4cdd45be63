"""SEAL contexts of a preset. They are built from our own table and never escape `crypto`.

Several contexts share one secret: a fresh ciphertext carries all data primes, while keys that serve only the last level
live under (first prime, special prime). SEAL identifies a level by a hash of its parameters, so a ciphertext at the
last level belongs to all of them.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from crypto.ckks_parameters import RING_DEGREE, SLOTS, CkksPreset
from crypto.seal_stream import identifier, load, plain_payload, stream

Words = NDArray[np.uint64]


class Context:
    """One modulus chain with what works on it. `levels[k]` identifies the level with k + 1 primes."""

    def __init__(self, moduli: Sequence[int]) -> None:
        parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(RING_DEGREE)
        parameters.set_coeff_modulus([sealapi.Modulus(modulus) for modulus in moduli])
        self.moduli = tuple(moduli)
        self.seal = sealapi.SEALContext(parameters, True, sealapi.SEC_LEVEL_TYPE.TC128)
        if not self.seal.parameters_set():
            raise ValueError(self.seal.parameters_error_message())
        self.encoder = sealapi.CKKSEncoder(self.seal)
        self.evaluator = sealapi.Evaluator(self.seal)
        self.levels: list[list[int]] = []
        level = self.seal.first_context_data()
        while level is not None:
            self.levels.insert(0, level.parms_id())
            level = level.next_context_data()
        self.key_identifier = identifier(self.seal.key_parms_id())

    def plain_words(self, words: Words, primes: int) -> Any:
        """A plaintext at the level of so many primes from its NTT words, with scale 1."""
        data = stream(plain_payload(identifier(self.levels[primes - 1]), 1.0, words))
        return load(sealapi.Plaintext(), self.seal, data)

    def encode(self, value: float | list[float] | list[complex], primes: int, scale: float) -> Any:
        plain = sealapi.Plaintext()
        self.encoder.encode(value, self.levels[primes - 1], scale, plain)
        return plain


class Contexts:
    """The contexts one preset needs; made once per process."""

    def __init__(self, preset: CkksPreset) -> None:
        self.data = Context((*preset.data_moduli, preset.special_modulus))
        self.release = Context(preset.release_moduli)
        self.relinearise = self._alike(preset.key_moduli) or Context(preset.key_moduli)
        self.public = self._alike(preset.public_moduli) or Context(preset.public_moduli)
        # One more prime makes the public key's moduli a data level: only there does SEAL write a seeded zero.
        self.zero = Context((*preset.public_moduli, preset.data_moduli[preset.error_primes]))
        self.monomials = {level: self._monomial(RING_DEGREE >> level) for level in range(1, 11)}
        self._inverses: dict[int, Any] = {}

    def _alike(self, moduli: tuple[int, ...]) -> Context | None:
        """The release context, where another one would be the same."""
        return self.release if moduli == self.release.moduli else None

    def inverse_width(self, width: int) -> Any:
        """The constant 1/width modulo the first prime, as a plaintext at the last level: packing puts width on."""
        if width not in self._inverses:
            constant = pow(width, -1, self.release.moduli[0])
            self._inverses[width] = self.release.plain_words(np.full(RING_DEGREE, constant, np.uint64), 1)
        return self._inverses[width]

    def _monomial(self, power: int) -> Any:
        angles = np.pi * ((power * SLOT_EXPONENTS) % (2 * RING_DEGREE)) / RING_DEGREE
        return self.release.encode(np.exp(1j * angles).tolist(), 1, 1.0)


SLOT_EXPONENTS: NDArray[np.int64] = np.array([pow(3, j, 2 * RING_DEGREE) for j in range(SLOTS)])
"""Slot j holds the polynomial's value at zeta^(3^j), zeta = exp(i pi / N)."""


@functools.cache
def contexts_of(preset: CkksPreset) -> Contexts:
    return Contexts(preset)


def slots_of_coefficients(coefficients: NDArray[np.float64]) -> list[complex]:
    """Slot values of the real polynomial with these coefficients (at most N, rest zero)."""
    padded = np.zeros(RING_DEGREE)
    padded[: len(coefficients)] = coefficients
    twisted = padded * np.exp(1j * np.pi * np.arange(RING_DEGREE) / RING_DEGREE)
    values: list[complex] = (np.fft.ifft(twisted) * RING_DEGREE)[(SLOT_EXPONENTS - 1) // 2].tolist()
    return values
