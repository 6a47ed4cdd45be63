"""Split training in clear: the reference every encrypted run is compared with.

n feature parties F, one label party L. Layout features: the embedding is the standardised columns, all weights are L's.
Layout embeddings: it is the output of F's own bottom model, which learns from the cut gradient.

    0  both    compare the keyed digest of their rows; L -> F HeldOut, where the job asks for it
    1  F -> L  Embedding: this step's rows of z
    2  L       forward, error of the loss polynomial, gradients, optimiser step
    3  L -> F  StepApplied, or CutGradient in layout embeddings: protected as the job says
    4  F       backward, optimiser step (layout embeddings)
    5  F -> L  Embedding of the validation rows, after an epoch, with split.validation only; L measures the loss
    6  L -> F  EpochJudged, with train.stop_early only: whether training goes on
    7  F -> L  EvaluationRows, once at the end; L scores the held-out rows

Who learns what: L reads every embedding of every feature party; F learns that steps happen, and in layout embeddings
the cut gradient, from which labels can be inferred. Nothing else is protected, which is why a party must allow scheme
`none` by name. Steps and polynomials equal those of `ckks_training`.
"""

import numpy as np

from vfl.flow import Flow, gather, receive, report, send
from vfl.message import Message
from vfl.messages import CutGradient, Embedding, EvaluationRows, StepApplied
from vfl.models.polynomial import Numbers
from vfl.protocols.checkpoints import Progress
from vfl.protocols.clear_values import as_bytes, checked
from vfl.protocols.feature_side import FeatureSide, end_epoch
from vfl.protocols.label_side import Floats, LabelSide, judge_epoch
from vfl.protocols.same_rows import agree_on_rows
from vfl.reports import Outcome, Remark, StepDone
from vfl.setup import Setup
from vfl.spec.joined_rows import TrainingRole
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec


def feature_party(setup: Setup[TrainingSpec]) -> Flow[Outcome]:
    setup = yield from agree_on_rows(setup)  # 0
    label, side, learns = setup.only(TrainingRole.LABEL), FeatureSide(setup), setup.spec.model.layout == "embeddings"
    progress = Progress(setup, side)

    for batch in progress.batches():
        step, steps, epoch, last_of_epoch, rows = batch
        yield from send(label, Embedding(step, as_bytes(side.forward(rows))))  # 1
        if learns:
            cut = yield from receive(CutGradient, label, step)  # 3
            side.backward([checked(label, cut.values, len(rows), setup.spec.embedding_width(setup.me))], epoch)  # 4
        else:
            yield from receive(StepApplied, label, step)  # 3
        yield from report(StepDone(step, steps, epoch))
        goes_on = True
        if last_of_epoch:
            if setup.spec.is_validated(epoch):
                yield from send(label, Embedding(epoch, as_bytes(side.embed(setup.validation_rows))))  # 5
            goes_on = yield from end_epoch(setup, side, epoch)  # 6
        yield from progress.reached(batch, goes_on=goes_on)
        if not goes_on:
            break
    side.keep_best()
    yield from send(label, EvaluationRows(as_bytes(side.embed(setup.test_rows))))  # 7
    return side.outcome({})


def label_party(setup: Setup[TrainingSpec]) -> Flow[Outcome]:
    setup = yield from agree_on_rows(setup)  # 0
    features, side, numbers = setup.spec.roster.features, LabelSide(setup), Numbers()
    progress = Progress(setup, side)

    for batch in progress.batches():
        step, steps, epoch, last_of_epoch, rows = batch
        embeddings = yield from gather(Embedding, features, step)  # 1
        embedding = _joined(setup, {party: message.values for party, message in embeddings.items()}, len(rows))
        passes = side.passes(numbers, list(embedding.T), rows)  # 2
        answers = _answers(setup, side, passes.joined_errors, step, embedding)
        side.update(numbers.sums(passes.products), rows, step)
        for feature in features:
            yield from send(feature, answers[feature])  # 3
        yield from report(StepDone(step, steps, epoch, side.dropped))
        goes_on = True
        if last_of_epoch:
            if setup.spec.is_validated(epoch):
                yield from _measure(setup, side, epoch)  # 5
            goes_on = yield from judge_epoch(setup, side, epoch)  # 6
        yield from progress.reached(batch, goes_on=goes_on)
        if not goes_on:
            break
    side.keep_best()

    yield from report(Remark("evaluating on the held-out rows"))
    held_out = yield from gather(EvaluationRows, features)  # 7
    embedding = _joined(setup, {party: message.values for party, message in held_out.items()}, len(setup.test_rows))
    return side.outcome(side.top.scores(embedding, side.own(setup.test_rows)), {})


def _measure(setup: Setup[TrainingSpec], side: LabelSide, epoch: int) -> Flow[None]:
    """The loss on the validation rows."""
    validation = yield from gather(Embedding, setup.spec.roster.features, epoch)
    rows, numbers = setup.validation_rows, Numbers()
    embedding = _joined(setup, {party: message.values for party, message in validation.items()}, len(rows))
    side.measure(epoch, numbers.sums(side.squared_errors(numbers, list(embedding.T), rows)))


def _answers(
    setup: Setup[TrainingSpec], side: LabelSide, errors: list[Floats], step: int, embedding: Floats
) -> dict[PartyId, Message]:
    """What each feature party is told: its own part of the protected cut error, or only that the step is done.

    The noise is the same whenever the step is taken again on the same embedding, so that a feature party that comes
    back cannot average it out; on another embedding it is other noise, so that nothing can be subtracted.
    """
    if setup.spec.model.layout == "features":
        return dict.fromkeys(setup.spec.roster.features, StepApplied(step))
    basis = side.cut_basis()
    coordinates = np.stack(errors, axis=1) @ side.top.embedding_weights @ basis.T
    draw = setup.own_stream(f"cut noise {step}", embedding.tobytes())
    noise = side.cut_noise(len(coordinates), len(basis), draw)
    cut = (coordinates + noise.real) @ basis
    widths = [setup.spec.embedding_width(feature) for feature in setup.spec.roster.features]
    parts = np.split(cut, np.cumsum(widths)[:-1], axis=1)
    return {f: CutGradient(step, as_bytes(part)) for f, part in zip(setup.spec.roster.features, parts, strict=True)}


def _joined(setup: Setup[TrainingSpec], values: dict[PartyId, bytes], rows: int) -> Floats:
    """The feature parties' embeddings side by side in the order of the roster, rows x columns."""
    return np.concatenate(
        [checked(party, data, rows, setup.spec.embedding_width(party)) for party, data in values.items()], axis=1
    )


ROLES = {TrainingRole.FEATURE: feature_party, TrainingRole.LABEL: label_party}
