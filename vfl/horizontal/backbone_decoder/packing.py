"""A backbone's weights as they are sent where deriving made them few or coarse: `prune` and `quantise` (R1.1).

A packing replaces the weight tensors by smaller ones and by packed bits. How long both are follows from the shapes and
the terms, so a received body is read without trusting any length in it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfl.codecs.packing import pack, packed_bytes, unpack
from vfl.spec.rounds_settings import BackboneDecoder

Arrays = dict[str, NDArray[Any]]
Shapes = Mapping[str, tuple[int, ...]]

SCALES_TRIED = 32
"""Per output row `quantise` takes the best of so many scales below the one that clips nothing."""


@dataclass(frozen=True)
class Packing:
    """Weights are float32 of at least two dimensions, the first counting outputs."""

    tensors: Callable[[Shapes, BackboneDecoder], Shapes]
    """Shapes of what is sent as tensors in the weights' place."""
    packed_bytes: Callable[[Shapes, BackboneDecoder], int]
    pack: Callable[[Arrays, BackboneDecoder], tuple[Arrays, bytes]]
    unpack: Callable[[Arrays, memoryview, Shapes, BackboneDecoder], Arrays]


def kept_weights(weights: Arrays, share: float) -> dict[str, NDArray[np.bool_]]:
    """Where the largest share of all weights lies: one threshold for the model, the first of equal ones."""
    sizes = np.concatenate([np.abs(values).ravel() for values in weights.values()])
    is_largest = np.zeros(len(sizes), bool)
    is_largest[np.argsort(-sizes, kind="stable")[: _count_of_share(len(sizes), share)]] = True
    return _split(is_largest, {name: values.shape for name, values in weights.items()})


def _split(flat: NDArray[Any], shapes: Shapes) -> Arrays:
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1]
    return {name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), np.split(flat, ends), strict=True)}


def _count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _count_of_share(count: int, share: float) -> int:
    return min(count, max(1, round(count * share)))


def _pack_pruned(weights: Arrays, terms: BackboneDecoder) -> tuple[Arrays, bytes]:
    masks = kept_weights(weights, terms.share)
    values = np.concatenate([weights[name][mask] for name, mask in masks.items()])
    mask = np.concatenate([mask.ravel() for mask in masks.values()]).astype(np.uint8)
    return {"largest_weights": values[None].astype(np.float32)}, pack(mask, 1)


def _unpack_pruned(tensors: Arrays, packed: memoryview, shapes: Shapes, terms: BackboneDecoder) -> Arrays:
    count = _count(shapes)
    positions = np.flatnonzero(unpack(np.frombuffer(packed, np.uint8), count, 1))[: _count_of_share(count, terms.share)]
    flat = np.zeros(count, np.float32)
    flat[positions] = tensors["largest_weights"][0, : len(positions)]
    return _split(flat, shapes)


def _pack_quantised(weights: Arrays, terms: BackboneDecoder) -> tuple[Arrays, bytes]:
    largest = _largest_code(terms.bits)
    scales, codes = Arrays(), []
    for name, values in weights.items():
        rows = values.reshape(len(values), -1)
        scale = _best_scales(rows, largest)
        scales[f"{name} scales"] = scale
        codes.append((_rounded(rows, scale, largest) + largest).astype(np.uint8).ravel())
    return scales, pack(np.concatenate(codes), terms.bits)


def _unpack_quantised(tensors: Arrays, packed: memoryview, shapes: Shapes, terms: BackboneDecoder) -> Arrays:
    codes = unpack(np.frombuffer(packed, np.uint8), _count(shapes), terms.bits)
    levels = codes.astype(np.float32) - _largest_code(terms.bits)
    return {
        name: values * tensors[f"{name} scales"].reshape(-1, *[1] * (values.ndim - 1))
        for name, values in _split(levels, shapes).items()
    }


def _largest_code(bits: int) -> int:
    return (1 << (bits - 1)) - 1


def _rounded(rows: NDArray[Any], scales: NDArray[Any], largest: int) -> NDArray[Any]:
    codes: NDArray[Any] = np.clip(np.rint(rows / scales[:, None]), -largest, largest)
    return codes


def _best_scales(rows: NDArray[Any], largest: int) -> NDArray[np.float32]:
    """Per row the scale of least squared error: at few bits clipped large weights cost less than coarse steps."""
    widest = np.maximum(np.abs(rows).max(axis=1), np.float32(1e-12)) / largest
    best, least = widest, np.full(len(rows), np.inf)
    for tried in range(SCALES_TRIED, 0, -1):
        scales = widest * np.float32(tried / SCALES_TRIED)
        error = ((_rounded(rows, scales, largest) * scales[:, None] - rows) ** 2).sum(axis=1)
        best, least = np.where(error < least, scales, best), np.minimum(error, least)
    return np.asarray(best, np.float32)


AS_THEY_ARE = Packing(
    tensors=lambda shapes, _terms: shapes,
    packed_bytes=lambda _shapes, _terms: 0,
    pack=lambda weights, _terms: (weights, b""),
    unpack=lambda tensors, _packed, shapes, _terms: {name: tensors[name] for name in shapes},
)

PACKINGS: dict[str, Packing] = {
    "prune": Packing(
        tensors=lambda shapes, terms: {"largest_weights": (1, _count_of_share(_count(shapes), terms.share))},
        packed_bytes=lambda shapes, _terms: packed_bytes(_count(shapes), 1),
        pack=_pack_pruned,
        unpack=_unpack_pruned,
    ),
    "quantise": Packing(
        tensors=lambda shapes, _terms: {f"{name} scales": shape[:1] for name, shape in shapes.items()},
        packed_bytes=lambda shapes, terms: packed_bytes(_count(shapes), terms.bits),
        pack=_pack_quantised,
        unpack=_unpack_quantised,
    ),
}
"""By `derive`; what is not here goes as it is."""
