"""A party's columns as the numbers a job computes on: fitted on its own training rows, kept with its half of the model.

Every number it gives lies within +-INPUT_BOUND, because under encryption nothing can be clipped later
(ckks_training.md). What is applied to new rows is what was fitted, and nothing of a held-out row enters a fit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from vfl.models.scaling import Scaling
from vfl.notices import Notice
from vfl.spec.preparation import (
    Bins,
    OneHot,
    PreparationStep,
    Quantile,
    Standardise,
    WeightOfEvidence,
    edge_count,
)

Floats = NDArray[np.float64]
Words: TypeAlias = Mapping[int, tuple[str, ...]]
"""By the position of a column of categories: what its codes stand for."""

PART_ROWS = 1 << 16
KNOTS = 200
"""Quantiles that are kept of a column."""
NORMAL_BOUND = 2.5
"""Normal scores beyond it are those of so few rows that they say little else."""
SMOOTHING = 0.5
"""Rows of either label that every bin counts beside its own, so that no logarithm is infinite."""
NAMES_SHOWN = 8
GAP = ""
"""The category of an empty cell."""


class Column(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """One fitted column. `block` gives the numbers it becomes, rows x width, before they are scaled."""

    def block(self, values: Floats, words: tuple[str, ...]) -> Floats:
        raise NotImplementedError


class Filled(Column, frozen=True, kw_only=True, tag="standardise"):
    fill: float | None
    """In place of an empty cell; None where none may be empty."""

    def block(self, values: Floats, words: tuple[str, ...]) -> Floats:  # noqa: ARG002
        if self.fill is None:
            return values[:, None]
        gaps = np.isnan(values)
        return np.column_stack([np.where(gaps, self.fill, values), gaps])


class Quantiles(Filled, frozen=True, kw_only=True, tag="quantile"):
    knots: tuple[float, ...]
    """Values at even shares of the training rows, ascending."""

    def block(self, values: Floats, words: tuple[str, ...]) -> Floats:
        from scipy.special import ndtri  # noqa: PLC0415 - as long to load as all else that a worker starts with

        block: Floats = Filled.block(self, values, words).astype(np.float64)
        knots, shares = np.array(self.knots), np.linspace(0, 1, len(self.knots))
        # Where a value repeats, it stands in the middle of its shares.
        lower = np.interp(block[:, 0], knots, shares)
        upper = 1 - np.interp(-block[:, 0], -knots[::-1], shares)
        lower, upper = np.clip(lower, 0, 1), np.clip(upper, 0, 1)  # infinite between knots closer than 1e-308
        with np.errstate(divide="ignore"):
            block[:, 0] = np.clip(ndtri((lower + upper) / 2), -NORMAL_BOUND, NORMAL_BOUND)
        return block


class Categories(Column, frozen=True, kw_only=True, tag="one_hot"):
    named: tuple[str, ...]
    width: int

    def block(self, values: Floats, words: tuple[str, ...]) -> Floats:
        places = _places(values, words, self.named)
        block: Floats = (places[:, None] == np.arange(self.width)).astype(np.float64)
        return block


class Edges(Column, frozen=True, kw_only=True, tag="bins"):
    edges: tuple[float, ...]
    gaps: bool

    def block(self, values: Floats, words: tuple[str, ...]) -> Floats:  # noqa: ARG002
        above = (values[:, None] >= np.array(self.edges)).astype(np.float64)
        return np.column_stack([above, np.isnan(values)]) if self.gaps else above


class Evidence(Column, frozen=True, kw_only=True, tag="weight_of_evidence"):
    edges: tuple[float, ...]
    """Of numbers; empty for categories."""
    named: tuple[str, ...]
    """Categories with a weight of their own; of numbers the bins, by their number."""
    weights: tuple[float, ...]
    """Of each of them, then of all others together."""

    def block(self, values: Floats, words: tuple[str, ...]) -> Floats:
        places = _places(*_binned(values, words, self.edges), self.named)
        weights: Floats = np.array(self.weights)
        return weights[places, None]


AnyColumn: TypeAlias = Filled | Quantiles | Categories | Edges | Evidence


class _Kept(msgspec.Struct, frozen=True):
    """As it stands in a model's file."""

    names: tuple[str, ...]
    columns: tuple[AnyColumn, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


@dataclass(frozen=True)
class Preparation:
    """Fitted columns in the order of the specification, and what scales the numbers that they become."""

    names: tuple[str, ...]
    columns: tuple[AnyColumn, ...]
    scaling: Scaling
    gaps: tuple[int, ...] = ()
    """Training rows without a value, by column; not kept."""

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        steps: Sequence[PreparationStep],
        values: Floats,
        rows: NDArray[np.int64],
        words: Words,
        labels: Floats | None = None,
    ) -> "Preparation":
        """On these rows alone, the training rows, one column at a time; `labels` of all rows, where a step needs them.

        `values` are rows x columns, and may be a file that is mapped into memory.
        """
        columns, gaps, means, deviations = [], [], [np.zeros(0)], [np.zeros(0)]
        for at, step in enumerate(steps):
            own, known_words = np.asarray(values[rows, at]), words.get(at, ())
            column = _fitted(step, own, known_words, None if labels is None else labels[rows])
            mean, deviation = _moments(column, own, known_words)
            columns.append(column)
            gaps.append(int(np.isnan(own).sum()))
            means.append(mean)
            deviations.append(deviation)
        scaling = Scaling.of(np.concatenate(means), np.concatenate(deviations))
        return cls(tuple(names), tuple(columns), scaling, tuple(gaps))

    def apply(self, values: Floats, words: Words) -> Floats:
        """The numbers of these rows, rows x width."""
        return self.scaling.apply(_blocks(self.columns, values, words))

    def encode(self) -> bytes:
        """JSON, UTF-8."""
        stored = _Kept(
            self.names,
            self.columns,
            tuple(map(float, self.scaling.mean)),
            tuple(map(float, self.scaling.deviation)),
        )
        return msgspec.json.encode(stored)

    @classmethod
    def decode(cls, data: bytes) -> "Preparation":
        """Raises msgspec.DecodeError."""
        stored = msgspec.json.decode(data, type=_Kept)
        return cls(stored.names, stored.columns, Scaling(np.array(stored.mean), np.array(stored.deviation)))

    def notices(self) -> Iterator[Notice]:
        """What was made of the training rows, for the owner."""
        for name, column, gaps in zip(self.names, self.columns, self.gaps, strict=True):
            if isinstance(column, Filled) and column.fill is not None:
                text = (
                    f"{gaps:,} empty cells of {name!r} are filled with the median of the training rows, {column.fill:g}"
                )
                yield Notice("note", "gaps_filled", text)
            if isinstance(column, Categories):
                yield Notice("note", "categories", f"{name!r} has a column for {_listed(column, column.named)}")


