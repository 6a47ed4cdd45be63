"""Rows scored on ciphertexts: steps 12 to 14 of `ckks_training`, of held-out rows as of new ones.

The label party encrypts the weights of its top model once, under a key of its own, and alone reads the scores:

    12  L -> F  EncryptedWeights
    13  L -> F  EncryptedSlopes, for each block of rows; only of a top model with hidden neurons
    14  F -> L  EncryptedScores, for each block of rows
"""

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crypto.encrypted_quadratics import EncryptedQuadratics, QuadraticKey
from crypto.encrypted_weights import EncryptedWeights as Weights
from crypto.encrypted_weights import WeightsKey
from crypto.scoring_keys import ScoreBlock, WeightMaterial
from vfl.flow import Flow, receive, send
from vfl.messages import EncryptedScores, EncryptedSlopes, EncryptedWeights
from vfl.models.scorer import Scorer
from vfl.planning.traffic import evaluation_rows
from vfl.protocols.peer_bytes import attributed_to
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


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


def opens_scores(spec: TrainingSpec, label: PartyId, count: Callable[[Counter[str]], None]) -> Flow[OpenScores]:
    """How the feature party opens scores from now on, once the weights have come. `count` is given its operations."""
    (feature,) = spec.roster.features
    width = spec.embedding_width(feature)
    received = yield from receive(EncryptedWeights, label)  # 12
    material = WeightMaterial(received.public, received.weights)
    with attributed_to(label):
        if spec.hidden:
            quadratics = EncryptedQuadratics(material, width, spec.outputs)
            count(quadratics.operations)
            return partial(_send_network_scores, quadratics, label)
        weights = Weights(material, width, spec.outputs)
    count(weights.operations)
    return partial(_send_scores, weights, label)


def scores_rows(spec: TrainingSpec, scorer: Scorer, feature: PartyId) -> Flow[Score]:
    """How the label party has rows scored from now on, once the weights are sent."""
    if spec.hidden:
        network_key = QuadraticKey(spec.embedding_width(feature))
        yield from send(feature, EncryptedWeights(*network_key.encrypt(scorer.square_weights)))  # 12
        return partial(_read_network_scores, network_key, scorer, feature)
    key = WeightsKey()
    yield from send(feature, EncryptedWeights(*key.encrypt(scorer.embedding_weights)))  # 12
    return partial(_read_scores, key, scorer, feature)


def _send_scores(weights: Weights, label: PartyId, number: int, embedding: Floats) -> Flow[None]:
    yield from send(label, EncryptedScores(number, *weights.scores(embedding)))  # 14


def _read_scores(key: WeightsKey, scorer: Scorer, feature: PartyId, number: int, own: Floats) -> Flow[Scored]:
    sent = yield from receive(EncryptedScores, feature, number)  # 14
    before = key.operations.copy()
    with attributed_to(feature):
        scores = key.read(ScoreBlock(sent.polynomials, sent.coefficients), len(own), scorer.shape.outputs)
    return Scored(scores + scorer.own_part(own), key.operations - before)


def _send_network_scores(quadratics: EncryptedQuadratics, label: PartyId, number: int, embedding: Floats) -> Flow[None]:
    received = yield from receive(EncryptedSlopes, label, number)  # 13
    with attributed_to(label):
        scores = quadratics.scores(embedding, received.slopes)
    yield from send(label, EncryptedScores(number, *scores))  # 14


def _read_network_scores(key: QuadraticKey, scorer: Scorer, feature: PartyId, number: int, own: Floats) -> Flow[Scored]:
    before = key.operations.copy()
    yield from send(feature, EncryptedSlopes(number, key.encrypt_slopes(scorer.slopes(own))))  # 13
    sent = yield from receive(EncryptedScores, feature, number)  # 14
    with attributed_to(feature):
        scores = key.read(ScoreBlock(sent.polynomials, sent.coefficients), len(own), scorer.shape.outputs)
    constants = scorer.scores(np.zeros((len(own), scorer.shape.embedding)), own)
    return Scored(scores + constants, key.operations - before)


def summed(counters: Iterable[Counter[str]]) -> dict[str, int]:
    return dict(sorted(sum(counters, Counter[str]()).items()))
