"""Encrypted training under CKKS (US12585915B2; ckks_training.md): two parties, one network, one key owner.

Feature party F owns the columns, its bottom model f and the secret key; label party L owns labels y, columns x of its
own and the top model g in clear. Layout features (claim 3): f is the identity and all weights are L's. Layout
embeddings (claim 4): f is any network of F's, and the error at the cut goes back to it.

    0    both    compare the keyed digest of their rows; L -> F HeldOut, where the job asks for it;
                 F -> L PublicKeys, again whenever a key is used up
    1    F       z = f(its columns)
    2    F -> L  EncryptedEmbedding: one ciphertext per coordinate, rows in slots; a wide batch in several blocks
    3    L       [[a]] = W [[z]] + V x + b, hidden neurons, outputs
    4    L       [[delta]] = p([[u]]) - y, p the loss error's polynomial; y in clear, or encrypted here first
    5,6  L       errors of the neurons, [[G]] for every weight, not yet summed
    7    L -> F  MaskedGradient: the sums over all slots, packed, re-randomised, under a uniform mask
    8    L -> F  EncryptedError (layout embeddings): the cut error, rank-reduced, with noise as the job says
    9    F -> L  OpenedGradient: the masked sums decrypted, with noise
    10   L       takes the mask off, optimiser step
    11   F       (layout embeddings) decrypts the cut error, backward, optimiser step

between two epochs, with split.validation only, the loss on the validation rows:

    1,2  F -> L  PublicKeys of a key of its own; EncryptedEmbedding of these rows
    7    L -> F  MaskedGradient: the sum of squared errors, one for each output
    9    F -> L  OpenedLoss
         L -> F  EpochJudged, with train.stop_early only: whether training goes on

then, once, the held-out rows in blocks (`ckks_scoring`):

    12  L -> F  EncryptedWeights, under a key of the label party
    13  L -> F  EncryptedSlopes (hidden neurons)
    14  F -> L  EncryptedScores

Who learns what. Layout features: F sees pseudo-random words and uniform numbers, and how many steps happen. Layout
embeddings: F also reads an error for every row and step, from which labels can be inferred unless noise hides them, and
with it the top model's gradient. L sees one noisy sum per weight and step, and noisy scores of the held-out rows. The
sums are linear in what F encrypts: with many epochs over few rows L could reconstruct part of it, which is what `rho`
bounds. F opens no value twice, none outside a counted step.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from crypto.ckks import CkksPrivateKey, Masked, PublicMaterial, repeats
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import SLOTS, CkksPreset
from crypto.ckks_sums import EncryptedSums
from crypto.packing import groups_for
from vfl.errors import RemoteProtocolError
from vfl.flow import Flow, receive, report, send
from vfl.messages import EncryptedEmbedding, EncryptedError, MaskedGradient, OpenedGradient, OpenedLoss, PublicKeys
from vfl.models.tensors import floats
from vfl.planning.training import cut_width, opened_per_step, output_sums, preset_of
from vfl.protocols.checkpoints import Progress
from vfl.protocols.ckks_blocks import StepBlocks, step_of
from vfl.protocols.ckks_scoring import opens_scores, scores_rows, scoring_blocks, summed
from vfl.protocols.feature_side import FeatureSide, end_epoch
from vfl.protocols.label_side import Floats, LabelSide, judge_epoch
from vfl.protocols.peer_bytes import attributed_to
from vfl.protocols.same_rows import agree_on_rows
from vfl.reports import Outcome, Remark, StepDone
from vfl.schedule import Batch, blocks
from vfl.setup import Setup
from vfl.spec.joined_rows import TrainingRole
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec


class KeyOwner:
    """Makes the feature party's keys, each for the values it may open."""

    def __init__(self, spec: TrainingSpec) -> None:
        self._values_per_key = spec.ckks.values_per_key
        self._operations: list[Counter[str]] = []
        """Of each key; a key itself is kept no longer than it opens anything."""
        self._keys = 0

    def fresh(self, values: int, preset: CkksPreset) -> tuple[CkksPrivateKey, PublicKeys]:
        key = CkksPrivateKey(preset, self._values_per_key)
        self._operations.append(key.operations)
        self._keys += 1
        return key, PublicKeys(*key.public_material(values))

    def counts(self, operations: Counter[str]) -> None:
        """From now on, operations of scoring too."""
        self._operations.append(operations)

    def operations(self) -> dict[str, int]:
        return summed(self._operations) | {"make key": self._keys}


class EncryptedBlock(NamedTuple):
    """Part of a batch as the feature party sends it; `keys` when it is the first one under a fresh key."""

    batch: Batch
    key: CkksPrivateKey
    keys: PublicKeys | None
    embedding: EncryptedEmbedding
    last: bool
    """Of its batch."""


