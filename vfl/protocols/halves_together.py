"""The halves of a trained model in one process, where their owners have brought them together: no message travels."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfl.models.halves import FeatureHalf, LabelHalf
from vfl.setup import Table
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec

Floats = NDArray[np.float64]


def score_together(
    spec: TrainingSpec,
    halves: Mapping[PartyId, bytes],
    tables: Mapping[PartyId, Table],
    bottoms: Mapping[PartyId, Callable[[int, int], Any]] | None = None,
) -> Floats:
    """Rows x outputs, in the units of the label of a regression; `bottoms` make the feature parties' private bottoms.

    Raises ModelUnfit, InvalidBottom.
    """
    made_by = bottoms or {}
    label, own = LabelHalf.read(spec, halves[spec.roster.label]), tables[spec.roster.label]
    embeddings = [
        FeatureHalf.read(spec, feature, halves[feature], made_by.get(feature)).embed(
            tables[feature].columns, tables[feature].words
        )
        for feature in spec.roster.features
    ]
    scores = label.scorer.scores(np.concatenate(embeddings, axis=1), label.own(own.columns, own.words))
    return label.in_units(scores)
