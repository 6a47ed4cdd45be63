"""Parameters under which a model's weights are encrypted for scoring; loads no encryption library.

The label party owns the key here, and nobody but the owner ever sees what is decrypted with it, so no noise has to
protect the key and no cap bounds it. The feature party's noise protects its columns alone: it covers the ciphertext
noise, which depends on them (docs/protocols/ckks_prediction.md).
"""

import functools
from typing import Final, NamedTuple

from crypto.ciphertexts import seeded_bytes, word_bytes

DEGREE: Final = 4096
"""Of the ring, and rows of a linear model in one ciphertext: a row's score is one coefficient."""
FIRST, RESCALE, SPECIAL = 9007199254429697, 1073692673, 8380417
"""Primes of 53, 30 and 23 bits: 106 together, which give 128 bits of security at this degree with ternary secrets
(ePrint 2024/463). Scores stand under the first, weights under the first two, the public key under first and last."""
WEIGHT_MODULI, PUBLIC_MODULI = (FIRST, RESCALE), (FIRST, SPECIAL)
COLUMN_SCALE: Final = 24


class ScoreScale(NamedTuple):
    """What a score is as an integer. No range is wider than scores need: what a number has room for beyond its noise,
    weights of the label party's choice can read."""

    weight_bits: int
    """Scale of an encrypted weight (log2)."""
    score_noise: float = 2.0**-13
    """Standard deviation of what the feature party adds to each score."""

    @property
    def unit(self) -> float:
        """A score of 1."""
        return 2.0 ** (self.weight_bits + COLUMN_SCALE) / RESCALE

    @property
    def noise(self) -> float:
        """The same deviation as an integer."""
        return self.score_noise * self.unit

    @property
    def largest_score(self) -> float:
        """Beyond it a score counts as unknown."""
        return FIRST / 4 / self.unit


LINEAR: Final = ScoreScale(50)
"""Scores up to 128: weights at their limit and columns at their clip make 36."""
QUADRATIC: Final = ScoreScale(46)
"""Up to 2,048: with hidden neurons these make 1,041, and twice as much apart from the constant."""
BLOCK_ROWS: Final = 16 * DEGREE
"""Rows of a linear model whose scores travel in one message."""
QUADRATIC_BLOCK_ROWS: Final = DEGREE
"""The same of a model with hidden neurons; its layout is chosen for as many."""


class RowLayout(NamedTuple):
    """How rows of an embedding share a ciphertext whose products are added up row by row: `entries` numbers of each
    row, two to a slot, and as many rows as then fit. Both sides choose alike, from the embedding's width."""

    width: int
    entries: int
    """A power of two, and 2 at least."""

    @property
    def rows(self) -> int:
        return DEGREE // self.entries

    @property
    def slopes(self) -> int:
        """Ciphertexts of one number for each coordinate, for so many rows."""
        return -(-self.width // self.entries)

    @property
    def squares(self) -> int:
        """Ciphertexts of one number for each product of two coordinates."""
        return -(-self.width * (self.width + 1) // 2 // self.entries)

    def groups(self, rows: int) -> int:
        """Into how many ciphertexts so many rows go."""
        return -(-rows // self.rows)

    def pieces(self, rows: int) -> list[range]:
        """Rows that are opened together: full ciphertexts, and powers of two of the rest, so that no number but a score
        travels."""
        pieces, start = [], 0
        while start < rows:
            size = min(self.rows, 1 << ((rows - start).bit_length() - 1))
            pieces.append(range(start, start + size))
            start += size
        return pieces

    def bytes(self, rows: int) -> int:
        """Of weights and scores of so many rows of one output."""
        ciphertexts = self.squares + self.groups(rows) * self.slopes
        return ciphertexts * seeded_bytes(WEIGHT_MODULI, DEGREE) + quadratic_scores_bytes(self, rows, 1)


@functools.cache
def layout_for(width: int) -> RowLayout:
    """The one of least bytes for a full block of rows."""
    layouts = [RowLayout(width, 1 << bits) for bits in range(1, DEGREE.bit_length() - 1)]
    return min(layouts, key=lambda layout: layout.bytes(QUADRATIC_BLOCK_ROWS))


def weights_bytes(weights: int) -> int:
    """Wire size of so many encrypted weights and their public key."""
    return seeded_bytes(PUBLIC_MODULI, DEGREE) + weights * seeded_bytes(WEIGHT_MODULI, DEGREE)


def slopes_bytes(layout: RowLayout, rows: int, outputs: int) -> int:
    """Wire size of what each coordinate of so many rows is multiplied with."""
    return outputs * layout.groups(rows) * layout.slopes * seeded_bytes(WEIGHT_MODULI, DEGREE)


def scores_bytes(rows: int, outputs: int) -> int:
    """Wire size of the scores of so many rows by a linear model."""
    return word_bytes(FIRST) * outputs * (-(-rows // DEGREE) * DEGREE + rows)


def quadratic_scores_bytes(layout: RowLayout, rows: int, outputs: int) -> int:
    """The same by a model with hidden neurons."""
    return word_bytes(FIRST) * outputs * (len(layout.pieces(rows)) * DEGREE + rows)
