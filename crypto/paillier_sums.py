"""Gradients of a linear model from encrypted rows and encrypted second moments, exact (paillier_training.md).

The error of a row is linear in its inputs z, error = w.z + c, with w and c known to the label party. Summed over a
batch, error x z is therefore S w + sum_i c_i z_i with S = sum_i z_i z_i', which the key owner computes and encrypts:
nobody multiplies two ciphertexts, and nobody reads the error of a row under any mask.

For columns x of the label party, sum_i error_i x_i = w . (sum_i x_i z_i) + sum_i c_i x_i. The sums in brackets stand in
limbs, and the product with w in reversed limbs has the wanted number in its middle one. The others are further linear
forms of the key owner's columns: it hides them before it gives the number back (`agreed_bits`).
"""

import itertools
import secrets
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import gmpy2
import numpy as np
from numpy.typing import NDArray

from crypto.paillier import PaillierPublicKey
from crypto.paillier_parameters import HIDING_BITS, SPARE_BITS, PaillierParameters, packed, unpacked
from crypto.paillier_powers import numbers, product_of_powers, written
from crypto.pieces import HERE, Pool

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Packed = list[list[int]]
"""Ciphertexts by row and chunk of coordinates."""


class LinearErrors(NamedTuple):
    """error[i, k] = weights[k] . z[i] + constants[i, k] of a block of rows, as integers."""

    weights: Integers
    """outputs x coordinates, in units of 2^-f."""
    constants: Integers
    """rows x outputs, in units of 2^-f."""


def integers(values: Floats, parameters: PaillierParameters) -> Integers:
    """In units of 2^-f."""
    nearest: Integers = np.rint(values * parameters.one).astype(np.int64)
    return nearest


def packed_rows(rows: Integers, parameters: PaillierParameters) -> list[int]:
    """Plaintexts of rows x coordinates, row by row."""
    chunks, bits = parameters.chunks(rows.shape[1]), parameters.limb_bits
    return [packed(row[chunk.start : chunk.stop], bits) for row in rows.tolist() for chunk in chunks]


def packed_moments(rows: Integers, parameters: PaillierParameters) -> list[int]:
    """Plaintexts of the second moments of these rows: coordinates x coordinates, one row each."""
    return packed_rows(rows.T @ rows, parameters)


def unflattened(ciphertexts: list[int], width: int, parameters: PaillierParameters) -> Packed:
    """As they come, by row and chunk."""
    chunks = len(parameters.chunks(width))
    return [ciphertexts[start : start + chunks] for start in range(0, len(ciphertexts), chunks)]


class _Step(NamedTuple):
    """What the products of a step share."""

    n: int
    parameters: PaillierParameters
    moments: Packed
    rows: Packed
    errors: LinearErrors
    own: Integers

    def encoded(self) -> bytes:
        p, (outputs, width) = self.parameters, self.errors.weights.shape
        sizes = (p.key_bits, p.fraction_bits, p.batch_rows, p.weight_limit)
        head = _HEAD.pack(*sizes, outputs, width, len(self.rows), self.own.shape[1])
        integers_of = b"".join(part.astype("<i8").tobytes() for part in (*self.errors, self.own))
        ciphertexts = (each for row in (*self.moments, *self.rows) for each in row)
        return head + integers_of + written([self.n], p.number_bytes) + written(ciphertexts, 2 * p.number_bytes)

    @classmethod
    def decoded(cls, data: bytes) -> "_Step":
        key_bits, fraction_bits, batch_rows, limit, outputs, width, rows, own = _HEAD.unpack_from(data)
        p, at, parts = PaillierParameters(key_bits, fraction_bits, limit, batch_rows), _HEAD.size, []
        for shape in ((outputs, width), (rows, outputs), (rows, own)):
            parts.append(np.frombuffer(data, "<i8", shape[0] * shape[1], at).reshape(shape))
            at += parts[-1].nbytes
        n = int.from_bytes(data[at : at + p.number_bytes], "big")
        table = unflattened(numbers(data[at + p.number_bytes :], 2 * p.number_bytes), width, p)
        return cls(n, p, table[:width], table[width:], LinearErrors(*parts[:2]), parts[2])


