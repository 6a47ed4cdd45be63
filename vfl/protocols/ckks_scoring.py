"""Rows scored on ciphertexts: steps 12 to 14 of `ckks_training`, of held-out rows as of new ones.

    12  F -> L  PublicKeys, EncryptedEvaluation: rows as coefficients for a linear top model, else in slots
    13  L -> F  MaskedScores
    14  F -> L  OpenedScores

Each block of rows has a key of its own, which opens the scores of that block and nothing else.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crypto.ckks import CkksPrivateKey, Masked, PublicMaterial, repeats, score_groups
from crypto.ckks_evaluator import CkksPublicKey
from crypto.ckks_parameters import CkksPreset
from crypto.errors import CryptoError
from crypto.packing import groups_for
from vfl.errors import RemoteProtocolError
from vfl.flow import Flow, receive, send
from vfl.messages import EncryptedEvaluation, MaskedScores, OpenedScores, PublicKeys
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

    def fresh(self, values: int, preset: CkksPreset) -> tuple[CkksPrivateKey, PublicKeys]:
        key = CkksPrivateKey(preset, self._values_per_key)
        self._operations.append(key.operations)
        return key, PublicKeys(*key.public_material(values))

    def operations(self) -> dict[str, int]:
        return summed(self._operations) | {"make key": len(self._operations)}


class Scored(NamedTuple):
    scores: Floats
    """rows x outputs, in scaled units; NaN where they left the range of the agreed parameters."""
    operations: Counter[str]


def scoring_blocks(spec: TrainingSpec, rows: Rows) -> list[Rows]:
    """Rows in blocks whose scores one key may open."""
    room = evaluation_rows(spec)
    return [rows[start : start + room] for start in range(0, len(rows), room)]


def open_scores(spec: TrainingSpec, owner: KeyOwner, label: PartyId, number: int, embedding: Floats) -> Flow[None]:
    """The feature party's side of one block, the first of which has the number 1."""
    rows, linear = len(embedding), not spec.hidden
    values = 0 if linear else rows * spec.outputs
    key, keys = owner.fresh(values, preset_of(spec).for_evaluation())
    columns = key.encrypt_coefficients(embedding) if linear else key.encrypt_rows(embedding, repeats(rows))
    yield from send(label, keys)  # 12
    yield from send(label, EncryptedEvaluation(number, columns))
    asked = yield from receive(MaskedScores, label, number)  # 13
    with attributed_to(label):
        groups = score_groups(rows, spec.outputs) if linear else groups_for(values)
        opened = key.open(Masked(asked.packed, asked.masked), groups)
    yield from send(label, OpenedScores(number, opened))  # 14


def score(spec: TrainingSpec, scorer: Scorer, feature: PartyId, number: int, own: Floats) -> Flow[Scored]:
    """The label party's side of the same block; `own` are its own columns of these rows, prepared."""
    rows, linear = len(own), not spec.hidden
    values = 0 if linear else rows * spec.outputs
    ckks = yield from public_key(feature, preset_of(spec).for_evaluation(), values)  # 12
    encrypted = yield from receive(EncryptedEvaluation, feature, number)
    with attributed_to(feature):
        width = spec.embedding_width(feature)
        embedding = ckks.load(encrypted.columns, width, rows, 1 if linear else repeats(rows))
    if linear:  # scores stand at coefficients; others are picked from their slots one by one
        masked, mask = ckks.mask_scores(ckks.scores(embedding, scorer.embedding_weights))
    else:
        masked, mask = ckks.mask_sums(ckks.select_slots(scorer.output(ckks, embedding, own)))
    yield from send(feature, MaskedScores(number, *masked))  # 13
    opened = yield from receive(OpenedScores, feature, number)  # 14
    with attributed_to(feature):
        scores = mask.remove(opened.values).reshape(spec.outputs, -1).T
    return Scored(scores + scorer.own_part(own) if linear else scores, ckks.operations)


def public_key(feature: PartyId, preset: CkksPreset, values: int) -> Flow[CkksPublicKey]:
    keys = yield from receive(PublicKeys, feature)
    with attributed_to(feature):
        ckks = CkksPublicKey(preset, PublicMaterial(keys.public, keys.relinearise, keys.packing), values)
    ckks.prepare_zeros(len(groups_for(values)) if values else 0)  # while the feature party encrypts
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
