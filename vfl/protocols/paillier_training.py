"""Training of a linear model on Paillier ciphertexts (paillier_training.md): two parties, one key owner, exact sums.

Feature party F owns the columns and the key; label party L owns labels y, columns x of its own and all weights in
clear. All numbers are integers, so that the run equals one in clear with the same integers bit for bit.

    0  both    compare the keyed digest of their rows; L -> F HeldOut, where the job asks for it;
               F -> L PaillierKey, whose modulus L checks
    1  F -> L  EncryptedRows: the rows of the batch, in the first epoch alone
    2  F -> L  EncryptedMoments: S = sum of z z' over the batch
    3  L       error = w.z + c with its own w and c; [[sum of error x z]] = w [[S]] + sum c_i [[z_i]];
               for each column of its own [[sum of x w.z]], in the middle of other sums
    4  L -> F  MaskedNumbers: these sums, each plus a number uniform modulo n, re-randomised
    5  F -> L  OpenedSums: decrypted; random numbers cover all but the agreed bits of the agreed limbs
    6  L       takes the masks off, optimiser step

then, once, the held-out rows in blocks:

    7  F -> L  EncryptedColumns
    8  L -> F  MaskedNumbers: their scores, without own columns
    9  F -> L  BlurredScores

Who learns what. F sees uniform numbers, and how many steps happen, whatever it sends. L sees one exact sum per weight
and step, and scores of the held-out rows. Exact sums say more than noisy ones: `rho` bounds what can be solved for, and
paillier_training.md says what it does not bound. F opens no value outside a counted step.
"""

from collections import Counter

import numpy as np

from crypto.paillier import KeyMaterial, PaillierPrivateKey, PaillierPublicKey
from crypto.paillier_parameters import PaillierParameters
from crypto.paillier_sums import (
    Integers,
    LinearErrors,
    Packed,
    agreed_bits,
    blurred,
    encrypted_scores,
    encrypted_sums,
    gradients,
    integers,
    packed_columns,
    packed_moments,
    packed_rows,
    scores,
    unflattened,
)
from vfl.flow import Flow, receive, report, send
from vfl.paillier_messages import (
    BlurredScores,
    EncryptedColumns,
    EncryptedMoments,
    EncryptedRows,
    MaskedNumbers,
    OpenedSums,
    PaillierKey,
)
from vfl.planning.paillier_traffic import scored_blocks
from vfl.protocols.feature_side import FeatureSide, end_epoch
from vfl.protocols.label_side import Floats, LabelSide, judge_epoch
from vfl.protocols.peer_bytes import attributed_to
from vfl.protocols.same_rows import agree_on_rows
from vfl.reports import Outcome, Remark, StepDone
from vfl.setup import Setup
from vfl.spec.joined_rows import TrainingRole
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec


def feature_party(setup: Setup[TrainingSpec]) -> Flow[Outcome]:
    setup = yield from agree_on_rows(setup)  # 0
    label, side, parameters = setup.only(TrainingRole.LABEL), FeatureSide(setup), setup.spec.paillier
    pool = setup.pool
    width, own = setup.spec.embedding_width(setup.me), setup.spec.data[label].prepared_width
    opened = parameters.opened_numbers(width, own, setup.spec.outputs)

    yield from report(Remark(f"making a key of {parameters.key_bits} bits"))
    key = PaillierPrivateKey(parameters.key_bits)
    yield from send(label, PaillierKey(*key.material))  # 0
    for step, steps, epoch, last_of_epoch, rows in setup.batches():
        z = integers(side.embed(rows), parameters)
        if epoch == 1:
            yield from send(label, EncryptedRows(step, key.encrypt(packed_rows(z, parameters), pool)))  # 1
        yield from send(label, EncryptedMoments(step, key.encrypt(packed_moments(z, parameters), pool)))  # 2
        masked = yield from receive(MaskedNumbers, label, step)  # 4
        with attributed_to(label):
            numbers = key.open(masked.masked, opened, pool)
        values = agreed_bits(numbers, width, setup.spec.outputs, parameters)
        yield from send(label, OpenedSums(step, key.written(values)))  # 5
        yield from report(StepDone(step, steps, epoch))
        if last_of_epoch:
            yield from end_epoch(setup, side, epoch)

    yield from report(Remark("opening scores of the held-out rows for the label party"))
    for number, rows in enumerate(scored_blocks(setup.test_rows), 1):
        columns = packed_columns(integers(side.embed(rows), parameters), parameters)
        yield from send(label, EncryptedColumns(number, key.encrypt(columns, pool)))  # 7
        masked = yield from receive(MaskedNumbers, label, number)  # 8
        groups = setup.spec.outputs * len(parameters.score_groups(len(rows)))
        with attributed_to(label):
            numbers = key.open(masked.masked, groups, pool)
        values = blurred(numbers, len(rows), setup.spec.outputs, parameters)
        yield from send(label, BlurredScores(number, key.written(values)))  # 9
    return side.outcome(_counted(key.operations) | {"make key": 1})


