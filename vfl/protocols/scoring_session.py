"""A scoring session: the label party's operator asks for rows, and each is scored jointly once, when first wanted.

    1  L -> F  RowsToScore, which rows of those that both have compared
    2          what a prediction does with a block of rows (`ckks_prediction`, `split_prediction`)
    3  L -> F  SessionOver, after the last request

The label party keeps what the feature parties add to the score of a row, and takes it again for the next request. A
feature party refuses a row that was asked for before, so that a session opens no more than a prediction of all its
rows.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vfl.errors import LocalProtocolError, RemoteProtocolError
from vfl.flow import Flow, next_request, receive_any, report, send
from vfl.message import Message
from vfl.messages import RowsToScore, SessionOver
from vfl.models.halves import LabelHalf
from vfl.models.tensors import save_tensors
from vfl.planning.prediction import rows_of_block
from vfl.protocols.new_rows import OPENED, outcome_of, rounded, rows_of
from vfl.reports import Answered, Outcome, StepDone
from vfl.requests import ScoreRequest
from vfl.setup import Setup
from vfl.spec.joined_rows import TrainingRole
from vfl.spec.prediction import PredictionSpec

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
WORDS: tuple[type[Message], ...] = (RowsToScore, SessionOver)

OpenBlock = Callable[[int, Rows], Flow[None]]
"""The feature party's side of one block: its number, from 1, and its rows."""
AskBlock = Callable[[int, Rows], Flow[Floats]]
"""The label party's side of the same block: what the feature parties add to its rows, rows x numbers."""
Combine = Callable[[Floats, Floats], Floats]
"""Makes scores, rows x outputs, of what the feature parties add and of own columns, prepared."""


def opens_what_is_asked(setup: Setup[PredictionSpec], open_block: OpenBlock) -> Flow[int]:
    """The feature party; answers how many rows were opened. Raises RemoteProtocolError."""
    label, number = setup.only(TrainingRole.LABEL), 0
    is_opened = np.zeros(setup.rows, bool)
    while True:
        word = yield from receive_any(WORDS, label)
        if not isinstance(word, RowsToScore):
            return int(is_opened.sum())
        number += 1
        rows = _checked(label, word, number, is_opened, rows_of_block(setup.spec))
        is_opened[rows] = True
        yield from open_block(number, rows)
        yield from report(StepDone(int(is_opened.sum()), setup.rows, 0))


def _checked(label: str, word: RowsToScore, number: int, is_opened: NDArray[np.bool_], most: int) -> Rows:
    if word.step != number or len(word.rows) % 8 or not 0 < len(word.rows) <= 8 * most:
        raise RemoteProtocolError(f"{label} asks in RowsToScore {word.step} for no rows, too many, or out of turn")
    rows = np.frombuffer(word.rows, np.int64)
    if rows.min() < 0 or rows.max() >= len(is_opened):
        raise RemoteProtocolError(f"{label} asks for a row that is none of the {len(is_opened)} of the session")
    if is_opened[rows].any() or len(np.unique(rows)) < len(rows):
        raise RemoteProtocolError(
            f"{label} asks for a row a second time: its score was opened once, and would tell more with other noise",
            fix=f"An honest server keeps what it has read: run no job with {label} before it has explained that.",
        )
    return rows


def answers_requests(
    setup: Setup[PredictionSpec], half: LabelHalf, width: int, ask_block: AskBlock, combine: Combine
) -> Flow[Outcome]:
    """The label party; `width` is how many numbers the feature parties add to a row."""
    parts, is_opened, number = np.empty((setup.rows, width)), np.zeros(setup.rows, bool), 0
    while (request := (yield from next_request())) is not None:
        wanted, before = request.places, int(is_opened.sum())
        new = _first_asked(wanted, is_opened)
        room = rows_of_block(setup.spec)
        for rows in (new[start : start + room] for start in range(0, len(new), room)):
            number += 1
            for feature in setup.spec.roster.features:
                yield from send(feature, RowsToScore(number, rows.tobytes()))
            parts[rows] = yield from ask_block(number, rows)
            is_opened[rows] = True
        scores = rounded(setup, half, combine(parts[wanted], _own_of(setup, half, request)))
        values = [[None if np.isnan(score) else float(score) for score in row] for row in scores]
        yield from report(Answered(request.number, values, len(new), before))
    for feature in setup.spec.roster.features:
        yield from send(feature, SessionOver())
    opened, scores = np.flatnonzero(is_opened), np.full((setup.rows, half.scorer.shape.outputs), np.nan)
    scores[opened] = combine(parts[opened], half.own(*rows_of(setup, opened)))
    return outcome_of(setup, half, scores, {}, opened)


def _first_asked(wanted: Rows, is_opened: NDArray[np.bool_]) -> Rows:
    """Each row once, in the order in which they are asked for."""
    new = wanted[~is_opened[wanted]]
    return new[np.sort(np.unique(new, return_index=True)[1])]


def _own_of(setup: Setup[PredictionSpec], half: LabelHalf, request: ScoreRequest) -> Floats:
    own = request.own_columns(setup.table.columns.shape[1])
    if own is None:
        return half.own(*rows_of(setup, request.places))
    if not setup.spec.takes_own_values:
        raise LocalProtocolError("own values were asked for where the feature party's part depends on the table's")
    return half.own(own, request.words)


def nothing_more(opened: int, operations: dict[str, int] | None = None) -> Outcome:
    """Of a feature party whose session is over."""
    return Outcome(save_tensors({}), {OPENED: float(opened)}, operations or {})
