"""How many inverted rows of each class a client adds to its own, and drawing them (model_inversion.md)."""

import math

import numpy as np
import torch

from vfl.horizontal.model_inversion.inversion import Inverted, Space
from vfl.schedule import philox
from vfl.spec.rounds_settings import ModelInversion

NOISE = 0.01
"""Deviation of what is added to a drawn row, as a share of all values' deviation."""


def missing(counts: list[int], terms: ModelInversion) -> list[int]:
    """Rows wanted of each class. `all` wants `rows_per_class` of the largest class too, and so many more of all."""
    target = math.ceil(terms.balance * max(counts))
    if terms.classes == "all":
        target = max(target, *counts) + terms.rows_per_class
    rows_missing = [max(0, target - count) for count in counts]
    limit = terms.max_ratio * sum(counts)
    if limit and sum(rows_missing) > limit:
        rows_missing = [math.floor(rows * limit / sum(rows_missing)) for rows in rows_missing]
    return rows_missing


def entropy(counts: list[int]) -> float:
    """Of the classes' shares, as a share of the largest there is: 1 where every class has as many rows."""
    shares = np.array([count for count in counts if count]) / max(1, sum(counts))
    return float(-(shares * np.log(shares)).sum() / math.log(len(counts))) + 0.0


def drawn(pool: Inverted, rows_missing: list[int], space: Space, seed: bytes) -> tuple[torch.Tensor, torch.Tensor]:
    """So many rows of each class, with replacement, each moved a little; none of a class the pool has no row of."""
    draws = np.random.Generator(philox(seed, "drawn rows"))
    chosen = [np.zeros(0, np.int64)]
    for label, rows in enumerate(rows_missing):
        of_class = np.flatnonzero(pool.labels.numpy() == label)
        if rows and len(of_class):
            chosen.append(draws.choice(of_class, rows))
    at = torch.from_numpy(np.concatenate(chosen))
    return _moved(pool.inputs[at], space, draws), pool.labels[at]


def _moved(rows: torch.Tensor, space: Space, draws: np.random.Generator) -> torch.Tensor:
    """By a little noise. Shifted by a pixel, a found image is one the model was never asked for (ADR 0010)."""
    if not len(rows):
        return rows
    noise = torch.from_numpy(draws.standard_normal(rows.shape).astype(np.float32))
    return (rows + NOISE * rows.std(unbiased=False) * noise).clamp(space.low, space.high)
