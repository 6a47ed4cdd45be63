"""A linear model from sums over all rows, which are touched once (one_pass.md): two parties, keys of the label party.

Feature party F owns columns z; label party L owns labels, columns x of its own, and the key. The targets t are +-1 for
each class, or the scaled label of a regression. Both cut the training rows into the same folds.

    0  both    compare the keyed digest of their rows; L -> F HeldOut, where the job asks for it
    1  L -> F  SumsKey
    2  L -> F  EncryptedBlocks: x and t of blocks of rows, fold by fold
    3  F       for each block the products of its own columns with them, in the sums of the fold
    4  F -> L  SumsOverRows: of each fold the sums of z x and z t, encrypted, re-randomised and under noise; those of
               z z' and z in clear
    5  L       opens them, takes the penalty of least error on the folds that a fit left out, and solves

then, once, the held-out rows: steps 12 and 14 of `ckks_scoring`, as of a linear model of `ckks_training`.

Who learns what. F sees ciphertexts under L's key, and how many rows are scored. L sees the sums of each fold and scores
of the held-out rows. Sums over many rows say little of one, but for rare values: columns by which few rows differ stay
out of them (`fit.least_rows`). An L that deviates chooses what it encrypts, and reads with each sum what it likes of
some rows: their number is fixed by the job, and counted (threat_model.md).
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crypto.moments import ColumnsKey, EncryptedColumns, RunningSums, SumsOfProducts
from crypto.moments_parameters import FEATURE_BITS, MomentsScale
from vfl.errors import RemoteProtocolError
from vfl.flow import Flow, receive, report, send
from vfl.models.halves import PREPARATION
from vfl.models.tensors import save_tensors
from vfl.one_pass_messages import EncryptedBlocks, SumsKey, SumsOverRows
from vfl.planning.one_pass import folds, messages_of_fold, scored_as, width_of
from vfl.protocols.ckks_scoring import opens_scores, scores_rows, scoring_blocks, summed
from vfl.protocols.label_sums import LabelSums
from vfl.protocols.peer_bytes import attributed_to
from vfl.protocols.prepared_columns import PreparedColumns
from vfl.protocols.same_rows import agree_on_rows
from vfl.reports import Outcome, Remark, StepDone
from vfl.setup import Setup
from vfl.spec.joined_rows import TrainingRole
from vfl.spec.one_pass import OnePassSpec
from vfl.spec.sections import PartyId

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Rows = NDArray[np.int64]

OVER_BOUND = 1.01
"""Rounding may lift the mean square of a column that is standardised and clipped above 1, and by less than this."""


class Part(NamedTuple):
    """What one message holds: blocks of rows of one fold."""

    step: int
    fold: int
    blocks: list[tuple[int, Rows]]
    """Each with its number in the whole job, from 1."""
    ends_fold: bool


def parts(setup: Setup[OnePassSpec], training_rows: Rows) -> Iterator[Part]:
    step, block = 0, 0
    for fold, rows in enumerate(folds(setup.joint_seed, training_rows, setup.spec.fit.folds), 1):
        messages, start = messages_of_fold(len(rows)), 0
        for place, sizes in enumerate(messages, 1):
            step, blocks = step + 1, list[tuple[int, Rows]]()
            for size in sizes:
                block += 1
                blocks.append((block, rows[start : start + size]))
                start += size
            yield Part(step, fold, blocks, place == len(messages))


def feature_party(setup: Setup[OnePassSpec]) -> Flow[Outcome]:
    setup = yield from agree_on_rows(setup)  # 0
    spec, label, used = setup.spec, setup.only(TrainingRole.LABEL), Counter[str]()
    columns, width, train = PreparedColumns(setup), width_of(spec), setup.training_rows
    usable, notices = columns.without_rare_values(train, spec.fit.least_rows)
    received = yield from receive(SumsKey, label)  # 1
    with attributed_to(label):
        key = EncryptedColumns(received.public, spec.encrypted_columns, width, MomentsScale(len(train)))
    sums, own, every_part = RunningSums(key), np.zeros((width + 1, width + 1), np.int64), [*parts(setup, train)]
    for part in every_part:
        sent = yield from receive(EncryptedBlocks, label, part.step)  # 2
        if len(sent.blocks) != len(part.blocks):
            raise RemoteProtocolError(f"{label} sent {len(sent.blocks)} blocks where {len(part.blocks)} were due")
        for (number, rows), encrypted in zip(part.blocks, sent.blocks, strict=True):
            z = integers(columns.rows(rows) * usable, FEATURE_BITS)
            with attributed_to(label):
                sums.add(key.block(number, encrypted, z))  # 3
            own += _own_products(z)
            used["multiply block"] += 1
        if part.ends_fold:
            answer = sums.answer()
            clear = own[np.triu_indices(width + 1)].astype("<i8").tobytes()
            yield from send(label, SumsOverRows(part.fold, *answer, clear))  # 4
            sums, own = RunningSums(key), np.zeros_like(own)
            used["answer sums"] += 1
        yield from report(StepDone(part.step, len(every_part), 0))

    scored = list[Counter[str]]()
    training = scored_as(spec)
    open_scores = yield from opens_scores(training, label, scored.append)
    for number, rows in enumerate(scoring_blocks(training, setup.test_rows), 1):
        yield from open_scores(number, columns.rows(rows))
    state = save_tensors({PREPARATION: columns.stored})
    return Outcome(state, operations=summed([used, *scored]), notices=[*columns.notices, *notices])


def label_party(setup: Setup[OnePassSpec]) -> Flow[Outcome]:
    setup = yield from agree_on_rows(setup)  # 0
    spec, feature, side = setup.spec, setup.only(TrainingRole.FEATURE), LabelSums(setup)
    train, used = setup.training_rows, Counter[str]()
    scale, every_part = MomentsScale(len(train)), [*parts(setup, train)]
    key = ColumnsKey(spec.encrypted_columns, scale)
    yield from send(feature, SumsKey(key.public))  # 1
    for part in every_part:
        blocks = []
        for number, rows in part.blocks:
            columns = side.columns(part.fold, rows)
            blocks.append(key.encrypt(number, integers(columns, scale.label_bits)))
            used["encrypt block"] += 1
        yield from send(feature, EncryptedBlocks(part.step, tuple(blocks)))  # 2
        yield from report(StepDone(part.step, len(every_part), 0))
    for fold in range(1, spec.fit.folds + 1):
        sums = yield from receive(SumsOverRows, feature, fold)  # 4
        with attributed_to(feature):
            opened = key.open(SumsOfProducts(sums.polynomials, sums.words), width_of(spec))
        side.add(fold, opened.astype(np.float64) / scale.unit, _own_sums(sums.own, feature, width_of(spec), len(train)))
        used["open sums"] += 1
    side.solve()  # 5

    yield from report(Remark("evaluating on the held-out rows"))
    training, scores = scored_as(spec), list[Floats]()
    score = yield from scores_rows(training, side.scorer, feature)
    counted = [used]
    for number, rows in enumerate(scoring_blocks(training, setup.test_rows), 1):
        scored = yield from score(number, side.own(rows))
        scores.append(scored.scores)
        counted.append(scored.operations)
    return side.outcome(np.concatenate(scores), summed(counted))


def integers(values: Floats, bits: int) -> Integers:
    return np.rint(values * 2.0**bits).astype(np.int64)


def _own_products(z: Integers) -> Integers:
    """Of two columns of these rows, the constant last: exact, as every partial sum stays below 2^53."""
    rows = np.column_stack([z, np.full(len(z), 1 << FEATURE_BITS)]).astype(np.float64)
    products: Integers = (rows.T @ rows).astype(np.int64)
    return products


def _own_sums(data: bytes, feature: PartyId, width: int, rows: int) -> Floats:
    """The feature party's sums of products, symmetric, the constant last. Raises RemoteProtocolError for what columns
    within the agreed bound cannot give: beyond it the encrypted sums could wrap around."""
    upper = np.triu_indices(width + 1)
    if len(data) != 8 * len(upper[0]):
        raise RemoteProtocolError(f"{feature} sent {len(data)} bytes of own sums where {8 * len(upper[0])} were due")
    products = np.zeros((width + 1, width + 1))
    products[upper] = np.frombuffer(data, "<i8") / 4.0**FEATURE_BITS
    products = products + np.triu(products, 1).T
    squares = np.diagonal(products)
    if (squares < 0).any() or (squares > OVER_BOUND * rows).any():
        raise RemoteProtocolError(f"{feature} sent sums of squares that no standardised column has over {rows} rows")
    return products


ROLES = {TrainingRole.FEATURE: feature_party, TrainingRole.LABEL: label_party}
