"""Parameters of sums over all rows under a key of the label party (one_pass.md); loads no encryption library.

A row is one coefficient of a polynomial modulo X^N + 1 and one prime q. Numbers are integers: the label party's at a
scale that follows from the number of rows, the feature party's at a fixed one. Where columns have a mean square of 1
at most, no sum of products reaches q / 4 (Cauchy and Schwarz), so that none wraps around.
"""

import math
from typing import Final, NamedTuple

from crypto.ciphertexts import word_bytes

DEGREE: Final = 4096
MODULUS: Final = 1152921504606830593
"""The greatest prime below 2^60 that is 1 modulo 2 N. With ternary secrets 106 bits would still give 128 bits of
security at this degree (ePrint 2024/463); several secrets share a polynomial, which costs their number at most."""
SECURITY_BITS: Final = 128
MOST_BLOCK_ROWS: Final = DEGREE - 1
"""One place of every block belongs to no row: both sides put a fixed number there, so that no column is zero."""
FEATURE_BITS: Final = 16
"""Scale of the feature party's numbers (log2)."""
MOST_LABEL_BITS: Final = 32
"""The same of the label party's at most."""
FEWEST_LABEL_BITS: Final = 16
NOISE_DEVIATION: Final = 3.25
"""Of the error in each encrypted word, from a centred binomial distribution of 42 coins."""
FLOODING_BITS: Final = 12
"""By so many bits the noise on an opened sum is wider than what the errors contribute to it, which hangs on rows and
which the label party could tell. So each sum tells less than 2^-24 bits beside itself (Shannon's bound)."""
CHECK_BITS: Final = 8
"""Of the secret factor of each column in the check column."""
SEED_BYTES: Final = 32
_BITS_OF_A_SUM: Final = MODULUS.bit_length() - 2


class MomentsScale(NamedTuple):
    """Of a job on so many rows."""

    rows: int

    @property
    def label_bits(self) -> int:
        """Scale of the label party's numbers (log2)."""
        return min(MOST_LABEL_BITS, _BITS_OF_A_SUM - FEATURE_BITS - (self.rows - 1).bit_length())

    @property
    def unit(self) -> float:
        """A sum of 1 as an integer."""
        return 2.0 ** (self.label_bits + FEATURE_BITS)

    @property
    def error_deviation(self) -> float:
        """Of what the errors of all encrypted words contribute to a sum, as an integer."""
        return float(NOISE_DEVIATION * 2.0**FEATURE_BITS * self.rows**0.5)

    @property
    def flooding(self) -> float:
        """Standard deviation of the feature party's noise on a sum, as an integer."""
        return float(2.0**FLOODING_BITS * self.error_deviation)

    @property
    def bits_of_a_sum(self) -> int:
        """What a sum tells a label party that chooses freely what it encrypts, at most."""
        return int(math.log2(MODULUS / self.flooding / math.sqrt(2 * math.pi * math.e)))

    @property
    def fits(self) -> bool:
        """Whether so many rows leave the label party's numbers enough bits."""
        return self.label_bits >= FEWEST_LABEL_BITS


MOST_ROWS: Final = 1 << (_BITS_OF_A_SUM - FEATURE_BITS - FEWEST_LABEL_BITS)


def block_bytes(rows: int, columns: int) -> int:
    """Wire size of so many encrypted rows of so many columns, with that of the check column and the place beside."""
    return (rows + 1) * (columns + 1) * word_bytes(MODULUS)


def key_bytes(columns: int) -> int:
    return SEED_BYTES + DEGREE * (columns + 1) * word_bytes(MODULUS)


def answer_bytes(columns: int, width: int) -> tuple[int, int]:
    """Wire size of the polynomials and of the words of one set of sums: `width` columns at the feature party."""
    return width * DEGREE * word_bytes(MODULUS), width * (columns + 1) * word_bytes(MODULUS)
