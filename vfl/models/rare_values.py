"""Which prepared columns stay out of sums over rows: those that would tell few rows from all others (one_pass.md).

A sum over a column that is 1 in one row and 0 in all others is the value of that row. So no group of rows that prepared
columns can tell apart may be small: no category, not the rest of all categories, no bin between two edges, no rows with
an empty cell, and no rows beside those of a column's most frequent value.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vfl.models.preparation import AnyColumn, Categories, Edges, Preparation, Words
from vfl.notices import Notice

Floats = NDArray[np.float64]

SAMPLED_ROWS = 1001
"""The most frequent value of a column that nearly all rows share is the median of so many."""


class RareValues:
    """Counts rows, part by part; then says which of the prepared columns may be used."""

    def __init__(self, preparation: Preparation, least_rows: int) -> None:
        self._preparation, self._least, self._rows = preparation, least_rows, 0
        self._counts: list[Floats] = []
        self._frequent: list[Floats] = []

    def count(self, values: Floats, words: Words) -> None:
        """Rows x columns, not prepared."""
        blocks = [column.block(values[:, at], words.get(at, ())) for at, column in enumerate(self._preparation.columns)]
        if not self._counts:
            self._frequent = [np.median(block[:SAMPLED_ROWS], axis=0) for block in blocks]
            self._counts = [np.zeros(block.shape[1]) for block in blocks]
        for counts, frequent, block, column in zip(
            self._counts, self._frequent, blocks, self._preparation.columns, strict=True
        ):
            of_values = isinstance(column, Categories | Edges)
            np.add(counts, (block if of_values else block != frequent).sum(axis=0), out=counts)
        self._rows += len(values)

    def usable(self) -> NDArray[np.bool_]:
        """One for each number that a prepared row has."""
        parts = [np.zeros(0, bool)]
        for counts, column in zip(self._counts, self._preparation.columns, strict=True):
            parts.append(self._usable_of(column, counts))
        return np.concatenate(parts)

    def notices(self) -> Iterator[Notice]:
        for name, counts, column in zip(self._preparation.names, self._counts, self._preparation.columns, strict=True):
            out = len(counts) - int(self._usable_of(column, counts).sum())
            if out and self._rows:
                text = (
                    f"{out} of the {len(counts)} numbers that {name!r} becomes stay out of the sums: fewer than "
                    f"{self._least} training rows differ by them from all others"
                )
                yield Notice("note", "rare_values_left_out", text)

    def _usable_of(self, column: AnyColumn, counts: Floats) -> NDArray[np.bool_]:
        if isinstance(column, Edges):
            return self._edges(column, counts)
        if isinstance(column, Categories):
            return self._categories(counts)
        usable: NDArray[np.bool_] = counts >= self._least
        return usable

    def _edges(self, column: Edges, counts: Floats) -> NDArray[np.bool_]:
        """Edges are passed from low to high: the rows between two that stay, below the first and above the last are
        never few. Cells without a value are a group of their own, beside the lowest."""
        above, gaps = counts[: len(column.edges)], counts[len(column.edges) :]
        usable, at_or_above = np.zeros(len(counts), bool), self._rows - float(gaps.sum())
        usable[len(above) :] = gaps >= self._least
        if not usable[len(above) :].all():  # they then count as rows below the lowest edge
            at_or_above = self._rows
        for place, rows in enumerate(above):
            if at_or_above - rows >= self._least <= rows:
                usable[place], at_or_above = True, rows
        return usable

    def _categories(self, counts: Floats) -> NDArray[np.bool_]:
        """The rest is what no column is for; the rarest categories join it until they are enough, or none is left."""
        usable = counts >= self._least
        while usable.any():
            rest = self._rows - counts[usable].sum()
            if rest == 0 or rest >= self._least:
                break
            usable[np.where(usable, counts, np.inf).argmin()] = False
        return usable