_HEAD = struct.Struct("<IIIdIIII")
_PIECE = struct.Struct("<?II")
"""Whether it is a product with a column of the label party; which output or column; which chunk."""


def encrypted_sums(
    key: PaillierPublicKey,
    moments: Packed,
    rows: Packed,
    errors: LinearErrors,
    own: Integers,
    p: PaillierParameters,
    pool: Pool = HERE,
) -> list[int]:
    """For each output the chunks of sum_i error_i z_i, then one ciphertext for each column of `own` (rows x columns),
    which has sum_i x_i w.z_i in its middle limb."""
    (outputs, _), columns, n_chunks = errors.weights.shape, own.shape[1], len(moments[0])
    pieces = [(True, column, chunk) for column in range(columns) for chunk in range(n_chunks)]
    pieces += [(False, output, chunk) for output in range(outputs) for chunk in range(n_chunks)]
    shared = _Step(int(key.n), p, moments, rows, errors, own).encoded()
    products = (
        numbers(product, 2 * p.number_bytes)
        for product in pool.map(product_of_step, shared, (_PIECE.pack(*piece) for piece in pieces))
    )
    of_column = [list(itertools.islice(products, n_chunks)) for _ in range(columns)]
    of_output = [product for (product,) in products]
    middles = [[gmpy2.mpz(1)] * columns for _ in range(outputs)]
    for column, chunks in enumerate(of_column):
        for output, product in itertools.product(range(outputs), chunks):
            middles[output][column] = middles[output][column] * product[output] % key.square
    return of_output + [int(product) for of_one in middles for product in of_one]


def product_of_step(shared: bytes, piece: bytes) -> bytes:
    """Work: of an output its sum of error x z, of a column its part of the middle limb of each output; in a chunk."""
    step = _step(shared)
    p, n, (is_column, index, chunk) = step.parameters, gmpy2.mpz(step.n), _PIECE.unpack(piece)
    square, of_rows = n * n, [row[chunk] for row in step.rows]
    if not is_column:
        weights, constants = step.errors.weights[index].tolist(), step.errors.constants[:, index].tolist()
        of_constants = gmpy2.powmod(product_of_powers(of_rows, constants, square), p.one, square)
        product = product_of_powers([row[chunk] for row in step.moments], weights, square) * of_constants % square
        return written([product], 2 * p.number_bytes)
    base = product_of_powers(of_rows, step.own[:, index].tolist(), square)
    limbs = p.chunks(step.errors.weights.shape[1])[chunk]
    powers = (
        product_of_powers([base], [_reversed_limbs(weights[limbs.start : limbs.stop], p)], square)
        for weights in step.errors.weights.tolist()
    )
    return written(powers, 2 * p.number_bytes)


def _reversed_limbs(weights: list[int], p: PaillierParameters) -> int:
    return packed([*reversed(weights)], p.limb_bits) << (p.limbs - len(weights)) * p.limb_bits


@lru_cache(maxsize=1)
def _step(shared: bytes) -> _Step:
    return _Step.decoded(shared)


def agreed_bits(opened: Sequence[int], width: int, outputs: int, p: PaillierParameters) -> list[int]:
    """What the key owner gives back of the numbers it opened for one step, to be reduced modulo n: random numbers cover
    all that is no agreed value."""
    chunks = [chunk for _ in range(outputs) for chunk in p.chunks(width)]
    whole = [
        number + packed(_above(len(chunk), p), p.limb_bits) + _rest(len(chunk) * p.limb_bits, p)
        for number, chunk in zip(opened, chunks, strict=False)
    ]
    return whole + [without_other_limbs(number, p) for number in opened[len(chunks) :]]