def label_party(setup: Setup[TrainingSpec]) -> Flow[Outcome]:
    setup = yield from agree_on_rows(setup)  # 0
    feature, side, parameters = setup.only(TrainingRole.FEATURE), LabelSide(setup), setup.spec.paillier
    pool = setup.pool
    width, own = setup.spec.embedding_width(feature), setup.spec.data[setup.me].prepared_width
    opened = parameters.opened_numbers(width, own, setup.spec.outputs)

    material = yield from receive(PaillierKey, feature)  # 0
    with attributed_to(feature):
        key = PaillierPublicKey(KeyMaterial(material.modulus, material.proof), parameters.key_bits)
    key.prepare(opened, pool)  # while the feature party encrypts
    table = dict[int, list[int]]()
    for step, steps, epoch, last_of_epoch, rows in setup.batches():
        if epoch == 1:
            sent = yield from receive(EncryptedRows, feature, step)  # 1
            table |= zip(rows.tolist(), _loaded(key, feature, sent.rows, len(rows), width, parameters), strict=True)
        of_batch = yield from receive(EncryptedMoments, feature, step)  # 2
        moments = _loaded(key, feature, of_batch.moments, width, width, parameters)
        errors, inputs = _linear_errors(side, rows, parameters)
        of_rows = [table[row] for row in rows.tolist()]
        sums = encrypted_sums(key, moments, of_rows, errors, inputs, parameters, pool)  # 3
        masked, masks = key.mask(sums, pool)
        yield from send(feature, MaskedNumbers(step, masked))  # 4
        key.prepare(opened, pool)  # for the next step, while the feature party opens this one
        answer = yield from receive(OpenedSums, feature, step)  # 5
        with attributed_to(feature):
            numbers = masks.remove(answer.values)
        side.update(gradients(numbers, errors, inputs, parameters), rows, step)  # 6
        yield from report(StepDone(step, steps, epoch, side.dropped))
        if last_of_epoch:
            yield from judge_epoch(setup, side, epoch)

    yield from report(Remark("evaluating on the held-out rows"))
    weights = integers(side.top.embedding_weights, parameters)
    held_out: list[Floats] = []
    for number, rows in enumerate(scored_blocks(setup.test_rows), 1):
        columns = yield from receive(EncryptedColumns, feature, number)  # 7
        groups = len(parameters.score_groups(len(rows)))
        with attributed_to(feature):
            ciphertexts = key.load(columns.columns, groups * width)
        masked, masks = key.mask(encrypted_scores(key, ciphertexts, weights), pool)
        yield from send(feature, MaskedNumbers(number, masked))  # 8
        blurry = yield from receive(BlurredScores, feature, number)  # 9
        with attributed_to(feature):
            numbers = masks.remove(blurry.values)
        held_out.append(scores(numbers, len(rows), setup.spec.outputs, parameters) + side.top.own_part(side.own(rows)))
    return side.outcome(np.concatenate(held_out), _counted(key.operations))


def _loaded(
    key: PaillierPublicKey, feature: PartyId, ciphertexts: bytes, rows: int, width: int, parameters: PaillierParameters
) -> Packed:
    with attributed_to(feature):
        loaded = key.load(ciphertexts, rows * len(parameters.chunks(width)))
    return unflattened(loaded, width, parameters)


def _linear_errors(side: LabelSide, rows: Integers, parameters: PaillierParameters) -> tuple[LinearErrors, Integers]:
    """The errors of these rows as a linear form of the feature party's columns, and the label party's own inputs with
    that of the bias."""
    weights, constants, own = side.linear_errors(rows)
    inputs = np.column_stack([own, np.ones(len(rows))])
    of_errors = LinearErrors(integers(weights, parameters), integers(constants, parameters))
    return of_errors, integers(inputs, parameters)


def _counted(operations: Counter[str]) -> dict[str, int]:
    return dict(sorted(operations.items()))


ROLES = {TrainingRole.FEATURE: feature_party, TrainingRole.LABEL: label_party}
