"""Digits dealt to an aggregator and its clients: who holds which rows, as each party's own files."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from parties.simulation.partition import shards
from vfl.schedule import permutation

AGGREGATOR = "aggregator"
CLIENTS = ("client-1", "client-2", "client-3")
PARTIES = (AGGREGATOR, *CLIENTS)
ID, LABEL = "id", "digit"
ROWS = "rows"
"""The data set of each client."""

PUBLIC = "public"
FIRST = "first"
DIGITS, SIDE, BRIGHTEST = 10, 8, 16
SHARDS = 4
"""Runs of one or two digits that each client is dealt, so that none has all ten."""


@dataclass(frozen=True)
class DealtTable:
    """The rows of one table, each at one party."""

    name: str
    files: Mapping[str, Mapping[str, pl.DataFrame]]
    """By party and data set: id, pixels, and the digit but in public rows."""

    @property
    def rows(self) -> int:
        return sum(frame.height for files in self.files.values() for frame in files.values())


def deal_digits(seed: bytes, shares: Mapping[str, float], first_digits: int) -> DealtTable:
    """1,797 images of 8 x 8 pixels: `shares` of them are the aggregator's, the rest its clients' by digit.

    Of its `first` rows the aggregator keeps those of the first `first_digits` digits; the clients get the others.
    """
    data = load_digits()
    labels: NDArray[np.int64] = data.target.astype(np.int64)
    order = permutation(seed, "dealing", len(labels))
    rows_by_use: dict[str, NDArray[np.int64]] = {}
    start = 0
    for use, share in shares.items():
        rows, start = order[start:], start + round(share * len(labels))
        rows_by_use[use] = rows[: round(share * len(labels))]
    left = order[start:]
    if FIRST in rows_by_use:
        left = np.concatenate([left, rows_by_use[FIRST][labels[rows_by_use[FIRST]] >= first_digits]])
        rows_by_use[FIRST] = rows_by_use[FIRST][labels[rows_by_use[FIRST]] < first_digits]
    dealt = shards(labels[left], len(CLIENTS), SHARDS, seed)

    names = [str(name) for name in data.feature_names]

    def file(rows: NDArray[np.int64], *, labelled: bool = True) -> pl.DataFrame:
        rows = np.sort(rows)
        ids = pl.Series(ID, [f"row-{number + 1:04d}" for number in rows])
        pixels = [pl.Series(name, data.data[rows, j]) for j, name in enumerate(names)]
        return pl.DataFrame([ids, *pixels, *([pl.Series(LABEL, labels[rows])] if labelled else [])])

    files = {AGGREGATOR: {use: file(rows, labelled=use != PUBLIC) for use, rows in rows_by_use.items()}}
    files |= {client: {ROWS: file(left[rows])} for client, rows in zip(CLIENTS, dealt, strict=True)}
    return DealtTable("digits", files)
