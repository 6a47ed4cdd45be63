"""Rows that enter a model behind one of its blocks, in one batch with rows that enter at its front.

For inverted features without backbone_decoder: real rows train the whole model, features its decoder, and what
normalises there sees both. Each row carries a mark in front: 1 for features. The shorter kind is filled up with zeros.
"""

import math
from collections import OrderedDict

import torch
from torch import nn


class MidNetworkInputs(nn.Sequential):
    """The blocks of a model under their names, sharing its weights, for marked rows."""

    def __init__(self, module: nn.Sequential, cut: str, inputs: tuple[int, ...], features: tuple[int, ...]) -> None:
        super().__init__(OrderedDict(module.named_children()))
        self._behind = list(self._modules).index(cut) + 1
        self._inputs, self._features = inputs, features

    def forward(self, marked: torch.Tensor) -> torch.Tensor:
        enters = marked[:, 0] > 0
        blocks = list(self.children())
        rows = _taken(marked[~enters], self._inputs)
        embeddings = [_taken(marked[enters], self._features)]
        if len(rows):
            here = rows.repeat(2, *[1] * len(self._inputs)) if len(rows) == 1 else rows  # norms need two rows
            for block in blocks[: self._behind]:
                here = block(here)
            embeddings.insert(0, here[: len(rows)])
        scores = torch.cat(embeddings)
        for block in blocks[self._behind :]:
            scores = block(scores)
        order = torch.cat([torch.nonzero(~enters)[:, 0], torch.nonzero(enters)[:, 0]])
        return scores[torch.argsort(order)]


def marked(rows: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Both kinds below each other: (rows + features, 1 + the longer kind's values)."""
    flat = [rows.reshape(len(rows), -1), features.reshape(len(features), -1)]
    out = torch.zeros(len(rows) + len(features), 1 + max(part.shape[1] for part in flat))
    out[len(rows) :, 0] = 1
    out[: len(rows), 1 : 1 + flat[0].shape[1]] = flat[0]
    out[len(rows) :, 1 : 1 + flat[1].shape[1]] = flat[1]
    return out


def _taken(marked: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    return marked[:, 1 : 1 + math.prod(shape)].reshape(-1, *shape)
