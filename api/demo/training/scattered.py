"""A bundled table as two organisations would have it: rows in no common order, and some that the other one lacks."""

from dataclasses import replace

import numpy as np
import polars as pl

from api.demo.training.tables import DividedTable, NewRows
from vfl.schedule import philox

NEW_SHARE = 0.1
"""Of the rows: set apart before the training, to be scored after it."""
LONE_SHARE = 0.05
"""Of the rows of each file: known to one party, and as many to the other."""


def scattered(table: DividedTable, seed: int) -> DividedTable:
    """The known and the new rows of both parties, which overlap in part, each file in an order of its own.

    The training is made smaller with the table, so that it opens no larger share of it.
    """
    draws = np.random.Generator(philox(seed.to_bytes(8, "big"), "demonstration's rows"))
    order = draws.permutation(table.rows)
    new = round(NEW_SHARE * table.rows)
    new_label, new_feature = _files(table, order[:new], draws)
    label, feature = _files(table, order[new:], draws)
    parts = replace(
        table,
        label_file=label,
        feature_file=feature,
        new_rows=NewRows(new_label.drop(table.label), new_feature),
    )
    share = parts.rows / table.rows
    return replace(
        parts,
        training=table.training and table.training.for_share(share),
        others=tuple(each.for_share(share) for each in table.others),
    )


def _files(table: DividedTable, rows: np.ndarray, draws: np.random.Generator) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The label party's file and the feature party's: each lacks other rows."""
    lone = round(LONE_SHARE * len(rows))
    return (
        table.label_file[draws.permutation(rows[lone:])],
        table.feature_file[draws.permutation(np.concatenate([rows[:lone], rows[2 * lone :]]))],
    )