def _listed(column: Categories, named: tuple[str, ...]) -> str:
    shown = ", ".join(repr(word) if word else "an empty cell" for word in named[:NAMES_SHOWN]) or "no category"
    more = f" and {len(named) - NAMES_SHOWN} more" if len(named) > NAMES_SHOWN else ""
    unused = column.width - len(named)
    return f"{shown}{more}; all others share none" + (f", and {unused} of its columns are empty" if unused else "")


def _blocks(columns: Sequence[AnyColumn], values: Floats, words: Words) -> Floats:
    blocks = [column.block(values[:, at], words.get(at, ())) for at, column in enumerate(columns)]
    return np.concatenate(blocks, axis=1) if blocks else np.zeros((len(values), 0))


def _moments(column: AnyColumn, values: Floats, words: tuple[str, ...]) -> tuple[Floats, Floats]:
    """Mean and deviation of the numbers that a column becomes, some rows at a time."""
    parts = [values[start : start + PART_ROWS] for start in range(0, len(values), PART_ROWS)]
    mean: Floats = sum((column.block(part, words).sum(axis=0) for part in parts), start=np.zeros(1)) / len(values)
    squares = sum((np.square(column.block(part, words) - mean).sum(axis=0) for part in parts), start=np.zeros(1))
    low = np.min([column.block(part, words).min(axis=0) for part in parts], axis=0)
    high = np.max([column.block(part, words).max(axis=0) for part in parts], axis=0)
    # The mean of equal numbers may be another one by rounding.
    return mean, np.where(low == high, 0.0, np.sqrt(squares / len(values)))


