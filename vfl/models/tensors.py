"""Numbers as bytes: a party's half of a model as safetensors, and a message's values."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

Floats = NDArray[np.float64]


def save_tensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Tensors as safetensors bytes, float64 but for those that are bytes."""
    arrays = {
        name: np.ascontiguousarray(value, np.uint8 if value.dtype == np.uint8 else np.float64)
        for name, value in sorted(tensors.items())
    }
    data: bytes = save(arrays)
    return data


def load_tensors(data: bytes) -> dict[str, Any]:
    """The inverse of `save_tensors`."""
    tensors: dict[str, Any] = load(data)
    return tensors


def floats(data: bytes, *shape: int) -> Floats | None:
    """Raw little-endian float64 bytes as an array of this shape; None when the length does not fit."""
    if len(data) != 8 * int(np.prod(shape)):
        return None
    return np.frombuffer(data, "<f8").reshape(shape)