def feature_party(setup: Setup[TrainingSpec]) -> Flow[Outcome]:
    setup = yield from agree_on_rows(setup)  # 0
    label, side, learns = setup.only(TrainingRole.LABEL), FeatureSide(setup), setup.spec.model.layout == "embeddings"
    groups, owner = groups_for(opened_per_step(setup.spec)), KeyOwner(setup.spec)
    progress = Progress(setup, side)

    encrypted, prepared = encrypted_blocks(setup, side, owner, progress.batches()), None
    while (block := prepared or next(encrypted, None)) is not None:
        (step, steps, epoch, last_of_epoch, rows), prepared = block.batch, None
        goes_on = True
        if block.keys is not None:
            yield from send(label, block.keys)  # 0
        yield from send(label, block.embedding)  # 2
        if not block.last:
            continue
        if not learns:  # nothing it hears of this step changes what it sends: it encrypts on while the other side works
            prepared = next(encrypted, None)
        masked = yield from receive(MaskedGradient, label, step)  # 7
        with attributed_to(label):
            sums = Masked(masked.packed, masked.masked)
            opened = block.key.open(sums, groups, output_sums(setup.spec), len(blocks(rows, SLOTS)))
        yield from send(label, OpenedGradient(step, opened))  # 9
        if learns:
            cut_errors = []
            for part in blocks(rows, SLOTS):
                cut = yield from receive(EncryptedError, label, step)  # 8
                cut_errors.append(_cut_error(setup, block.key, cut, len(part)))
            side.backward(cut_errors, epoch)  # 11
        yield from report(StepDone(step, steps, epoch))
        if last_of_epoch:
            goes_on = yield from _end_epoch(setup, side, owner, epoch)
        yield from progress.reached(block.batch, owner.operations(), goes_on=goes_on)
        if not goes_on:
            break
    side.keep_best()

    yield from report(Remark("opening scores of the held-out rows for the label party"))
    open_scores = yield from opens_scores(setup.spec, label, owner.counts)  # 12
    for number, rows in enumerate(scoring_blocks(setup.spec, setup.test_rows), 1):
        yield from open_scores(number, side.embed(rows))  # 12 to 14
    return side.outcome(progress.operations(owner.operations()))


def encrypted_blocks(
    setup: Setup[TrainingSpec], side: FeatureSide, owner: KeyOwner, batches: Iterable[Batch]
) -> Iterator[EncryptedBlock]:
    """These batches in turn, block by block, encrypted when asked for, so that one block is held at a time.

    A fresh key comes whenever the last could not open another step.
    """
    key: CkksPrivateKey | None = None
    steps_left = 0
    for batch in batches:
        keys = None
        if key is None or steps_left == 0:
            key, keys = owner.fresh(opened_per_step(setup.spec), preset_of(setup.spec))
            steps_left = _steps_per_key(setup)
        steps_left -= 1
        parts = blocks(batch.rows, SLOTS)
        times = repeats(max(map(len, parts)))
        for number, rows in enumerate(parts, 1):
            embedding = EncryptedEmbedding(batch.step, key.encrypt_rows(side.forward(rows), times, setup.pool))
            yield EncryptedBlock(batch, key, keys, embedding, last=number == len(parts))
            keys = None


def label_party(setup: Setup[TrainingSpec]) -> Flow[Outcome]:
    setup = yield from agree_on_rows(setup)  # 0
    feature, side, preset = setup.only(TrainingRole.FEATURE), LabelSide(setup), preset_of(setup.spec)
    width, values = setup.spec.embedding_width(feature), opened_per_step(setup.spec)
    learns = setup.spec.model.layout == "embeddings"
    used: list[Counter[str]] = []
    progress = Progress(setup, side)

    for taken, batch in enumerate(progress.batches()):
        step, steps, epoch, last_of_epoch, rows = batch
        if taken % _steps_per_key(setup) == 0:
            ckks, material = yield from _public_key(feature, preset, values)  # 0
            used.append(ckks.operations)
        parts, basis = blocks(rows, SLOTS), side.cut_basis() if learns else np.zeros((0, width))
        mixing = side.top.embedding_weights @ basis.T
        of_step = step_of(preset, values, material, side.top, mixing, side.cut_deviation)
        work, times = StepBlocks(setup.pool, of_step, ckks, len(parts)), repeats(max(map(len, parts)))
        for part in parts:
            encrypted = yield from receive(EncryptedEmbedding, feature, step)  # 2
            with attributed_to(feature):
                ckks.check_seeds(encrypted.columns, width)
                work.give(encrypted.columns, times, *side.trained_on(part))
        with attributed_to(feature):
            summed_step = work.summed()  # 3 to 6
        used.append(summed_step.operations)
        masked, mask = ckks.mask_packed(summed_step.packed)
        yield from send(feature, MaskedGradient(step, *masked))  # 7
        for cut_error in summed_step.cut_errors if learns else ():
            yield from send(feature, EncryptedError(step, basis.astype("<f8").tobytes(), cut_error))  # 8
        ckks.prepare_zeros(len(groups_for(values)))  # for the next step, while the feature party opens this one
        opened = yield from receive(OpenedGradient, feature, step)  # 9
        with attributed_to(feature):
            gradients = mask.remove(opened.values)
        side.update(gradients, rows, step)  # 10
        yield from report(StepDone(step, steps, epoch, side.dropped))
        goes_on = True
        if last_of_epoch:
            if setup.spec.is_validated(epoch):
                used.append((yield from _sum_squares(setup, side, epoch)))
            goes_on = yield from judge_epoch(setup, side, epoch)
        yield from progress.reached(batch, summed(used), goes_on=goes_on)
        if not goes_on:
            break
    side.keep_best()

    yield from report(Remark("evaluating on the held-out rows"))
    scores, score = [], (yield from scores_rows(setup.spec, side.top, feature))  # 12
    for number, rows in enumerate(scoring_blocks(setup.spec, setup.test_rows), 1):
        scored = yield from score(number, side.own(rows))  # 12 to 14
        scores.append(scored.scores)
        used.append(scored.operations)
    return side.outcome(np.concatenate(scores), progress.operations(summed(used)))


