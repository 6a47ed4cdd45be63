"""Parameters under which a linear model's weights are encrypted for scoring; loads no encryption library.

The label party owns the key here, and nobody but the owner ever sees what is decrypted with it, so no noise has to
protect the key and no cap bounds it. The feature party's noise protects its columns alone: ciphertext noise, which
depends on them, is at most 2^8, and 2^27 covers it (docs/protocols/ckks_prediction.md).
"""

from typing import Final

from crypto.ciphertexts import seeded_bytes, word_bytes

DEGREE: Final = 4096
"""Of the ring, and rows in one ciphertext: a row's score is one coefficient."""
FIRST, RESCALE, SPECIAL = 562949953216513, 1073692673, 134176769
"""Primes of 49, 30 and 27 bits: 106 together, which give 128 bits of security at this degree with ternary secrets
(ePrint 2024/463). Scores stand under the first, weights under the first two, the public key under first and last."""
WEIGHT_MODULI, PUBLIC_MODULI = (FIRST, RESCALE), (FIRST, SPECIAL)
WEIGHT_SCALE: Final = 46
COLUMN_SCALE: Final = 24
SCORE_UNIT: Final = 2.0 ** (WEIGHT_SCALE + COLUMN_SCALE) / RESCALE
"""What a score of 1 is as an integer, about 2^40."""
NOISE: Final = 2.0**27
"""Standard deviation of what the feature party adds to each score."""
LARGEST_SCORE: Final = FIRST / 4 / SCORE_UNIT
"""Beyond it a score counts as unknown."""
BLOCK_ROWS: Final = 16 * DEGREE
"""Rows whose scores travel in one message."""


def weights_bytes(weights: int) -> int:
    """Wire size of so many encrypted weights and their public key."""
    return seeded_bytes(PUBLIC_MODULI, DEGREE) + weights * seeded_bytes(WEIGHT_MODULI, DEGREE)


def scores_bytes(rows: int, outputs: int) -> int:
    """Wire size of the scores of so many rows."""
    return word_bytes(FIRST) * outputs * (-(-rows // DEGREE) * DEGREE + rows)
