"""Sums over all rows of products of two parties' columns, under a key of the label party (one_pass.md).

The label party encrypts its columns: with one uniform polynomial a for each block of rows, which all columns share,
and a secret s_j for each column,

    b_j = a s_j + e_j + sum over rows i of x_ij X^i.

The feature party takes a column of its own as z_k = sum of z_ik X^-i. The constant coefficient of b_j z_k is then the
sum of products x_ij z_ik, so that of the first halves nothing but these numbers is computed: one matrix product modulo
q. Of the second halves it computes a z_k, once for all j. What it answers for each pair is a number, and for each of
its columns a polynomial. It keeps two rules:

1. To each polynomial it adds a fresh encryption of zero: a further block whose rows are random and its own, and whose
   encrypted columns are zero. Else a z_k, with a known, gives z_k by division.
2. To each number it adds noise, which is far wider than what the errors contribute: these are known to the label party.

The label party adds a column of its own accord: a secret combination of all others. Sums that do not agree with it
wrapped around, or are of different columns for different j.
"""

import os
from typing import Final, NamedTuple, NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

from crypto.ciphertexts import read_words, write_words
from crypto.errors import InvalidCiphertext
from crypto.moments_parameters import (
    CHECK_BITS,
    DEGREE,
    MODULUS,
    SEED_BYTES,
    MomentsScale,
    answer_bytes,
    block_bytes,
    key_bytes,
)
from crypto.noise import gaussian
from crypto.polynomials import Stack, added, from_limbs, limbs, shared_polynomial, to_words

Integers = NDArray[np.int64]
Words = NDArray[np.uint64]
Exact = NDArray[np.object_]

_COINS = np.uint64((1 << 21) - 1)
_TOLERANCE: Final = 16
"""Deviations of noise by which sums and check column may differ."""


class SumsOfProducts(NamedTuple):
    """What the feature party answers for one set of rows, in wire form."""

    polynomials: bytes
    """One for each of its columns."""
    words: bytes
    """For each of its columns one for each encrypted column."""


