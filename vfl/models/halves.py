"""The two halves of a trained model as they are applied to new rows, each read from the bytes that its owner stored.

What is read is checked against the specification of the training: a half of another model has other names or widths.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vfl.errors import ModelUnfit
from vfl.models.preparation import Preparation, Words
from vfl.models.scaling import Scaling
from vfl.models.scorer import Scorer, Shape
from vfl.models.tensors import load_tensors
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec

Floats = NDArray[np.float64]
Embed = Callable[[Floats], Floats]
"""Prepared columns to what crosses the cut, each rows x columns."""

PREPARATION = "preparation"
"""The tensor of a party's half that says how its columns are prepared: the bytes of a JSON text."""
OF_BOTTOM, OF_TOP, OF_OWN_COLUMNS = "bottom.", "top.", "own_columns."
"""What names of weights begin with."""


@dataclass(frozen=True)
class LabelHalf:
    preparation: Preparation
    scorer: Scorer
    unit: Scaling
    """Of the labels of a regression; scores of classes are taken as they are."""
    own_scorer: Scorer | None
    """Of the model on the party's own columns alone; None where it has none."""

    @classmethod
    def read(cls, spec: TrainingSpec, state: bytes) -> "LabelHalf":
        """Raises ModelUnfit."""
        me, tensors = spec.roster.label, load_tensors(state)
        own = spec.data[me]
        shape = Shape(
            sum(map(spec.embedding_width, spec.roster.features)), own.prepared_width, spec.hidden, spec.outputs
        )
        scorer = _scorer(me, OF_TOP, shape, tensors)
        own_scorer = None
        if own.prepared_width and any(name.startswith(OF_OWN_COLUMNS) for name in tensors):
            own_scorer = _scorer(me, OF_OWN_COLUMNS, shape.without_embedding, tensors)
        unit = Scaling(tensors["labels.mean"], tensors["labels.deviation"])
        return cls(preparation_in(spec, me, tensors), scorer, unit, own_scorer)

    def own(self, columns: Floats, words: Words) -> Floats:
        """The party's own columns of these rows, prepared."""
        return self.preparation.apply(columns, words)

    def own_columns_scores(self, columns: Floats, words: Words) -> Floats:
        """Of the model on the party's own columns alone, rows x outputs, in scaled units. Raises ModelUnfit."""
        if self.own_scorer is None:
            raise ModelUnfit(
                "the half has no model on the label party's own columns alone",
                fix="The label party brings no column in this training, or it ran under a release that fitted none.",
            )
        own = self.own(columns, words)
        return self.own_scorer.scores(np.zeros((len(own), 0)), own)

    def in_units(self, scores: Floats) -> Floats:
        """Scores as they are told: of a regression in the units of its label."""
        return scores * self.unit.deviation + self.unit.mean


@dataclass(frozen=True)
class FeatureHalf:
    preparation: Preparation
    _bottom: Embed | None

    @classmethod
    def read(
        cls, spec: TrainingSpec, me: PartyId, state: bytes, factory: Callable[[int, int], Any] | None = None
    ) -> "FeatureHalf":
        """`factory` makes a bottom of kind `private`. Raises ModelUnfit, InvalidBottom."""
        tensors = load_tensors(state)
        preparation = preparation_in(spec, me, tensors)
        if spec.model.bottom is None:
            return cls(preparation, None)
        from vfl.models.bottoms import trained_bottom  # noqa: PLC0415 - torch, which a model without layers can do without

        weights = {name.removeprefix(OF_BOTTOM): at for name, at in tensors.items() if name.startswith(OF_BOTTOM)}
        return cls(preparation, trained_bottom(spec, me, weights, factory))

    def embed(self, columns: Floats, words: Words) -> Floats:
        """Of these rows, rows x embedding."""
        prepared = self.preparation.apply(columns, words)
        return prepared if self._bottom is None else self._bottom(prepared)


def _scorer(me: PartyId, prefix: str, shape: Shape, tensors: Mapping[str, Any]) -> Scorer:
    for name, due in shape.matrices.items():
        shape_here = tensors[prefix + name].shape if prefix + name in tensors else "none"
        if shape_here != due:
            raise _unfit(me, f"its weights {name!r} are {shape_here}, and {due} were trained")
    return Scorer(shape, {name: tensors[prefix + name] for name in shape.matrices})


def preparation_in(spec: TrainingSpec, me: PartyId, tensors: Mapping[str, Any]) -> Preparation:
    """How the half of this party prepares its columns. Raises ModelUnfit."""
    if PREPARATION not in tensors:
        raise _unfit(me, "it does not say how its columns are prepared")
    try:
        preparation = Preparation.decode(tensors[PREPARATION].tobytes())
    except msgspec.DecodeError as error:
        raise _unfit(me, f"how its columns are prepared cannot be read: {error}") from error
    own = spec.data[me]
    if preparation.names != own.columns or len(preparation.scaling.mean) != own.prepared_width:
        raise _unfit(me, "it prepares other columns than the training names")
    return preparation


def _unfit(me: PartyId, text: str) -> ModelUnfit:
    return ModelUnfit(f"the half of the model that {me} holds is not one of this training: {text}")
