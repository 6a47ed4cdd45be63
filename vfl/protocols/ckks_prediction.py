"""Encrypted prediction: new rows are scored by the two halves of a model, and the label party alone reads the scores.

Feature party F has its columns and its bottom model, label party L its own columns and the top model, as both stored
them when they had trained. Every column is prepared as it was then.

    0      both  compare the keyed digest of their rows
    1 - 3        the steps 12 to 14 of `ckks_scoring`: weights first, then each block of rows

In a session the blocks are those that the label party asks for (`scoring_session`), after the weights.

Who learns what. F sees pseudo-random words, and how many rows are scored. L sees one noisy number
per row and output: what F's columns add to its score. L holds the weights, so that it reads as many linear combinations
of a row of F as models are applied to that row; an L that deviates chooses the weights (prediction.md).
"""

from collections import Counter

import msgspec
import numpy as np
from numpy.typing import NDArray

from vfl.flow import Flow, report
from vfl.models.halves import FeatureHalf, LabelHalf
from vfl.models.tensors import save_tensors
from vfl.protocols.ckks_scoring import Score, opens_scores, scores_rows, scoring_blocks, summed
from vfl.protocols.new_rows import outcome_of, rows_of
from vfl.protocols.same_rows import compare_rows
from vfl.protocols.scoring_session import answers_requests, nothing_more, opens_what_is_asked
from vfl.reports import Outcome, StepDone
from vfl.setup import Setup
from vfl.spec.joined_rows import TrainingRole
from vfl.spec.prediction import PredictionSpec


def feature_party(setup: Setup[PredictionSpec]) -> Flow[Outcome]:
    trained, label = setup.spec.trained, setup.only(TrainingRole.LABEL)
    half, used = FeatureHalf.read(trained, setup.me, setup.model, setup.bottom), list[Counter[str]]()
    yield from compare_rows(setup)  # 0
    blocks = scoring_blocks(trained, np.arange(setup.rows))
    open_scores = yield from opens_scores(trained, label, used.append)  # 1
    if setup.spec.session is not None:
        opened = yield from opens_what_is_asked(
            setup, lambda number, rows: open_scores(number, half.embed(*rows_of(setup, rows)))
        )
        return nothing_more(opened, summed(used))
    for number, rows in enumerate(blocks, 1):
        yield from open_scores(number, half.embed(*rows_of(setup, rows)))  # 1 to 3
        yield from report(StepDone(int(rows[-1]) + 1, setup.rows, 0))
    return Outcome(save_tensors({}), operations=summed(used))


def label_party(setup: Setup[PredictionSpec]) -> Flow[Outcome]:
    trained, feature = setup.spec.trained, setup.only(TrainingRole.FEATURE)
    half, scores, used = LabelHalf.read(trained, setup.model), [], list[Counter[str]]()
    yield from compare_rows(setup)  # 0
    blocks = scoring_blocks(trained, np.arange(setup.rows))
    score = yield from scores_rows(trained, half.scorer, feature)  # 1
    if setup.spec.session is not None:
        return (yield from _session(setup, half, score))
    for number, rows in enumerate(blocks, 1):
        scored = yield from score(number, half.own(*rows_of(setup, rows)))  # 1 to 3
        scores.append(scored.scores)
        used.append(scored.operations)
        yield from report(StepDone(int(rows[-1]) + 1, setup.rows, 0))
    return outcome_of(setup, half, np.concatenate(scores), summed(used))


def _session(setup: Setup[PredictionSpec], half: LabelHalf, score: Score) -> Flow[Outcome]:
    """Of a linear model the feature party's part is kept, of one with hidden neurons the score itself."""
    is_linear, used = not setup.spec.trained.hidden, Counter[str]()

    def ask_block(number: int, rows: NDArray[np.int64]) -> Flow[NDArray[np.float64]]:
        own = half.own(*rows_of(setup, rows))
        scored = yield from score(number, own)
        used.update(scored.operations)
        return scored.scores - half.scorer.own_part(own) if is_linear else scored.scores

    def combine(parts: NDArray[np.float64], own: NDArray[np.float64]) -> NDArray[np.float64]:
        return parts + half.scorer.own_part(own) if is_linear else parts

    outcome = yield from answers_requests(setup, half, setup.spec.trained.outputs, ask_block, combine)
    return msgspec.structs.replace(outcome, operations=summed([used]))


ROLES = {TrainingRole.FEATURE: feature_party, TrainingRole.LABEL: label_party}
