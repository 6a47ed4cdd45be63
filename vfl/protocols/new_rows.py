"""A prediction's rows as a party's half takes them, and the label party's result."""

import numpy as np
from numpy.typing import NDArray

from vfl.models.halves import LabelHalf
from vfl.models.preparation import Words
from vfl.models.tensors import save_tensors
from vfl.notices import Notice
from vfl.reports import Outcome
from vfl.setup import Setup
from vfl.spec.prediction import PredictionSpec

Floats = NDArray[np.float64]


def rows_of(setup: Setup[PredictionSpec], rows: NDArray[np.int64]) -> tuple[Floats, Words]:
    return setup.table.numbers(rows), setup.table.words


def outcome_of(setup: Setup[PredictionSpec], half: LabelHalf, scores: Floats, operations: dict[str, int]) -> Outcome:
    """`scores` are rows x outputs, in scaled units, NaN where they are not known."""
    decimals, notices = setup.spec.scores.decimals, []
    rounded = np.round(half.in_units(scores), decimals) + 0.0  # no minus before a zero
    if unknown := int(np.isnan(rounded).any(axis=1).sum()):
        text = (
            f"{unknown:,} of {len(rounded):,} rows have no score: it left the range of the agreed parameters. An "
            "honest feature party does not send such rows"
        )
        notices.append(Notice("warning", "rows_without_score", text))
    return Outcome(save_tensors({"scores": rounded}), operations=operations, notices=notices)