class ColumnsKey:
    """The label party's end: a secret for each column, and what opens sums. Cannot be printed or pickled."""

    def __init__(self, columns: int, scale: MomentsScale) -> None:
        self._scale, self._seed = scale, os.urandom(SEED_BYTES)
        self._secrets = _ternary((columns + 1, DEGREE))
        self._transformed = Stack.of(to_words(self._secrets))
        self._factors = 1 + np.frombuffer(os.urandom(8 * columns), "<u8").astype(np.int64) % ((1 << CHECK_BITS) - 1)
        self._shift = int(self._factors.sum() - 1).bit_length()
        self.public = self._seed + self._encrypted(0, np.zeros((columns + 1, DEGREE), np.int64))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key stays in the process that made it")

    def encrypt(self, block: int, columns: Integers) -> bytes:
        """Rows x columns, as the block of this number, from 1; a number is used once."""
        check = (columns @ self._factors + (1 << (self._shift - 1))) >> self._shift
        whole = np.zeros((len(self._factors) + 1, len(columns) + 1), np.int64)
        whole[:-1, :-1], whole[-1, :-1] = columns.T, check
        return self._encrypted(block, whole)

    def _encrypted(self, block: int, columns: Integers) -> bytes:
        """Columns x rows."""
        products = self._transformed.times(shared_polynomial(self._seed, block)).words()[:, : columns.shape[1]]
        words = added(products, to_words(columns + _errors(columns.shape)))
        return write_words(words, (MODULUS,) * len(words))

    def open(self, sums: SumsOfProducts, width: int) -> Exact:
        """Feature columns x encrypted columns. Raises InvalidCiphertext, also where sums have wrapped around."""
        numbers = self._decrypted(sums, width)
        products, check = numbers[:, :-1], numbers[:, -1]
        factors = self._factors.astype(object)
        tolerance = self._scale.flooding * (_TOLERANCE << self._shift)
        if (abs(products @ factors - (check << self._shift)) > tolerance).any():
            raise InvalidCiphertext("sums wrapped around, or are not sums over the columns that were encrypted")
        return products

    def _decrypted(self, sums: SumsOfProducts, width: int) -> Exact:
        """With the check column, from -q/2 to q/2."""
        columns = len(self._factors)
        _check_bytes("polynomials and words", sums, answer_bytes(columns, width))
        polynomials = _read(sums.polynomials, width, DEGREE)
        if not polynomials.any(axis=1).all():
            raise InvalidCiphertext("a polynomial is zero")
        digits = limbs(polynomials).reshape(-1, DEGREE)
        turned = np.concatenate([self._secrets[:, :1], -self._secrets[:, :0:-1]], axis=1).astype(np.float64)
        masks = from_limbs((digits @ turned.T).astype(np.int64).reshape(3, width, -1))
        numbers: Exact = (_read(sums.words, width, columns + 1).astype(object) - masks) % MODULUS
        return np.where(numbers > MODULUS // 2, numbers - MODULUS, numbers)


class EncryptedColumns:
    """The feature party's end: the label party's key, and sums over blocks of columns under it."""

    def __init__(self, public: bytes, columns: int, width: int, scale: MomentsScale) -> None:
        """For `columns` of the peer and `width` own ones. Raises InvalidCiphertext."""
        if len(public) != key_bytes(columns):
            raise InvalidCiphertext(f"a key of {key_bytes(columns)} bytes was due, and {len(public)} bytes came")
        self.columns, self.width, self.scale = columns + 1, width, scale
        self._seed = public[:SEED_BYTES]
        self._zero = _read(public[SEED_BYTES:], columns + 1, DEGREE)

    def block(self, number: int, encrypted: bytes, own: Integers) -> "Block":
        """The block of this number, from 1, and own columns of the same rows. Raises InvalidCiphertext."""
        rows = len(own)
        if len(encrypted) != block_bytes(rows, self.columns - 1):
            raise InvalidCiphertext(f"{rows} rows are not {len(encrypted)} bytes")
        columns = np.ones((self.width, rows + 1), np.int64)
        columns[:, :-1] = own.T
        return self._multiplied(number, _read(encrypted, self.columns, rows + 1), columns)

    def zero(self) -> "Block":
        """A fresh encryption of zero for each own column."""
        return self._multiplied(0, self._zero, _ternary((self.width, DEGREE)))

    def _multiplied(self, number: int, words: Words, columns: Integers) -> "Block":
        """Own columns are columns x rows."""
        rows = columns.shape[1]
        turned = np.zeros((self.width, DEGREE), np.int64)
        turned[:, 0] = columns[:, 0]
        np.negative(columns[:, :0:-1], out=turned[:, DEGREE - rows + 1 :])
        products = Stack.of(to_words(turned)).times(shared_polynomial(self._seed, number))
        digits = limbs(words).reshape(-1, rows) @ columns.T.astype(np.float64)
        return Block(products, digits.astype(np.int64))


class Block(NamedTuple):
    """Products of one block, or their sums over several."""

    polynomials: Stack
    digits: Integers
    """Of the numbers: digits and encrypted columns x own columns."""


class RunningSums:
    """Sums of the blocks of one set of rows."""

    def __init__(self, key: EncryptedColumns) -> None:
        self._key = key
        self._polynomials, self._digits = key.zero()  # rule 1

    def add(self, block: Block) -> None:
        self._polynomials.add(block.polynomials)
        self._digits += block.digits

    def answer(self) -> SumsOfProducts:
        columns, width = self._key.columns, self._key.width
        polynomials = added(self._polynomials.words(), to_words(_errors((width, DEGREE))))
        noise = np.rint(gaussian((columns, width), self._key.scale.flooding)).astype(np.int64)
        numbers = (from_limbs(self._digits.reshape(3, columns, width)) + noise) % MODULUS  # rule 2
        words = np.ascontiguousarray(numbers.T.astype(np.uint64))
        return SumsOfProducts(*(write_words(each, (MODULUS,) * width) for each in (polynomials, words)))


def _check_bytes(what: str, sums: SumsOfProducts, due: tuple[int, int]) -> None:
    came = len(sums.polynomials), len(sums.words)
    if came != due:
        raise InvalidCiphertext(f"{what} of {due[0]} and {due[1]} bytes were due, and {came[0]} and {came[1]} came")


def _read(data: bytes, polynomials: int, degree: int) -> Words:
    """Polynomials x coefficients. Raises InvalidCiphertext for a word that is not below the modulus."""
    return read_words(memoryview(data), (MODULUS,) * polynomials, degree)


def _ternary(shape: tuple[int, int]) -> Integers:
    """Uniform over -1, 0 and 1, from the operating system's generator, by rejection."""
    count, drawn = int(np.prod(shape)), np.zeros(0, np.uint8)
    while len(drawn) < count:
        fresh = np.frombuffer(os.urandom(count - len(drawn) + 64), np.uint8)
        drawn = np.concatenate([drawn, fresh[fresh < 255]])
    numbers: Integers = drawn[:count].reshape(shape).astype(np.int64) % 3 - 1
    return numbers


def _errors(shape: tuple[int, ...]) -> Integers:
    """Heads less tails of 42 coins each: deviation 3.24, as SEAL's own errors."""
    coins = Cipher(ChaCha20(os.urandom(32), bytes(16)), mode=None).encryptor().update(bytes(8 * int(np.prod(shape))))
    words = np.frombuffer(coins, "<u8").reshape(shape)
    errors: Integers = np.bitwise_count(words & _COINS).astype(np.int64)
    errors -= np.bitwise_count((words >> np.uint64(21)) & _COINS)
    return errors
