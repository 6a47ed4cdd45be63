"""Encrypted training under CKKS (US12585915B2; ckks_training.md): two parties, one network, one key owner.

Feature party F owns the columns, its bottom model f and the secret key; label party L owns labels y, columns x of its
own and the top model g in clear. Layout features (claim 3): f is the identity and all weights are L's. Layout
embeddings (claim 4): f is any network of F's, and the error at the cut goes back to it.

    0    both    compare the keyed digest of their rows; L -> F HeldOut, with split.stratify only;
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

then, once, held-out rows in blocks, each under a key of its own:

    12  F -> L  PublicKeys, EncryptedEvaluation: rows as coefficients for a linear top model, else in slots
    13  L -> F  MaskedScores
    14  F -> L  OpenedScores

Who learns what. Layout features: F sees pseudo-random words and uniform numbers, and how many steps happen. Layout
embeddings: F also reads an error for every row and step, from which labels can be inferred unless noise hides them, and
with it the top model's gradient. L sees one noisy sum per weight and step, and noisy scores of the held-out rows. The
sums are linear in what F encrypts: with many epochs over few rows L could reconstruct part of it, which is what `rho`
bounds. F opens no value twice, none outside a counted step.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crypto.ckks import CkksPrivateKey, Masked, PublicMaterial, repeats, score_groups
from crypto.ckks_evaluator import CkksPublicKey, CkksVector, EncryptedSums, Mask
from crypto.ckks_parameters import SLOTS, CkksPreset
from crypto.errors import CryptoError
from crypto.packing import groups_for
from vfl.errors import RemoteProtocolError
from vfl.flow import Flow, receive, report, send
from vfl.messages import (
    EncryptedEmbedding,
    EncryptedError,
    EncryptedEvaluation,
    MaskedGradient,
    MaskedScores,
    OpenedGradient,
    OpenedScores,
    PublicKeys,
)
from vfl.models.polynomial import floats
from vfl.planning.traffic import evaluation_rows
from vfl.planning.training import cut_width, opened_per_step, output_sums, preset_of
from vfl.protocols.feature_side import FeatureSide
from vfl.protocols.label_side import Floats, LabelSide
from vfl.protocols.same_rows import agree_on_rows
from vfl.reports import EpochDone, Outcome, Remark, StepDone
from vfl.schedule import Batch, blocks
from vfl.setup import Setup
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingRole, TrainingSpec


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
    groups, owner = groups_for(opened_per_step(setup.spec)), KeyOwner(setup, side)

    encrypted, prepared = owner.blocks(), None
    while (block := prepared or next(encrypted, None)) is not None:
        (step, steps, epoch, last_of_epoch, rows), prepared = block.batch, None
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
            yield from report(EpochDone(epoch, setup.spec.train.epochs, side.state(), side.measures()))

    yield from report(Remark("opening scores of the held-out rows for the label party"))
    linear = not setup.spec.hidden
    for number, rows in enumerate(_evaluation_blocks(setup), 1):
        values = 0 if linear else len(rows) * setup.spec.outputs
        key, keys = owner.fresh(values, preset_of(setup.spec).for_evaluation())
        embedding = side.embed(rows)
        columns = key.encrypt_coefficients(embedding) if linear else key.encrypt_rows(embedding, repeats(len(rows)))
        yield from send(label, keys)  # 12
        yield from send(label, EncryptedEvaluation(number, columns))
        asked = yield from receive(MaskedScores, label, number)  # 13
        with attributed_to(label):
            groups = score_groups(len(rows), setup.spec.outputs) if linear else groups_for(values)
            opened = key.open(Masked(asked.packed, asked.masked), groups)
        yield from send(label, OpenedScores(number, opened))  # 14
    return side.outcome(owner.operations())


class KeyOwner:
    """Makes the feature party's keys, each for the values it may open, and what is encrypted under them."""

    def __init__(self, setup: Setup[TrainingSpec], side: FeatureSide) -> None:
        self._setup, self._side = setup, side
        self._operations: list[Counter[str]] = []
        """Of each key; a key itself is kept no longer than it opens anything."""

    def fresh(self, values: int, preset: CkksPreset) -> tuple[CkksPrivateKey, PublicKeys]:
        key = CkksPrivateKey(preset, self._setup.spec.ckks.values_per_key)
        self._operations.append(key.operations)
        return key, PublicKeys(*key.public_material(values))

    def blocks(self) -> Iterator[EncryptedBlock]:
        """Every batch in turn, block by block, encrypted when asked for, so that one block is held at a time.

        A fresh key comes whenever the last could not open another step.
        """
        key: CkksPrivateKey | None = None
        steps_left = 0
        for batch in self._setup.batches():
            keys = None
            if key is None or steps_left == 0:
                key, keys = self.fresh(opened_per_step(self._setup.spec), preset_of(self._setup.spec))
                steps_left = _steps_per_key(self._setup)
            steps_left -= 1
            parts = blocks(batch.rows, SLOTS)
            times = repeats(max(map(len, parts)))
            for number, rows in enumerate(parts, 1):
                embedding = EncryptedEmbedding(batch.step, key.encrypt_rows(self._side.forward(rows), times))
                yield EncryptedBlock(batch, key, keys, embedding, last=number == len(parts))
                keys = None

    def operations(self) -> dict[str, int]:
        return _summed(self._operations) | {"make key": len(self._operations)}


