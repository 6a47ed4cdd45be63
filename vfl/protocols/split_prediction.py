"""Prediction in clear, with a model that was trained in clear: what the encrypted one is compared with.

n feature parties F, one label party L, which hold the model of a `split_training`.

    0  both    compare the keyed digest of their rows
    1  F -> L  EvaluationRows, block by block: what F's columns or its bottom model give; L scores the rows

In a session the blocks are those that the label party asks for (`scoring_session`).

Who learns what: L reads all that F's half makes of every row, in layout features the prepared columns themselves.
"""

import numpy as np
from numpy.typing import NDArray

from vfl.flow import Flow, gather, report, send
from vfl.messages import EvaluationRows
from vfl.models.halves import FeatureHalf, LabelHalf
from vfl.models.tensors import save_tensors
from vfl.planning.prediction import clear_blocks
from vfl.protocols.clear_values import as_bytes, checked
from vfl.protocols.new_rows import outcome_of, rows_of
from vfl.protocols.same_rows import compare_rows
from vfl.protocols.scoring_session import answers_requests, nothing_more, opens_what_is_asked
from vfl.reports import Outcome, StepDone
from vfl.setup import Setup
from vfl.spec.joined_rows import TrainingRole
from vfl.spec.prediction import PredictionSpec


def feature_party(setup: Setup[PredictionSpec]) -> Flow[Outcome]:
    trained, label = setup.spec.trained, setup.only(TrainingRole.LABEL)
    half = FeatureHalf.read(trained, setup.me, setup.model, setup.bottom)
    yield from compare_rows(setup)  # 0

    def open_block(_number: int, rows: NDArray[np.int64]) -> Flow[None]:
        yield from send(label, EvaluationRows(as_bytes(half.embed(*rows_of(setup, rows)))))

    if setup.spec.session is not None:
        return nothing_more((yield from opens_what_is_asked(setup, open_block)))
    for number, rows in enumerate(clear_blocks(setup.rows), 1):
        yield from open_block(number, rows)  # 1
        yield from report(StepDone(int(rows[-1]) + 1, setup.rows, 0))
    return Outcome(save_tensors({}))


def label_party(setup: Setup[PredictionSpec]) -> Flow[Outcome]:
    trained, scores = setup.spec.trained, []
    half, features = LabelHalf.read(trained, setup.model), trained.roster.features
    yield from compare_rows(setup)  # 0

    def ask_block(_number: int, rows: NDArray[np.int64]) -> Flow[NDArray[np.float64]]:
        sent = yield from gather(EvaluationRows, features)
        parts = [checked(each, sent[each].values, len(rows), trained.embedding_width(each)) for each in features]
        return np.concatenate(parts, axis=1)

    if setup.spec.session is not None:
        width = sum(map(trained.embedding_width, features))
        return (yield from answers_requests(setup, half, width, ask_block, half.scorer.scores))
    for number, rows in enumerate(clear_blocks(setup.rows), 1):
        parts = yield from ask_block(number, rows)  # 1
        scores.append(half.scorer.scores(parts, half.own(*rows_of(setup, rows))))
        yield from report(StepDone(int(rows[-1]) + 1, setup.rows, 0))
    return outcome_of(setup, half, np.concatenate(scores), {})


ROLES = {TrainingRole.FEATURE: feature_party, TrainingRole.LABEL: label_party}
