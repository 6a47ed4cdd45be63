"""SEAL contexts of a preset. They are built from our own table and never escape `crypto`.

Several contexts share one secret: a fresh ciphertext carries all data primes, while keys that serve only the last level
live under (first prime, special prime). SEAL identifies a level by a hash of its parameters, so a ciphertext at the
last level belongs to all of them.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from crypto.ciphertexts import Seeded, write_seeded
from crypto.ckks_parameters import RING_DEGREE, CkksPreset
from crypto.seal_stream import (
    identifier,
    load,
    payload,
    plain_payload,
    read_plain_words,
    read_seeded,
    seeded_payload,
    stream,
)

Words = NDArray[np.uint64]


class Context:
    """One modulus chain with what works on it. `levels[k]` identifies the level with k + 1 primes."""

    def __init__(self, moduli: Sequence[int], degree: int = RING_DEGREE) -> None:
        parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(degree)
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
        self.data = data_context((*preset.data_moduli, preset.special_modulus))
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
        angles = np.pi * ((power * slot_exponents(RING_DEGREE)) % (2 * RING_DEGREE)) / RING_DEGREE
        return self.release.encode(np.exp(1j * angles).tolist(), 1, 1.0)


def fresh_secret(context: Context) -> dict[int, Words]:
    """A new ternary secret in NTT form, by the context's moduli."""
    secret = sealapi.KeyGenerator(context.seal).secret_key()
    rows = read_plain_words(secret).reshape(len(context.moduli), -1)
    return dict(zip(context.moduli, rows, strict=True))


def secret_under(secret: Mapping[int, Words], context: Context) -> Any:
    """The same secret as a key of a context whose moduli are among its own."""
    words = np.concatenate([secret[modulus] for modulus in context.moduli])
    return load(sealapi.SecretKey(), context.seal, stream(plain_payload(context.key_identifier, 1.0, words)))


def seeded_public_key(secret: Mapping[int, Words], zero: Context, moduli: Sequence[int]) -> bytes:
    """The public key in wire form: a seeded encryption of zero, under moduli that are a data level of `zero`."""
    encrypted = sealapi.Encryptor(zero.seal, secret_under(secret, zero)).encrypt_zero_symmetric()
    words, seed, _ = read_seeded(payload(encrypted))
    return write_seeded([Seeded(words, seed)], moduli)


def load_public_key(context: Context, key: Seeded) -> Any:
    """What encrypts under a public key that passed the gate."""
    body = stream(seeded_payload(context.key_identifier, 1.0, *key))
    return sealapi.Encryptor(context.seal, load(sealapi.PublicKey(), context.seal, body))


@functools.cache
def slot_exponents(degree: int) -> NDArray[np.int64]:
    """Slot j holds the polynomial's value at zeta^(3^j), zeta = exp(i pi / N)."""
    return np.array([pow(3, j, 2 * degree) for j in range(degree // 2)])


@functools.cache
def _twist(degree: int) -> NDArray[np.complex128]:
    twist: NDArray[np.complex128] = np.exp(1j * np.pi * np.arange(degree) / degree)
    return twist


@functools.cache
def data_context(moduli: tuple[int, ...]) -> Context:
    """The one under which rows are encrypted."""
    return Context(moduli)


@functools.cache
def contexts_of(preset: CkksPreset) -> Contexts:
    return Contexts(preset)


def slots_of_coefficients(coefficients: NDArray[np.float64], degree: int) -> list[complex]:
    """Slot values of the real polynomial with these coefficients (at most N, rest zero)."""
    padded = np.zeros(degree)
    padded[: len(coefficients)] = coefficients
    values: list[complex] = (np.fft.ifft(padded * _twist(degree)) * degree)[(slot_exponents(degree) - 1) // 2].tolist()
    return values
