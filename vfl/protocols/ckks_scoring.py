"""Rows scored on ciphertexts: steps 12 to 14 of `ckks_training`, of held-out rows as of new ones.

A linear top model, whose weights the label party encrypts once under a key of its own:

    12  L -> F  EncryptedWeights
    13  F -> L  EncryptedScores, for each block of rows

A top model with hidden neurons, on rows that the feature party encrypts, each block under a key of its own, which opens
the scores of that block and nothing else:

    12  F -> L  PublicKeys, EncryptedEvaluation
    13  L -> F  MaskedScores
    14  F -> L  OpenedScores
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crypto.ckks import CkksPrivateKey, Masked, PublicMaterial, repeats
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import CkksPreset
from crypto.encrypted_weights import EncryptedWeights as Weights
from crypto.encrypted_weights import ScoreBlock, WeightMaterial, WeightsKey
from crypto.errors import CryptoError
from crypto.packing import groups_for
from vfl.errors import RemoteProtocolError
from vfl.flow import Flow, receive, send
from vfl.messages import (
    EncryptedEvaluation,
    EncryptedScores,
    EncryptedWeights,
    MaskedScores,
    OpenedScores,
    PublicKeys,
)
from vfl.models.scorer import Scorer
from vfl.planning.traffic import evaluation_rows
from vfl.planning.training import preset_of
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


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
        """From now on, operations of something else of this party's too."""
        self._operations.append(operations)

    def operations(self) -> dict[str, int]:
        return summed(self._operations) | {"make key": self._keys}


class Scored(NamedTuple):
    scores: Floats
    """rows x outputs, in scaled units; NaN where they left the range of the agreed parameters."""
    operations: Counter[str]


OpenScores = Callable[[int, Floats], Flow[None]]
"""The feature party's side of one block: its number, from 1, and its embedding."""
Score = Callable[[int, Floats], Flow[Scored]]
"""The label party's side of the same block; the second argument are its own columns of these rows, prepared."""


def scoring_blocks(spec: TrainingSpec, rows: Rows) -> list[Rows]:
    """Rows in blocks whose scores travel together."""
    room = evaluation_rows(spec)
    return [rows[start : start + room] for start in range(0, len(rows), room)]


def opens_scores(spec: TrainingSpec, owner: KeyOwner, label: PartyId) -> Flow[OpenScores]:
    """How the feature party opens scores from now on; of a linear model, once the weights have come."""
    if spec.hidden:
        return partial(_open_network, spec, owner, label)
    received = yield from receive(EncryptedWeights, label)  # 12
    with attributed_to(label):
        (feature,) = spec.roster.features
        weights = Weights(
            WeightMaterial(received.public, received.weights), spec.embedding_width(feature), spec.outputs
        )
    owner.counts(weights.operations)
    return partial(_send_scores, weights, label)


def scores_rows(spec: TrainingSpec, scorer: Scorer, feature: PartyId) -> Flow[Score]:
    """How the label party has rows scored from now on; of a linear model, once the weights are sent."""
    if spec.hidden:
        return partial(_score_network, spec, scorer, feature)
    key = WeightsKey()
    yield from send(feature, EncryptedWeights(*key.encrypt(scorer.embedding_weights)))  # 12
    return partial(_read_scores, key, scorer, feature)


def _send_scores(weights: Weights, label: PartyId, number: int, embedding: Floats) -> Flow[None]:
    yield from send(label, EncryptedScores(number, *weights.scores(embedding)))  # 13


def _read_scores(key: WeightsKey, scorer: Scorer, feature: PartyId, number: int, own: Floats) -> Flow[Scored]:
    sent = yield from receive(EncryptedScores, feature, number)  # 13
    before = key.operations.copy()
    with attributed_to(feature):
        scores = key.read(ScoreBlock(sent.polynomials, sent.coefficients), len(own), scorer.shape.outputs)
    return Scored(scores + scorer.own_part(own), key.operations - before)


def _open_network(spec: TrainingSpec, owner: KeyOwner, label: PartyId, number: int, embedding: Floats) -> Flow[None]:
    rows = len(embedding)
    key, keys = owner.fresh(rows * spec.outputs, preset_of(spec).for_evaluation())
    yield from send(label, keys)  # 12
    yield from send(label, EncryptedEvaluation(number, key.encrypt_rows(embedding, repeats(rows))))
    asked = yield from receive(MaskedScores, label, number)  # 13
    with attributed_to(label):
        opened = key.open(Masked(asked.packed, asked.masked), groups_for(rows * spec.outputs))
    yield from send(label, OpenedScores(number, opened))  # 14


def _score_network(spec: TrainingSpec, scorer: Scorer, feature: PartyId, number: int, own: Floats) -> Flow[Scored]:
    rows = len(own)
    ckks = yield from public_key(feature, preset_of(spec).for_evaluation(), rows * spec.outputs)  # 12
    encrypted = yield from receive(EncryptedEvaluation, feature, number)
    with attributed_to(feature):
        embedding = ckks.load(encrypted.columns, spec.embedding_width(feature), rows, repeats(rows))
    masked, mask = ckks.mask_sums(ckks.select_slots(scorer.output(ckks, embedding, own)))
    yield from send(feature, MaskedScores(number, *masked))  # 13
    opened = yield from receive(OpenedScores, feature, number)  # 14
    with attributed_to(feature):
        scores = mask.remove(opened.values).reshape(spec.outputs, -1).T
    return Scored(scores, ckks.operations)


def public_key(feature: PartyId, preset: CkksPreset, values: int) -> Flow[CkksPublicKey]:
    keys = yield from receive(PublicKeys, feature)
    with attributed_to(feature):
        ckks = CkksPublicKey(preset, PublicMaterial(keys.public, keys.relinearise, keys.packing), values)
    ckks.prepare_zeros(len(groups_for(values)))  # while the feature party encrypts
    return ckks


def summed(counters: Iterable[Counter[str]]) -> dict[str, int]:
    return dict(sorted(sum(counters, Counter[str]()).items()))


@contextmanager
def attributed_to(peer: PartyId) -> Iterator[None]:
    """What the gate refuses was sent by this peer."""
    try:
        yield
    except CryptoError as error:
        raise RemoteProtocolError(f"{peer} sent what no honest party sends: {error}") from error