def label_party(setup: Setup[TrainingSpec]) -> Flow[Outcome]:
    setup = yield from agree_on_rows(setup)  # 0
    feature, side, preset = setup.only(TrainingRole.FEATURE), LabelSide(setup), preset_of(setup.spec)
    width, values = setup.spec.embedding_width(feature), opened_per_step(setup.spec)
    used: list[Counter[str]] = []

    for step, steps, epoch, last_of_epoch, rows in setup.batches():
        if (step - 1) % _steps_per_key(setup) == 0:
            ckks = yield from _public_key(feature, preset, values)  # 0
            used.append(ckks.operations)
        parts, sums, cut_errors = blocks(rows, SLOTS), EncryptedSums(values), []
        for part in parts:
            encrypted = yield from receive(EncryptedEmbedding, feature, step)  # 2
            with attributed_to(feature):
                embedding = ckks.load(encrypted.columns, width, len(part), repeats(max(map(len, parts))))
            passes = side.passes(ckks, embedding, part)  # 3 to 6
            ckks.add_products(sums, passes.products)
            if setup.spec.model.layout == "embeddings":
                cut_errors.append(_protected_error(ckks, side, passes.joined_errors, step))
        masked, mask = ckks.mask_sums(sums)
        yield from send(feature, MaskedGradient(step, *masked))  # 7
        for cut_error in cut_errors:
            yield from send(feature, cut_error)  # 8
        ckks.prepare_zeros(len(groups_for(values)))  # for the next step, while the feature party opens this one
        opened = yield from receive(OpenedGradient, feature, step)  # 9
        with attributed_to(feature):
            gradients = mask.remove(opened.values)
        side.update(gradients, len(rows), step)  # 10
        yield from report(StepDone(step, steps, epoch, side.dropped))
        if last_of_epoch:
            yield from report(EpochDone(epoch, setup.spec.train.epochs, side.state(), side.top.measures()))

    yield from report(Remark("evaluating on the held-out rows"))
    scores = []
    for number, rows in enumerate(_evaluation_blocks(setup), 1):
        scored = len(rows) * setup.spec.outputs if setup.spec.hidden else 0
        ckks = yield from _public_key(feature, preset.for_evaluation(), scored)  # 12
        used.append(ckks.operations)
        held_out = yield from receive(EncryptedEvaluation, feature, number)
        with attributed_to(feature):
            embedding = ckks.load(held_out.columns, width, len(rows), repeats(len(rows)) if scored else 1)
        masked, mask = _masked_scores(ckks, side, embedding, rows)
        yield from send(feature, MaskedScores(number, *masked))  # 13
        opened_scores = yield from receive(OpenedScores, feature, number)  # 14
        with attributed_to(feature):
            opened_part = mask.remove(opened_scores.values).reshape(setup.spec.outputs, -1).T
        scores.append(opened_part if scored else opened_part + side.top.own_part(side.own(rows)))
    return side.outcome(np.concatenate(scores), _summed(used))


def _protected_error(ckks: CkksPublicKey, side: LabelSide, errors: list[CkksVector], step: int) -> EncryptedError:
    """Step 8: the cut error as coordinates in a basis of what it can be, with the noise the job agreed on."""
    basis = side.cut_basis()
    mixing = side.top.embedding_weights @ basis.T
    columns = ckks.cut_errors(errors, mixing, side.cut_noise(errors[0].rows, len(basis)))
    return EncryptedError(step, basis.astype("<f8").tobytes(), columns)


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


def _masked_scores(
    ckks: CkksPublicKey, side: LabelSide, embedding: list[CkksVector], rows: NDArray[np.int64]
) -> tuple[Masked, Mask]:
    """Step 13. A linear model's scores stand at coefficients; others are picked from their slots one by one."""
    top = side.top
    if not top.shape.hidden:
        return ckks.mask_scores(ckks.scores(embedding, top.embedding_weights))
    return ckks.mask_sums(ckks.select_slots(top.output(ckks, embedding, side.own(rows))))


def _public_key(feature: PartyId, preset: CkksPreset, values: int) -> Flow[CkksPublicKey]:
    keys = yield from receive(PublicKeys, feature)
    with attributed_to(feature):
        ckks = CkksPublicKey(preset, PublicMaterial(keys.public, keys.relinearise, keys.packing), values)
    ckks.prepare_zeros(len(groups_for(values)) if values else 0)  # while the feature party encrypts
    return ckks


def _evaluation_blocks(setup: Setup[TrainingSpec]) -> list[NDArray[np.int64]]:
    """The held-out rows in blocks whose scores one key may open."""
    rows = evaluation_rows(setup.spec)
    return [setup.test_rows[start : start + rows] for start in range(0, len(setup.test_rows), rows)]


def _steps_per_key(setup: Setup[TrainingSpec]) -> int:
    return setup.spec.ckks.values_per_key // opened_per_step(setup.spec)


def _summed(counters: Iterable[Counter[str]]) -> dict[str, int]:
    return dict(sorted(sum(counters, Counter[str]()).items()))


@contextmanager
def attributed_to(peer: PartyId) -> Iterator[None]:
    """What the gate refuses was sent by this peer."""
    try:
        yield
    except CryptoError as error:
        raise RemoteProtocolError(f"{peer} sent what no honest party sends: {error}") from error


ROLES = {TrainingRole.FEATURE: feature_party, TrainingRole.LABEL: label_party}