def _fitted(step: PreparationStep, values: Floats, words: tuple[str, ...], labels: Floats | None) -> AnyColumn:
    match step:
        case Quantile():
            there = values[~np.isnan(values)]
            shares = np.linspace(0, 1, min(KNOTS, max(2, len(there))))
            knots = tuple(map(float, np.quantile(there, shares))) if len(there) else (0.0, 0.0)
            return Quantiles(fill=_median(step, values), knots=knots)
        case Standardise():
            return Filled(fill=_median(step, values))
        case OneHot():
            counts = _counts(values, words, step.least_rows)
            return Categories(named=tuple(word for word, _ in counts[: step.categories]), width=step.categories)
        case Bins():
            return Edges(edges=_edges(step.edges, values), gaps=step.missing == "own_bin")
        case WeightOfEvidence():
            return _evidence(step, values, words, labels)


def _median(step: Standardise, values: Floats) -> float | None:
    if not step.takes_gaps:
        return None
    there = values[~np.isnan(values)]
    return float(np.median(there)) if len(there) else 0.0


def _edges(edges: int | tuple[float, ...], values: Floats) -> tuple[float, ...]:
    """Given, or at even shares of the values; two of them may be one where a value repeats often."""
    if not isinstance(edges, int):
        return edges
    there = values[~np.isnan(values)]
    shares = np.linspace(0, 1, edges + 2)[1:-1]
    return tuple(map(float, np.quantile(there, shares))) if len(there) else (0.0,) * edges


def _counts(values: Floats, words: tuple[str, ...], least: int) -> list[tuple[str, int]]:
    """Categories of at least so many rows, the most frequent first; of equals the first by its letters."""
    codes = np.where(np.isnan(values), len(words), values).astype(np.int64)
    counts = np.bincount(codes, minlength=len(words) + 1)
    frequent = [(word, int(count)) for word, count in zip((*words, GAP), counts, strict=True) if count >= least]
    return sorted(frequent, key=lambda each: (-each[1], each[0]))


def _places(values: Floats, words: tuple[str, ...], named: tuple[str, ...]) -> NDArray[np.int64]:
    """Of each row, the place of its category among those that are named, or behind them."""
    at = {word: place for place, word in enumerate(named)}
    places = np.array([at.get(word, -1) for word in (*words, GAP)], np.int64)
    codes = np.where(np.isnan(values), len(words), values).astype(np.int64)
    return places[codes]


def _binned(values: Floats, words: tuple[str, ...], edges: tuple[float, ...]) -> tuple[Floats, tuple[str, ...]]:
    """Numbers as categories: the number of their bin. Categories stay as they are."""
    if not edges:
        return values, words
    bins = np.searchsorted(np.array(edges), values, side="right").astype(np.float64)
    return np.where(np.isnan(values), np.nan, bins), tuple(map(str, range(len(edges) + 1)))


def _evidence(step: WeightOfEvidence, values: Floats, words: tuple[str, ...], labels: Floats | None) -> Evidence:
    edges = _edges(step.edges, values) if edge_count(step.edges) else ()
    values, words = _binned(values, words, edges)
    named = tuple(word for word, _ in _counts(values, words, step.least_rows))
    positive = np.zeros(len(values), bool) if labels is None else labels > 0.5
    places = _places(values, words, named)
    places = np.where(places < 0, len(named), places)
    ones = np.bincount(places[positive], minlength=len(named) + 1) + SMOOTHING
    zeros = np.bincount(places[~positive], minlength=len(named) + 1) + SMOOTHING
    weights = np.log(ones / ones.sum()) - np.log(zeros / zeros.sum())
    return Evidence(edges=edges, named=named, weights=tuple(map(float, weights)))
