"""The terms of model-inversion as a search: where in what travels rows are sought, and how (R2.4)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import nn

from vfl.horizontal.hooks import Examples
from vfl.horizontal.model_inversion.inversion import GENERATOR, Inverted, Search, Space, observe
from vfl.models.local_training import features
from vfl.models.split import cut
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import ModelInversion

FEWEST_KEPT = 0.1
"""Share of inverted rows the filter must keep for the part to act."""

Find: TypeAlias = Callable[[nn.Module, torch.Tensor, Space, Search, bytes, nn.Module | None], Inverted]
"""As `invert`. A benchmark may give one that remembers what it found in the same model."""


@dataclass(frozen=True)
class Inverter:
    """Terms as a search: where and how rows are sought in what travels."""

    spec: RoundsSpec
    terms: ModelInversion
    find: Find

    @property
    def behind(self) -> str:
        """The block behind which rows enter the module that travels; empty where they enter at its front."""
        terms = self.terms
        return terms.cut if terms.space == "features" and self.spec.backbone_decoder is None else ""

    def observed(self, module: nn.Sequential) -> nn.Sequential:
        """With statistics to invert by, where its norms give none or stand in front of where rows enter (R2.4)."""
        if self.terms.space == "inputs" and self.spec.model.norm == "batch":
            return module
        return observe(module, first=self.spec.backbone_decoder is not None)

    def inverted_part(self, module: nn.Sequential) -> nn.Sequential:
        """The module, or its blocks behind the cut."""
        return cut(module, self.behind).decoder if self.behind else module

    def space(self, module: nn.Sequential, rows: torch.Tensor) -> Space:
        """Of what enters; rows are as the module reads them."""
        if self.terms.space == "inputs":
            return Space(tuple(rows.shape[1:]), *self.spec.model.input_bounds)
        backbone, low = self.spec.backbone_decoder, 0.0  # blocks end in a ReLU
        if backbone is not None and backbone.translator:  # which is linear
            low = -math.inf
        read = features(cut(module, self.behind).backbone, rows[:1]) if self.behind else rows
        return Space(tuple(read.shape[1:]), low, math.inf)

    def at_client(self) -> Search:
        return self._search(self.terms.steps)

    def at_aggregator(self) -> Search:
        return self._search(self.terms.server_steps or 100)

    def _search(self, steps: int) -> Search:
        usual = GENERATOR if self.terms.kind == "generator" else Search()
        return replace(
            usual, steps=steps or usual.steps, statistics=self.terms.statistics, confidence=self.terms.confidence
        )


def every_class(rows: int, classes: int) -> torch.Tensor:
    """So many labels, each class as often up to one."""
    return torch.arange(rows) % classes


def labels_of(rows: Examples) -> torch.Tensor:
    if rows.labels is None:
        raise ValueError("the rows of model-inversion need labels")
    return rows.labels