def _end_epoch(setup: Setup[TrainingSpec], side: FeatureSide, owner: KeyOwner, epoch: int) -> Flow[bool]:
    """Whether training goes on."""
    if setup.spec.is_validated(epoch):
        yield from _open_loss(setup, side, owner, epoch)
    return (yield from end_epoch(setup, side, epoch))


def _open_loss(setup: Setup[TrainingSpec], side: FeatureSide, owner: KeyOwner, epoch: int) -> Flow[None]:
    """Steps 1, 2, 7 and 9 on the validation rows, under a key of their own that opens one sum for each output."""
    label, groups = setup.only(TrainingRole.LABEL), groups_for(setup.spec.outputs)
    key, keys = owner.fresh(setup.spec.outputs, preset_of(setup.spec))
    yield from send(label, keys)
    parts = blocks(setup.validation_rows, SLOTS)
    times = repeats(max(map(len, parts)))
    for rows in parts:
        yield from send(label, EncryptedEmbedding(epoch, key.encrypt_rows(side.embed(rows), times, setup.pool)))
    masked = yield from receive(MaskedGradient, label, epoch)
    with attributed_to(label):
        opened = key.open(Masked(masked.packed, masked.masked), groups, blocks=len(parts))
    yield from send(label, OpenedLoss(epoch, opened))


def _sum_squares(setup: Setup[TrainingSpec], side: LabelSide, epoch: int) -> Flow[Counter[str]]:
    """The other side of it, which measures the loss. Returns the operations."""
    feature, outputs = setup.only(TrainingRole.FEATURE), setup.spec.outputs
    width, parts = setup.spec.embedding_width(feature), blocks(setup.validation_rows, SLOTS)
    ckks, _ = yield from _public_key(feature, preset_of(setup.spec), outputs)
    squares = EncryptedSums(outputs)
    for rows in parts:
        encrypted = yield from receive(EncryptedEmbedding, feature, epoch)
        with attributed_to(feature):
            embedding = ckks.load(encrypted.columns, width, len(rows), repeats(max(map(len, parts))))
        ckks.add_products(squares, side.squared_errors(ckks, embedding, rows))
    masked, mask = ckks.mask_sums(squares)
    yield from send(feature, MaskedGradient(epoch, *masked))
    opened = yield from receive(OpenedLoss, feature, epoch)
    with attributed_to(feature):
        sums = mask.remove(opened.values)
    side.measure(epoch, sums)
    return ckks.operations


def _cut_error(setup: Setup[TrainingSpec], key: CkksPrivateKey, cut: EncryptedError, rows: int) -> Floats:
    """Step 11: the cut error of one block, rows x embedding."""
    label, rank, width = (
        setup.only(TrainingRole.LABEL),
        cut_width(setup.spec, setup.me),
        setup.spec.embedding_width(setup.me),
    )
    basis = floats(cut.basis, rank, width)
    if basis is None or not np.allclose(basis @ basis.T, np.eye(rank), atol=1e-6):
        raise RemoteProtocolError(f"{label} sent a basis that is not {rank} orthonormal rows of {width}")
    with attributed_to(label):
        return key.decrypt_cut(cut.columns, rank, rows) @ basis


def _public_key(feature: PartyId, preset: CkksPreset, values: int) -> Flow[tuple[CkksPublicKey, PublicMaterial]]:
    keys = yield from receive(PublicKeys, feature)
    material = PublicMaterial(keys.public, keys.relinearise, keys.packing)
    with attributed_to(feature):
        ckks = CkksPublicKey(preset, material, values)
    ckks.prepare_zeros(len(groups_for(values)))  # while the feature party encrypts
    return ckks, material


def _steps_per_key(setup: Setup[TrainingSpec]) -> int:
    return setup.spec.ckks.values_per_key // opened_per_step(setup.spec)


ROLES = {TrainingRole.FEATURE: feature_party, TrainingRole.LABEL: label_party}
