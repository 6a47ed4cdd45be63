"""Stacks of polynomials modulo X^N + 1 and one prime, on SEAL's transform: several that one polynomial multiplies.

SEAL transforms and multiplies ciphertexts, which are lists of 2 to 16 polynomials. A stack is as many of them as its
polynomials need; nothing here is an encryption (`crypto.moments`).
"""

import functools
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray
from tenseal import sealapi

from crypto.ckks_context import Context
from crypto.moments_parameters import DEGREE, MODULUS
from crypto.seal_stream import identifier, load_polynomials, read_ciphertext

Words = NDArray[np.uint64]
Integers = NDArray[np.int64]

_MOST_IN_ONE = 16
_Q = np.uint64(MODULUS)
_LIMB = 20
_LIMBS = 3
_SPARE_WORDS = 64
"""Drawn beside the N of a uniform polynomial; one in 2^46 is at or above the modulus."""


@functools.cache
def _context() -> Context:
    return Context((MODULUS,), DEGREE)


class Stack:
    """Polynomials in transformed form. Words are polynomials x N, below the modulus."""

    def __init__(self, parts: list[Any], count: int) -> None:
        self.parts, self._count = parts, count

    @classmethod
    def of(cls, words: Words) -> "Stack":
        """The transforms of these; none but one of them may be zero."""
        context, count = _context(), len(words)
        if count == 1:
            words = np.repeat(words, 2, axis=0)
        parts = []
        for part in np.array_split(words, -(-len(words) // _MOST_IN_ONE)):
            loaded = load_polynomials(
                sealapi.Ciphertext(), context.seal, identifier(context.levels[0]), part, in_ntt_form=False
            )
            context.evaluator.transform_to_ntt_inplace(loaded)
            parts.append(loaded)
        return cls(parts, count)

    def times(self, polynomial: Any) -> "Stack":
        """Each of them times one, which `shared_polynomial` gives."""
        evaluator, products = _context().evaluator, []
        for part in self.parts:
            product = sealapi.Ciphertext()
            evaluator.multiply_plain(part, polynomial, product)
            products.append(product)
        return Stack(products, self._count)

    def add(self, other: "Stack") -> None:
        """In place, each to its counterpart."""
        for part, own in zip(other.parts, self.parts, strict=True):
            _context().evaluator.add_inplace(own, part)

    def words(self) -> Words:
        """Coefficients."""
        context, plain = _context(), sealapi.Ciphertext()
        rows = []
        for part in self.parts:
            context.evaluator.transform_from_ntt(part, plain)
            rows.append(read_ciphertext(plain)[:, 0])
        words: Words = np.concatenate(rows)[: self._count]
        return words


def shared_polynomial(seed: bytes, number: int) -> Any:
    """The uniform polynomial of this number, transformed, as everybody makes it of the seed (ChaCha20, RFC 8439)."""
    cipher = Cipher(ChaCha20(seed, number.to_bytes(16, "little")), mode=None).encryptor()
    words = np.frombuffer(cipher.update(bytes(8 * (DEGREE + _SPARE_WORDS))), "<u8") >> np.uint64(4)
    return _context().plain_words(words[words < _Q][None, :DEGREE], 1)


def to_words(integers: Integers) -> Words:
    """Signed integers of less than the modulus as words."""
    return (integers + ((integers >> 63) & MODULUS)).view(np.uint64)


def added(left: Words, right: Words) -> Words:
    """Modulo the modulus."""
    total = left + right
    smaller: Words = np.minimum(total, total - _Q)  # what would fall below zero is a very large word
    return smaller


def limbs(words: Words) -> NDArray[np.float64]:
    """3 x the shape: words as digits, so that products with small integers are exact in floating point."""
    digits = np.empty((_LIMBS, *words.shape))
    for place in range(_LIMBS):
        digits[place] = (words >> np.uint64(_LIMB * place)) & np.uint64((1 << _LIMB) - 1)
    return digits


def from_limbs(sums: Integers) -> NDArray[np.object_]:
    """Sums of products of such digits, 3 x any shape, as integers modulo the modulus."""
    return np.asarray(sum(sums[place].astype(object) << (_LIMB * place) for place in range(_LIMBS)) % MODULUS)
