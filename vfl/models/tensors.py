"""Numbers as bytes: a party's half of a model as safetensors, a checkpoint, and a message's values."""

from collections.abc import Mapping
from typing import Any

import msgspec
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


class _Array(msgspec.Struct, frozen=True, array_like=True):
    dtype: str
    shape: tuple[int, ...]
    values: bytes


_ARRAY = 1
"""Of an extension of MessagePack: an array."""


def save_state(state: Mapping[str, Any]) -> bytes:
    """Names, numbers and arrays, nested, bit by bit as they are; tuples become lists."""
    return msgspec.msgpack.encode(state, enc_hook=_written)


def load_state(data: bytes) -> dict[str, Any]:
    """The inverse of `save_state`."""
    state: dict[str, Any] = msgspec.msgpack.decode(data, ext_hook=_read)
    return state


def _written(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    array = np.asarray(value)
    return msgspec.msgpack.Ext(_ARRAY, msgspec.msgpack.encode(_Array(array.dtype.str, array.shape, array.tobytes())))


def _read(_code: int, data: memoryview) -> NDArray[Any]:
    array = msgspec.msgpack.decode(data, type=_Array)
    return np.frombuffer(array.values, array.dtype).reshape(array.shape).copy()


def floats(data: bytes, *shape: int) -> Floats | None:
    """Raw little-endian float64 bytes as an array of this shape; None when the length does not fit."""
    if len(data) != 8 * int(np.prod(shape)):
        return None
    return np.frombuffer(data, "<f8").reshape(shape)
