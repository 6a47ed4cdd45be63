"""A party's table as rows a network can be fed."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch

from vfl.errors import InvalidData, LocalProtocolError
from vfl.horizontal.hooks import Examples
from vfl.horizontal.input_scaling import agreed
from vfl.notices import Notice
from vfl.setup import InputScaling, Table
from vfl.spec.rounds import RoundsSpec
from vfl.spec.rounds_settings import DEVIATIONS

MUCH_CLIPPED = 0.05
"""Share of a pooled column beyond which clipping is told: of a bell curve 0.3 % lies out there, of incomes 3 %."""


def examples_of(spec: RoundsSpec, table: Table, use: str, scaling: InputScaling | None = None) -> Examples:
    """Columns scaled and shaped as the network reads them; `scaling` is needed where none is agreed.

    Raises InvalidData where the table does not fit the model.
    """
    check_fit(spec, table, use)
    scaling = scaling or agreed(spec)
    if scaling is None:
        raise LocalProtocolError(f"the {use} rows are read before it is known how columns are scaled")
    scaled = scaling.apply(table.columns).astype(np.float32)
    inputs = torch.from_numpy(scaled).reshape(-1, *spec.model.input_shape)
    if table.labels is None:
        return Examples(inputs)
    if spec.job.task == "regression":
        return Examples(inputs, torch.from_numpy(table.labels.astype(np.float32)))
    return Examples(inputs, torch.from_numpy(table.labels.astype(np.int64)))


def check_fit(spec: RoundsSpec, table: Table, use: str) -> None:
    """Raises InvalidData where the table does not fit the model."""
    use = "training" if use == "rows" else use
    if table.columns.shape[1] != spec.inputs:
        raise InvalidData(
            f"the {use} rows have {table.columns.shape[1]} input columns, and the model takes {spec.inputs}",
            fix="Name the input columns in model.columns, or correct model.input_shape.",
        )
    labels = table.labels
    if labels is None or spec.job.task == "regression" or not len(labels):
        return
    if not (labels.min() >= 0 and labels.max() < spec.outputs):
        raise InvalidData(f"the {use} rows hold labels outside 0 to {spec.outputs - 1}")


def clipped(spec: RoundsSpec, tables: Mapping[str, Table], scaling: InputScaling | None = None) -> list[Notice]:
    """A warning for what is clipped of each table: a model is told less than its rows hold."""
    scaling = scaling or agreed(spec)
    if scaling is None:
        return []
    texts = (text for use, table in tables.items() for text in _clipped(spec, use, table, scaling))
    return [Notice("warning", "values_clipped", text) for text in texts]


def _clipped(spec: RoundsSpec, use: str, table: Table, scaling: InputScaling) -> list[str]:
    outside, rows = scaling.outside(table.columns), len(table.columns)
    if len(spec.model.ranges) == 1:
        (low, high), count = spec.model.ranges[0], int(outside.sum())
        text = (
            f"{count:,} of {table.columns.size:,} values of {use} lie outside model.input_range, "
            f"{low:g} to {high:g}, and were clipped to it"
        )
        return [text] if count else []
    tolerance = MUCH_CLIPPED * rows if spec.pools_columns else 0
    limits = f"{DEVIATIONS:g} deviations around the mean of all clients" if spec.pools_columns else "model.input_range"
    return [
        f"{count:,} of {rows:,} values of {column_name(spec, at)} of {use} lie outside {limits}, "
        f"{scaling.low[at]:g} to {scaling.high[at]:g}, and were clipped to it"
        for at, count in enumerate(outside)
        if count > tolerance
    ]


def column_name(spec: RoundsSpec, at: int) -> str:
    return f"column {spec.model.columns[at]!r}" if spec.model.columns else f"input column {at + 1}"


def derived(seed: bytes, *purpose: object) -> bytes:
    """A seed for one purpose: SHA-256 over the seed and what it is for (R0.5)."""
    return hashlib.sha256(len(seed).to_bytes(4, "big") + seed + "/".join(map(str, purpose)).encode()).digest()
