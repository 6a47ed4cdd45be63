"""What a pooled sum is about, known alike at both sides (methods.md 1.2, R0.9, R4.4)."""

import numpy as np
from numpy.typing import NDArray
from torch import nn

from vfl.errors import InvalidData
from vfl.horizontal.part import Examples
from vfl.models.local_training import evaluate
from vfl.rounds_spec import RoundsSpec
from vfl.sums.terms import SumTerms, majority

WORD_BITS = 64
"""Room for any count of rows, and for fractions in units of 2^-20, over any cohort."""
EVALUATION, EVALUATION_WORDS = "evaluation", 4
UNIT = 1 << 16
"""Sums of losses and labels are summed as integers, in units of 2^-16, negative ones as two's complement."""


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
        raise InvalidData("test rows carry labels")
    found = evaluate(module, rows.inputs, labels, regression=spec.job.task == "regression")
    values = labels.double()
    right = float((values**2).sum()) if spec.job.task == "regression" else found.correct
    numbers = (float(rows.rows), right, found.loss * rows.rows, float(values.sum()))
    return np.array([round(number * UNIT) for number in numbers], np.int64).view(np.uint64)


def evaluation_of(spec: RoundsSpec, total: NDArray[np.uint64]) -> dict[str, float]:
    """Score and mean loss over all rows of the clients in the sum."""
    rows, right, loss, labels = (float(number) / UNIT for number in total.view(np.int64))
    if rows < 1:
        return {}
    if spec.job.task != "regression":
        return {"accuracy": right / rows, "loss": loss / rows}
    spread = max(right / rows - (labels / rows) ** 2, 1e-12)
    return {"r2": 1 - loss / rows / spread, "loss": loss / rows}
