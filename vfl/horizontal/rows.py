"""A party's table as rows a network can be fed."""

import hashlib
from collections.abc import Mapping

import numpy as np
import torch

from vfl.errors import InvalidData
from vfl.horizontal.part import Examples
from vfl.rounds_spec import RoundsSpec
from vfl.setup import Table


def examples_of(spec: RoundsSpec, table: Table, use: str) -> Examples:
    """Columns clipped to the public input range, mapped to [0, 1] and shaped as the network reads them.

    Raises InvalidData where the table does not fit the model.
    """
    if table.columns.shape[1] != spec.inputs:
        raise InvalidData(
            f"the {use} rows have {table.columns.shape[1]} input columns, the model takes {spec.inputs}",
            fix="Name the input columns in model.columns, or correct model.input_shape.",
        )
    low, high = spec.model.input_range
    scaled = ((np.clip(table.columns, low, high) - low) / (high - low)).astype(np.float32)
    inputs = torch.from_numpy(scaled).reshape(-1, *spec.model.input_shape)
    if table.labels is None:
        return Examples(inputs)
    if spec.job.task == "regression":
        return Examples(inputs, torch.from_numpy(table.labels.astype(np.float32)))
    labels = table.labels.astype(np.int64)
    if len(labels) and not (labels.min() >= 0 and labels.max() < spec.outputs):
        raise InvalidData(f"the {use} rows hold labels outside 0 to {spec.outputs - 1}")
    return Examples(inputs, torch.from_numpy(labels))


def clipped(spec: RoundsSpec, tables: Mapping[str, Table]) -> list[str]:
    """A sentence for each table with values outside the public range: a model is told less than its rows hold."""
    low, high = spec.model.input_range
    outside = {use: int(((table.columns < low) | (table.columns > high)).sum()) for use, table in tables.items()}
    return [
        f"{count:,} of {tables[use].columns.size:,} values of {use} lie outside model.input_range, "
        f"{low:g} to {high:g}, and were clipped to it"
        for use, count in outside.items()
        if count
    ]


def derived(seed: bytes, *purpose: object) -> bytes:
    """A seed for one purpose: SHA-256 over the seed and what it is for (R0.5)."""
    return hashlib.sha256(len(seed).to_bytes(4, "big") + seed + "/".join(map(str, purpose)).encode()).digest()
