"""A feature party's trained bottom model, as it embeds new rows."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vfl.errors import InvalidBottom, ModelUnfit
from vfl.models.tabular import build
from vfl.spec.sections import PartyId
from vfl.spec.training import TrainingSpec

Floats = NDArray[np.float64]


def trained_bottom(
    spec: TrainingSpec, me: PartyId, weights: Mapping[str, Floats], factory: Callable[[int, int], Any] | None
) -> Callable[[Floats], Floats]:
    """`factory` makes a bottom of kind `private`. Raises ModelUnfit, InvalidBottom."""
    bottom = spec.model.bottom
    if bottom is None:
        raise ModelUnfit(f"the training names no bottom model, and the half of {me} has one")
    if bottom.kind == "private" and factory is None:
        raise InvalidBottom(
            f"the model has a private bottom model, and {me} names none",
            fix='Name it in party.toml as it was when the model was trained: [bottom] module = "file.py:function".',
        )
    try:
        module = build(bottom, spec.data[me].prepared_width, bytes(32), factory if bottom.kind == "private" else None)
    except Exception as error:
        raise InvalidBottom(f"the bottom model of {me} cannot be made: {type(error).__name__}: {error}") from error
    try:
        module.load_state_dict({name: torch.from_numpy(np.array(each)) for name, each in weights.items()})
    except RuntimeError as error:
        raise ModelUnfit(f"the weights of {me} do not fit its bottom model: {error}") from error
    module.eval()

    def embed(prepared: Floats) -> Floats:
        with torch.no_grad():
            embedding: Floats = module(torch.from_numpy(prepared)).numpy()
        if embedding.shape != (len(prepared), bottom.out):
            raise InvalidBottom(f"the bottom model of {me} gives {embedding.shape} for {len(prepared)} rows")
        return embedding

    return embed
