"""What a pooled sum is about, known alike at both sides (rounds.md)."""

import math

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vfl.errors import InvalidData
from vfl.horizontal.hooks import Examples
from vfl.models.local_training import evaluate
from vfl.secure_sum.terms import SumTerms, majority
from vfl.spec.rounds import RoundsSpec

WORD_BITS = 64
"""Room for any count of rows, and for fractions in units of 2^-20, over any cohort."""
EVALUATION, NUMBERS, DIGITS, DIGIT_BITS = "evaluation", 4, 4, 40
EVALUATION_WORDS = NUMBERS * DIGITS
"""Each of four numbers in four digits of 40 bits: a word has room for the sum of 2^24 clients' digits."""
TESTED = "tested_rows"
"""The measure of a round that says on how many rows its model was tested; of rows that stay at the clients only."""
MOST_ROWS = 1 << 53
"""Of all clients together."""
UNIT = 1 << 16
"""Sums of losses and labels are whole numbers in units of 2^-16, negative ones as two's complement."""


def pooled(spec: RoundsSpec, round_number: int, purpose: str, words: int, numbers: tuple[float, ...] = ()) -> SumTerms:
    """Terms of a sum over the clients of a round; round 0 is before the first, and over the roster."""
    return SumTerms(
        job=spec.digest(),
        round=round_number,
        purpose=purpose,
        roster=spec.roster.clients,
        words=words,
        word_bits=WORD_BITS,
        threshold=majority(spec.cohort if round_number else len(spec.roster.clients)),
        numbers=numbers,
    )


def evaluation_words(spec: RoundsSpec, module: nn.Sequential, rows: Examples) -> NDArray[np.uint64]:
    """One client's part of an evaluation: rows, right ones, and sums of losses, labels and squared labels."""
    labels = rows.labels
    if labels is None:
        raise InvalidData("the test rows have no labels")
    evaluation = evaluate(module, rows.inputs, labels, regression=spec.job.task == "regression")
    values = labels.double()
    right = float((values**2).sum()) if spec.job.task == "regression" else evaluation.correct
    numbers = (float(rows.rows), right, evaluation.loss * rows.rows, float(values.sum()))
    if not all(math.isfinite(number) for number in numbers):
        return np.zeros(EVALUATION_WORDS, np.uint64)  # a model that gives no number is not measured here
    return np.array([digit for number in numbers for digit in digits_of(round(number * UNIT), DIGITS)], np.uint64)


def evaluation_of(spec: RoundsSpec, total: NDArray[np.uint64]) -> dict[str, float]:
    """Score and mean loss over all rows of the clients in the sum, and how many; nothing where no honest clients
    could sum to it."""
    rows, right, loss, labels = (joined(total[DIGITS * at : DIGITS * (at + 1)]) / UNIT for at in range(NUMBERS))
    if not 1 <= rows < MOST_ROWS or loss < 0 or right < 0:
        return {}
    if spec.job.task != "regression":
        return {"accuracy": right / rows, "loss": loss / rows, TESTED: rows} if right <= rows else {}
    spread = max(right / rows - (labels / rows) ** 2, 1e-12)
    return {"r2": 1 - loss / rows / spread, "loss": loss / rows, TESTED: rows}


MASK = (1 << DIGIT_BITS) - 1


def digits_of(number: int, digits: int) -> list[int]:
    """A whole number as words that can be summed apart, negative ones as two's complement."""
    return [(number >> (DIGIT_BITS * at)) & MASK for at in range(digits)]


def joined(sums: NDArray[np.uint64]) -> int:
    """The whole number whose digits were summed, signed."""
    bits = DIGIT_BITS * len(sums)
    total = sum(int(digit) << (DIGIT_BITS * at) for at, digit in enumerate(sums)) % (1 << bits)
    return total - (1 << bits) if total >> (bits - 1) else total
