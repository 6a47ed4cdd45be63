"""Encrypted training under CKKS, layout features, top model linear (US12585915B2 claim 3; encrypted-training.md 2).

Feature party F owns the columns z and the secret key, label party L owns labels y, own columns x and every weight W.

    0   both    compare the keyed digest of their rows; F -> L PublicKeys, again whenever a key is used up
    1   F       z standardised and bounded
    2   F -> L  EncryptedEmbedding: one ciphertext per column, rows in slots
    3   L       [[a]] = W [[z]] + V x + b
    4   L       [[delta]] = p([[a]]) - y, p the loss error's polynomial
    5,6 L       [[G]] = [[delta]] * (z, x, 1) for every weight, not yet summed
    7   L -> F  MaskedGradient: the sums over all slots, packed, re-randomised, under a uniform mask
    9   F -> L  OpenedGradient: the masked sums decrypted, with noise
    10  L       takes the mask off, optimiser step

then, once, held-out rows as coefficients in blocks, each under a key of its own:

    11  F -> L  PublicKeys, EncryptedEvaluation
    12  L -> F  MaskedScores
    13  F -> L  OpenedScores

Who learns what: F sees pseudo-random words and uniform numbers, and how many steps happen. L sees one noisy sum per
weight and step, and noisy scores of the held-out rows. The sums are linear in F's columns: with many epochs over few
rows L could reconstruct part of them, which is what `rho` bounds. F opens no value twice, none outside a counted step.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from crypto.ckks import CkksPrivateKey, Masked, PublicMaterial, score_groups
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import RING_DEGREE, CkksPreset
from crypto.errors import CryptoError
from crypto.packing import groups_for
from vfl.errors import LocalProtocolError, RemoteProtocolError
from vfl.flow import Flow, receive, report, send
from vfl.job import PartyId, Role
from vfl.messages import (
    EncryptedEmbedding,
    EncryptedEvaluation,
    MaskedGradient,
    MaskedScores,
    OpenedGradient,
    OpenedScores,
    PublicKeys,
)
from vfl.models.polynomial import save_tensors
from vfl.planner import Plan, plan
from vfl.protocols import Protocol
from vfl.protocols.label_side import Floats, LabelSide
from vfl.protocols.same_rows import same_rows
from vfl.reports import EpochDone, Outcome, Progress, StepDone
from vfl.scaling import Scaling
from vfl.schedule import Batch
from vfl.setup import Setup


class EncryptedStep(NamedTuple):
    """A batch as the feature party sends it; `keys` when it is the first one under a fresh key."""

    batch: Batch
    key: CkksPrivateKey
    keys: PublicKeys | None
    embedding: EncryptedEmbedding


def feature_party(setup: Setup) -> Flow[Outcome]:
    yield from same_rows(setup)  # 0
    label, scaling = setup.only(Role.LABEL), Scaling.fit(setup.table.columns[setup.training_rows])
    columns = scaling.apply(setup.table.columns)  # 1
    state = save_tensors({"scaling.mean": scaling.mean, "scaling.deviation": scaling.deviation})
    groups, owner = groups_for(_plan(setup).opened_per_step), KeyOwner(setup)

    following = owner.steps(columns)
    current: EncryptedStep | None = next(following)
    while current is not None:
        step, steps, epoch, last_of_epoch, _ = current.batch
        if current.keys is not None:
            yield from send(label, current.keys)  # 0
        yield from send(label, current.embedding)  # 2
        key, current = current.key, next(following, None)  # encrypts the next batch while the label party works
        masked = yield from receive(MaskedGradient, label, step)  # 7
        with blaming(label):
            opened = key.open(Masked(masked.packed, masked.masked), groups)
        yield from send(label, OpenedGradient(step, opened))  # 9
        yield from report(StepDone(step, steps, epoch))
        if last_of_epoch:
            yield from report(EpochDone(epoch, setup.spec.train.epochs, state))

    yield from report(Progress("opening scores of the held-out rows for the label party"))
    for block, rows in enumerate(_evaluation_blocks(setup), 1):
        key, keys = owner.fresh(0)
        yield from send(label, keys)  # 11
        yield from send(label, EncryptedEvaluation(block, key.encrypt_coefficients(columns[rows])))
        asked = yield from receive(MaskedScores, label, block)  # 12
        with blaming(label):
            opened = key.open(Masked(asked.packed, asked.masked), score_groups(len(rows), setup.spec.outputs))
        yield from send(label, OpenedScores(block, opened))  # 13
    return Outcome(state, {}, owner.operations())


class KeyOwner:
    """Makes the feature party's keys, each for the values it may open, and what is encrypted under them."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._values = _plan(setup).opened_per_step
        self._keys: list[CkksPrivateKey] = []

    def fresh(self, values: int) -> tuple[CkksPrivateKey, PublicKeys]:
        key = CkksPrivateKey(_preset(self._setup), self._setup.spec.encryption.values_per_key)
        self._keys.append(key)
        return key, PublicKeys(*key.public_material(values))

    def steps(self, columns: Floats) -> Iterator[EncryptedStep]:
        """Every batch in turn, encrypted when asked for; a fresh key whenever the last could not open another."""
        key: CkksPrivateKey | None = None
        steps_left = 0
        for batch in self._setup.batches():
            keys = None
            if key is None or steps_left == 0:
                key, keys = self.fresh(self._values)
                steps_left = _steps_per_key(self._setup)
            steps_left -= 1
            yield EncryptedStep(batch, key, keys, EncryptedEmbedding(batch.step, key.encrypt_rows(columns[batch.rows])))

    def operations(self) -> dict[str, int]:
        return _summed([key.operations for key in self._keys]) | {"make key": len(self._keys)}


