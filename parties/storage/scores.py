"""The scores of a prediction as the label party stores them: a line for each row, with its ids and its scores."""

from collections.abc import Sequence
from typing import Any

import polars as pl
from safetensors.numpy import load

SCORE, OWN_COLUMNS_SCORE = "score", "own_columns_score"
"""What the columns of scores are called: joint ones, and those of the label party's own columns alone."""


def scores_table(ids: pl.DataFrame, state: bytes, classes: Sequence[str], name: str = SCORE) -> bytes:
    """CSV of what the role returned; the cell of a row without a score is empty."""
    scores = load(state)["scores"]
    names = score_names(scores.shape[1], classes, name)
    columns = [pl.Series(_free(each, ids.columns), scores[:, at]).fill_nan(None) for at, each in enumerate(names)]
    return ids.hstack(columns).write_csv(line_terminator="\n").encode()


def score_names(outputs: int, classes: Sequence[str], name: str = SCORE) -> list[str]:
    """What the scores of a row are called, in order."""
    if outputs == 1:
        return [name]
    return [f"{name}_{classes[at] if at < len(classes) else at}" for at in range(outputs)]


def as_rows(table: bytes) -> list[dict[str, Any]]:
    """Each line of such a table by the names of its columns."""
    names = pl.read_csv(table, n_rows=0).columns
    ids = {name: pl.String for name in names if not name.startswith((SCORE, OWN_COLUMNS_SCORE))}
    rows: list[dict[str, Any]] = pl.read_csv(table, schema_overrides=ids).to_dicts()
    return rows


def _free(name: str, taken: Sequence[str]) -> str:
    """An id may be called as a score is."""
    return f"{name}_" if name in taken else name
