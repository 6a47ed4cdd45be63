"""How many bits the numbers of a Paillier training take, and how many of them one plaintext holds; loads no library.

All numbers are integers: a value v stands as round(v 2^f), f the specification's `fraction_bits`. Several of them stand
in one plaintext, each in a limb of its own: sum_i v_i 2^(i b). Negative ones borrow from the limb above, which reading
from the lowest limb on undoes. A limb has room for the largest value and for what is added to it.
"""

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

KEY_BITS: Final = 3072
"""Of a modulus: 128 bits of security (NIST SP 800-57)."""
SMALLEST_KEY_BITS: Final = 2048
"""112 bits of security."""
LARGEST_KEY_BITS: Final = 8192
FRACTION_BITS: Final = 12
FEWEST_FRACTION_BITS, MOST_FRACTION_BITS = 8, 16
HIDING_BITS: Final = 64
"""What the key owner adds to hide limbs that nobody may read is so many bits longer than what stands in them."""
SPARE_BITS: Final = 4
"""By so many bits a plaintext is shorter than the modulus, so that its sign can be told."""
SCORE_FRACTION_BITS: Final = 12
"""A score is known to about so many bits behind the point: the key owner blurs the rest (paillier_training.md)."""
INPUT_BOUND: Final = 3.0
CONSTANT_BOUND: Final = 4.0
"""Of label and constant together in the error of a row."""
PACKAGES: Final = ("gmpy2", "phe")
PROOF_ROOTS: Final = 11
"""In the proof that a modulus is well formed (crypto.paillier_proof)."""
FINGERPRINT_BYTES: Final = 32


def missing_packages() -> tuple[str, ...]:
    """Those of the extra `paillier` that are not installed here."""
    return tuple(name for name in PACKAGES if importlib.util.find_spec(name) is None)


@dataclass(frozen=True)
class PaillierParameters:
    """Follow from the specification alone, so that nothing about them is read from a peer."""

    key_bits: int
    fraction_bits: int
    weight_limit: float
    batch_rows: int
    """No batch has twice as many rows."""

    @property
    def security_bits(self) -> int:
        """Of the modulus, as NIST SP 800-57 rates it."""
        return 128 if self.key_bits >= KEY_BITS else 112

    @property
    def one(self) -> int:
        """What 1 is as an integer."""
        return 1 << self.fraction_bits

    @cached_property
    def value_bits(self) -> int:
        """Of an opened sum with its sign: error x input, summed over a batch, has three times the fraction bits."""
        largest_error = INPUT_BOUND * self.weight_limit + CONSTANT_BOUND
        largest = 2 * self.batch_rows * INPUT_BOUND * largest_error
        return 3 * self.fraction_bits + math.ceil(math.log2(largest)) + 2

    @property
    def limb_bits(self) -> int:
        return self.value_bits + HIDING_BITS + 2

    @cached_property
    def limbs(self) -> int:
        """Coordinates of a row in one plaintext: a product of two packed numbers has 2 limbs - 1. 0 where none fits."""
        return ((self.key_bits - SPARE_BITS) // self.limb_bits + 1) // 2

    @cached_property
    def score_limb_bits(self) -> int:
        return 2 * self.fraction_bits + math.ceil(math.log2(INPUT_BOUND * self.weight_limit + 1)) + 3

    @property
    def score_limbs(self) -> int:
        """Rows whose scores stand in one plaintext."""
        return (self.key_bits - SPARE_BITS) // self.score_limb_bits

    @property
    def blur_bits(self) -> int:
        """Low bits of a score that the key owner adds a random number to."""
        return 2 * self.fraction_bits - SCORE_FRACTION_BITS

    def chunks(self, width: int) -> list[range]:
        """Which coordinates stand in one plaintext together."""
        return [range(start, min(start + self.limbs, width)) for start in range(0, width, self.limbs)]

    def score_groups(self, rows: int) -> list[range]:
        """Which rows' scores stand in one plaintext together."""
        room = self.score_limbs
        return [range(start, min(start + room, rows)) for start in range(0, rows, room)]

    @property
    def number_bytes(self) -> int:
        """Of a number modulo n."""
        return self.key_bits // 8

    def numbers_bytes(self, count: int) -> int:
        """Wire size of so many numbers modulo n."""
        return FINGERPRINT_BYTES + count * self.number_bytes

    def ciphertexts_bytes(self, count: int) -> int:
        """Wire size of so many ciphertexts, which are numbers modulo n squared."""
        return FINGERPRINT_BYTES + count * 2 * self.number_bytes

    def opened_numbers(self, width: int, own: int, outputs: int) -> int:
        """Ciphertexts that one step opens: those of packed gradients, and one for each column of the label party and
        the bias."""
        return outputs * (len(self.chunks(width)) + own + 1)


def packed(values: Sequence[int], limb_bits: int) -> int:
    """Integers side by side in one, the first in the lowest limb."""
    number = 0
    for value in reversed(values):
        number = (number << limb_bits) + value
    return number


def unpacked(number: int, count: int, limb_bits: int) -> list[int]:
    """The integers again, each at least -2^(b-1) and less than 2^(b-1)."""
    values, half, mask = [], 1 << (limb_bits - 1), (1 << limb_bits) - 1
    for _ in range(count):
        value = ((number + half) & mask) - half
        values.append(value)
        number = (number - value) >> limb_bits
    return values