def label_party(setup: Setup) -> Flow[Outcome]:
    yield from same_rows(setup)  # 0
    feature, side, preset = setup.only(Role.FEATURE), LabelSide(setup), _preset(setup)
    width, values, used = len(setup.spec.data[feature].columns), _plan(setup).opened_per_step, []

    for step, steps, epoch, last_of_epoch, rows in setup.batches():
        if (step - 1) % _steps_per_key(setup) == 0:
            ckks = yield from _public_key(feature, preset, values)  # 0
            used.append(ckks.operations)
        sent = yield from receive(EncryptedEmbedding, feature, step)  # 2
        with blaming(feature):
            embedding = ckks.load(sent.columns, width, len(rows))
        errors = side.top.loss_error(ckks, embedding, side.own[rows], side.targets[rows])  # 3, 4
        gradients = side.top.row_gradients(ckks, embedding, side.own[rows], errors)  # 5, 6
        masked, mask = ckks.mask_sums(gradients)
        yield from send(feature, MaskedGradient(step, *masked))  # 7
        ckks.prepare_zeros(len(groups_for(values)))  # for the next step, while the feature party opens this one
        opened = yield from receive(OpenedGradient, feature, step)  # 9
        with blaming(feature):
            sums = mask.remove(opened.values)
        side.top.update(sums, len(rows), step)  # 10
        yield from report(StepDone(step, steps, epoch))
        if last_of_epoch:
            yield from report(EpochDone(epoch, setup.spec.train.epochs, side.state()))

    yield from report(Progress("evaluating on the held-out rows"))
    scores = []
    for block, rows in enumerate(_evaluation_blocks(setup), 1):
        ckks = yield from _public_key(feature, preset, 0)  # 11
        used.append(ckks.operations)
        held_out = yield from receive(EncryptedEvaluation, feature, block)
        with blaming(feature):
            embedding = ckks.load(held_out.columns, width, len(rows))
        masked, mask = ckks.mask_scores(ckks.scores(embedding, side.top.embedding_weights))
        yield from send(feature, MaskedScores(block, *masked))  # 12
        opened_scores = yield from receive(OpenedScores, feature, block)  # 13
        with blaming(feature):
            feature_part = mask.remove(opened_scores.values).reshape(setup.spec.outputs, -1).T
        scores.append(feature_part + side.top.own_part(side.own[rows]))
    return side.outcome(np.concatenate(scores), _summed(used))


def _public_key(feature: PartyId, preset: CkksPreset, values: int) -> Flow[CkksPublicKey]:
    keys = yield from receive(PublicKeys, feature)
    with blaming(feature):
        ckks = CkksPublicKey(preset, PublicMaterial(keys.public, keys.relinearise, keys.packing), values)
    ckks.prepare_zeros(len(groups_for(values)) if values else 0)  # while the feature party encrypts
    return ckks


def _evaluation_blocks(setup: Setup) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """The held-out rows in blocks whose scores one key may open."""
    rows = min(RING_DEGREE, setup.spec.encryption.values_per_key // setup.spec.outputs)
    return [setup.test_rows[start : start + rows] for start in range(0, len(setup.test_rows), rows)]


def _steps_per_key(setup: Setup) -> int:
    return setup.spec.encryption.values_per_key // _plan(setup).opened_per_step


def _plan(setup: Setup) -> Plan:
    return plan(setup.spec, setup.rows)


def _preset(setup: Setup) -> CkksPreset:
    if setup.preset is None:
        raise LocalProtocolError("an encrypted training needs a preset")
    return setup.preset


def _summed(counters: Iterable[Counter[str]]) -> dict[str, int]:
    return dict(sorted(sum(counters, Counter[str]()).items()))


@contextmanager
def blaming(peer: PartyId) -> Iterator[None]:
    """What the gate refuses was sent by this peer."""
    try:
        yield
    except CryptoError as error:
        raise RemoteProtocolError(f"{peer} sent what an honest party could not: {error}") from error


PROTOCOL = Protocol("ckks_training", {Role.FEATURE: feature_party, Role.LABEL: label_party})
