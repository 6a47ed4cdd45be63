"""A prediction's rows as a party's half takes them, and the label party's result."""

import numpy as np
from numpy.typing import NDArray

from vfl.models.halves import LabelHalf
from vfl.models.preparation import PART_ROWS, Words
from vfl.models.tensors import save_tensors
from vfl.notices import Notice
from vfl.reports import Outcome
from vfl.schedule import blocks
from vfl.setup import Setup
from vfl.spec.prediction import PredictionSpec

Floats = NDArray[np.float64]

OPENED = "opened_rows"
"""The measure of a session: how many of its rows were scored."""


def rows_of(setup: Setup[PredictionSpec], rows: NDArray[np.int64]) -> tuple[Floats, Words]:
    return setup.table.numbers(rows), setup.table.words


def rounded(setup: Setup[PredictionSpec], half: LabelHalf, scores: Floats) -> Floats:
    """`scores` are rows x outputs, in scaled units, NaN where they are not known."""
    in_units: Floats = np.round(half.in_units(scores), setup.spec.scores.decimals) + 0.0  # no minus before a zero
    return in_units


def outcome_of(
    setup: Setup[PredictionSpec],
    half: LabelHalf,
    scores: Floats,
    operations: dict[str, int],
    opened: NDArray[np.int64] | None = None,
) -> Outcome:
    """`opened` are the rows that were asked for, of a session."""
    in_units, notices = rounded(setup, half, scores), []
    asked = in_units if opened is None else in_units[opened]
    if unknown := int(np.isnan(asked).any(axis=1).sum()):
        text = (
            f"{unknown:,} of {len(asked):,} rows have no score: it left the range of the agreed parameters. An "
            "honest feature party does not send such rows"
        )
        notices.append(Notice("warning", "rows_without_score", text))
    metrics = {} if opened is None else {OPENED: float(len(opened))}
    return Outcome(save_tensors({"scores": in_units}), metrics, operations, notices=notices)


def own_columns_outcome(setup: Setup[PredictionSpec]) -> Outcome:
    """The label party's rows scored by its own columns alone: no peer is asked, and nothing is sent.

    Raises ModelUnfit.
    """
    half = LabelHalf.read(setup.spec.trained, setup.model)
    scores = [half.own_columns_scores(*rows_of(setup, rows)) for rows in blocks(np.arange(setup.rows), PART_ROWS)]
    return outcome_of(setup, half, np.concatenate(scores), {})