def without_other_limbs(number: int, p: PaillierParameters) -> int:
    """Adds random numbers to all limbs of an opened number but the middle one, and above the value in that one.

    What stands below is less than 2^-HIDING_BITS of the range that the lower number is drawn from, and never borrows
    from the middle limb or carries into it. The upper number is more than HIDING_BITS longer than what stands there.
    """
    below, lower = (p.limbs - 1) * p.limb_bits, 0
    if below:
        margin = 1 << (below - HIDING_BITS - 1)
        lower = margin + secrets.randbelow((1 << below) - 2 * margin)
    return number + lower + (packed(_above(1, p), p.limb_bits) << below) + _rest(p.limbs * p.limb_bits, p)


def _above(count: int, p: PaillierParameters) -> list[int]:
    """A random number for each limb, above the bits that a value may have: what a label party that deviates would put
    there is covered."""
    return [secrets.randbits(HIDING_BITS) << p.value_bits for _ in range(count)]


def _rest(used_bits: int, p: PaillierParameters) -> int:
    """A random number above so many bits, as long as half of a modulus still exceeds it."""
    return secrets.randbits(p.key_bits - SPARE_BITS - used_bits) << used_bits


def middle_value(number: int, p: PaillierParameters) -> int:
    (value,) = unpacked(number >> (p.limbs - 1) * p.limb_bits, 1, p.value_bits)
    return value


def gradients(opened: Sequence[int], errors: LinearErrors, own: Integers, p: PaillierParameters) -> Floats:
    """sum_i error_i x inputs_i from what `encrypted_sums` became when it was opened and unmasked: for each output the
    coordinates, then the columns of `own`."""
    outputs, width = errors.weights.shape
    chunks = p.chunks(width)
    whole, middles = opened[: outputs * len(chunks)], opened[outputs * len(chunks) :]
    of_constants = (errors.constants.astype(object).T @ own.astype(object)) * p.one
    sums: list[int] = []
    for k in range(outputs):
        for chunk, number in zip(chunks, whole[k * len(chunks) :], strict=False):
            sums += [unpacked(limb, 1, p.value_bits)[0] for limb in unpacked(number, len(chunk), p.limb_bits)]
        of_output = middles[k * own.shape[1] : (k + 1) * own.shape[1]]
        sums += [
            middle_value(number, p) + constant for number, constant in zip(of_output, of_constants[k], strict=True)
        ]
    return np.array([value / p.one**3 for value in sums])


def packed_columns(rows: Integers, p: PaillierParameters) -> list[int]:
    """Plaintexts of rows to be scored: a group of rows in the limbs, for each coordinate."""
    bits = p.score_limb_bits
    return [
        packed(column, bits)
        for group in p.score_groups(len(rows))
        for column in rows[group.start : group.stop].T.tolist()
    ]


def encrypted_scores(key: PaillierPublicKey, columns: list[int], weights: Integers) -> list[int]:
    """w.z of each group of rows, output by output; `weights` are outputs x coordinates."""
    width, square = weights.shape[1], key.square
    groups = [columns[start : start + width] for start in range(0, len(columns), width)]
    return [product_of_powers(group, output, square) for output in weights.tolist() for group in groups]


def blurred(opened: Sequence[int], rows: int, outputs: int, p: PaillierParameters) -> list[int]:
    """Opened scores plus a random number in the low bits of each, as the exact score of a row could tell the row; and
    one above all of them."""
    noise, half = secrets.SystemRandom(), 1 << p.blur_bits
    groups = [group for _ in range(outputs) for group in p.score_groups(rows)]
    return [
        number
        + packed([noise.randrange(-half, half) for _ in group], p.score_limb_bits)
        + _rest(len(group) * p.score_limb_bits, p)
        for number, group in zip(opened, groups, strict=True)
    ]


def scores(opened: Sequence[int], rows: int, outputs: int, p: PaillierParameters) -> Floats:
    """rows x outputs."""
    groups = [group for _ in range(outputs) for group in p.score_groups(rows)]
    values = [
        value
        for number, group in zip(opened, groups, strict=True)
        for value in unpacked(number, len(group), p.score_limb_bits)
    ]
    return (np.array(values, dtype=np.float64) / p.one**2).reshape(outputs, rows).T
