"""Split training in clear: the reference every encrypted run is compared with.

n feature parties F, one label party L, layout features: the embedding is the standardised columns, all weights are L's.

    0  both    compare the keyed digest of their rows
    1  F -> L  Embedding: this step's rows of z
    2  L       error of the loss polynomial, gradient, optimiser step
    3  L -> F  StepApplied
    4  F -> L  EvaluationRows, once at the end; L scores the held-out rows

Who learns what: L reads every column of every feature party; F learns that steps happen. Nothing is protected, which is
why a party must allow scheme `none` by name. Steps and polynomials equal those of `ckks_training`.
"""

import numpy as np
from numpy.typing import NDArray

from vfl.errors import RemoteProtocolError
from vfl.flow import Flow, gather, receive, report, send
from vfl.job import PartyId, Role
from vfl.messages import Embedding, EvaluationRows, StepApplied
from vfl.models.polynomial import Numbers, floats, save_tensors
from vfl.protocols import Protocol
from vfl.protocols.label_side import LabelSide
from vfl.protocols.same_rows import same_rows
from vfl.reports import EpochDone, Outcome, Progress, StepDone
from vfl.scaling import Scaling
from vfl.setup import Setup


def feature_party(setup: Setup) -> Flow[Outcome]:
    yield from same_rows(setup)  # 0
    scaling = Scaling.fit(setup.table.columns[setup.training_rows])
    columns, label = scaling.apply(setup.table.columns), setup.only(Role.LABEL)
    state = save_tensors({"scaling.mean": scaling.mean, "scaling.deviation": scaling.deviation})

    for step, steps, epoch, last_of_epoch, rows in setup.batches():
        yield from send(label, Embedding(step, columns[rows].astype("<f8").tobytes()))  # 1
        yield from receive(StepApplied, label, step)  # 3
        yield from report(StepDone(step, steps, epoch))
        if last_of_epoch:
            yield from report(EpochDone(epoch, setup.spec.train.epochs, state))
    yield from send(label, EvaluationRows(columns[setup.test_rows].astype("<f8").tobytes()))  # 4
    return Outcome(state)


def label_party(setup: Setup) -> Flow[Outcome]:
    yield from same_rows(setup)  # 0
    features, side, numbers = setup.spec.roster.features, LabelSide(setup), Numbers()

    for step, steps, epoch, last_of_epoch, rows in setup.batches():
        sent = yield from gather(Embedding, features, step)  # 1
        embedding = _joined(setup, {party: message.values for party, message in sent.items()}, len(rows))
        errors = side.top.loss_error(numbers, list(embedding.T), side.own[rows], side.targets[rows])  # 2
        gradients = side.top.row_gradients(numbers, list(embedding.T), side.own[rows], errors)
        side.top.update(np.array([gradient.sum() for gradient in gradients]), len(rows), step)
        for feature in features:
            yield from send(feature, StepApplied(step))  # 3
        yield from report(StepDone(step, steps, epoch))
        if last_of_epoch:
            yield from report(EpochDone(epoch, setup.spec.train.epochs, side.state()))

    yield from report(Progress("evaluating on the held-out rows"))
    held_out = yield from gather(EvaluationRows, features)  # 4
    embedding = _joined(setup, {party: message.values for party, message in held_out.items()}, len(setup.test_rows))
    return side.outcome(side.top.scores(embedding, side.own[setup.test_rows]), {})


def _joined(setup: Setup, values: dict[PartyId, bytes], rows: int) -> NDArray[np.float64]:
    """The feature parties' embeddings side by side in the order of the roster, rows x columns."""
    parts = []
    for party, data in values.items():
        part = floats(data, rows, len(setup.spec.data[party].columns))
        if part is None or not np.isfinite(part).all():
            raise RemoteProtocolError(f"{party} sent an embedding that is not {rows} rows of finite numbers")
        parts.append(part)
    return np.concatenate(parts, axis=1)


PROTOCOL = Protocol("split_training", {Role.FEATURE: feature_party, Role.LABEL: label_party})
