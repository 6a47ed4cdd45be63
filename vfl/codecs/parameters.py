"""A model's parameters as one self-contained body, compressed as agreed, and back.

Layout: header (magic, codec, unbiased or not, number of tensors, seed), for each tensor its bits (0: not compressed),
then the tensors in the order of the mapping. Names do not travel: the order of a model's state is fixed by the job.
"""

# ruff: noqa: A002 - a format is called format, also where Python has a function of that name

import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vfl.codecs import CODECS
from vfl.codecs.codec import Body, Floats, InvalidBody, exactly

MAGIC = b"VFP1"
HEADER = struct.Struct("<4s16s?I16s")
BITS = np.dtype("<u2")
SMALLEST_COMPRESSED = 1024
"""Smaller weights, norms and biases stay at full precision (R3.2)."""
LARGEST_FACTOR = 1.2
"""A message whose error is further above the stated one is worth a warning (R3.9)."""
AT_ONCE = 1 << 16
"""Values that are measured together."""


@dataclass(frozen=True)
class Integers:
    """The shape of a buffer of int64, such as a number of batches; it travels as it is, 8 bytes a value."""

    shape: tuple[int, ...]


Shape = tuple[int, ...] | Integers
"""A plain tuple is the shape of a float32 tensor."""


@dataclass(frozen=True)
class Format:
    """How the tensors of a message are written. The sender and the receiver agree on it before."""

    codec: str
    """A key of CODECS."""
    bits: int | Mapping[str, int]
    """For every compressed tensor, or by tensor name: then a weight that is not named stays at full precision."""
    unbiased: bool
    rest: str = "none"
    """What is not compressed is written as fp32 (`none`) or as bf16 (`half`)."""

    def __post_init__(self) -> None:
        for codec, codecs in ((self.codec, tuple(CODECS)), (self.rest, ("none", "half"))):
            if codec not in codecs:
                raise ValueError(f"no codec is called {codec!r}; there are {', '.join(codecs)}")
        widths = CODECS[self.codec].widths
        for bits in self.bits.values() if isinstance(self.bits, Mapping) else (self.bits,):
            if bits not in widths:
                raise ValueError(f"codec {self.codec!r} takes {widths[0]} to {widths[-1]} bits, not {bits}")


def shapes(tensors: Mapping[str, NDArray[Any]]) -> dict[str, Shape]:
    """What `like` is, of tensors at hand."""
    return {n: Integers(t.shape) if t.dtype == np.int64 else t.shape for n, t in tensors.items()}


def bits_of(name: str, shape: Shape, format: Format) -> int:
    """Bits a value of this tensor takes, or 0 where it travels as it is: only weights of some size are compressed."""
    if isinstance(shape, Integers) or len(shape) < 2 or math.prod(shape) < SMALLEST_COMPRESSED:
        return 0
    return format.bits.get(name, 0) if isinstance(format.bits, Mapping) else format.bits


def expected_bytes(like: Mapping[str, Shape], format: Format) -> int:
    """The exact length of a body (R3.3)."""
    return _header_bytes(like) + sum(_tensor_bytes(shape, bits, format) for _, shape, bits in _plan(like, format))


def encode_parameters(tensors: Mapping[str, NDArray[Any]], format: Format, seed: bytes) -> bytes:
    """One body of float32 and int64 tensors. `seed` must be fresh for every message: errors then average out.

    Raises Diverged if a value is not finite.
    """
    return encode_each(tensors.values(), shapes(tensors), format, seed)


def encode_each(tensors: Iterable[NDArray[Any]], like: Mapping[str, Shape], format: Format, seed: bytes) -> bytes:
    """The same for tensors that are made one after the other, in the order of `like`."""
    own = hashlib.sha256(seed).digest()[:16]
    plan = list(_plan(like, format))
    parts = [
        HEADER.pack(MAGIC, format.codec.encode(), format.unbiased, len(plan), own),
        np.array([bits for *_, bits in plan], BITS).tobytes(),
    ]
    for index, ((name, shape, bits), tensor) in enumerate(zip(plan, tensors, strict=True)):
        values = np.ascontiguousarray(tensor).reshape(-1)
        if isinstance(shape, Integers):
            parts.append(values.astype("<i8", copy=False).tobytes())
        elif values.dtype != np.float32:
            raise TypeError(f"{name} is {values.dtype}; parameters are float32 or int64")
        else:
            codec = CODECS[format.codec if bits else format.rest]
            parts.append(codec.encode(values, bits, _seed(own, index), unbiased=format.unbiased))
    return b"".join(parts)


def decode_parameters(body: Body, like: Mapping[str, Shape], format: Format) -> dict[str, NDArray[Any]]:
    """The tensors, shaped like `like`. Raises InvalidBody if they were not written in this format."""
    return {name: read() for name, read in readers(body, like, format).items()}


def readers(body: Body, like: Mapping[str, Shape], format: Format) -> dict[str, Callable[[], NDArray[Any]]]:
    """A function for each tensor that decodes it alone. This raises InvalidBody, and so may each of them."""
    exactly(body, expected_bytes(like, format))
    content, plan = memoryview(body), list(_plan(like, format))
    own = _check_header(content, plan, format)
    start, reading = _header_bytes(like), dict[str, Callable[[], NDArray[Any]]]()
    for index, (name, shape, bits) in enumerate(plan):
        part = content[start : start + _tensor_bytes(shape, bits, format)]
        reading[name] = partial(_read, part, name, shape, bits, format, _seed(own, index))
        start += len(part)
    return reading


def _read(part: memoryview, name: str, shape: Shape, bits: int, format: Format, seed: bytes) -> NDArray[Any]:
    if isinstance(shape, Integers):
        return np.frombuffer(part, "<i8").astype(np.int64).reshape(shape.shape)
    codec = CODECS[format.codec if bits else format.rest]
    try:
        return codec.decode(part, math.prod(shape), bits, seed).reshape(shape)
    except InvalidBody as error:
        raise InvalidBody(f"tensor {name} cannot be read: {error}") from error


@dataclass(frozen=True)
class MessageError:
    """What compression cost one message: squared errors relative to the squared norm (R3.9)."""

    measured: float
    """Over all compressed tensors."""
    stated: float | None
    """What the codec promises for them; None where it promises nothing."""
    by_tensor: dict[str, float]
    """Measured, for each compressed tensor."""

    @property
    def factor(self) -> float | None:
        return self.measured / self.stated if self.stated else None

    @property
    def doubtful(self) -> bool:
        """Worth a warning in the report."""
        return self.factor is not None and self.factor > LARGEST_FACTOR


def message_error(
    tensors: Mapping[str, NDArray[Any]],
    decoded: Mapping[str, NDArray[Any]],
    format: Format,
) -> MessageError:
    """What was encoded against what was decoded."""
    like = shapes(tensors)
    coded = (name for name, shape in like.items() if bits_of(name, shape, format))
    return error_of(((name, tensors[name], decoded[name]) for name in coded), like, format)


def error_of(
    messages: Iterable[tuple[str, NDArray[Any], NDArray[Any]]], like: Mapping[str, Shape], format: Format
) -> MessageError:
    """The same of (name, encoded, decoded) of compressed tensors, one after the other."""
    lost: dict[str, float] = {}
    norms: dict[str, float] = {}
    promised = 0.0
    stated_everywhere = True
    for name, encoded, decoded in messages:
        norms[name], lost[name] = _squared_norm(encoded), _squared_norm(decoded - encoded)
        stated = CODECS[format.codec].stated_error(bits_of(name, like[name], format), format.unbiased)
        stated_everywhere &= stated is not None
        promised += norms[name] * (stated or 0.0)
    total = sum(norms.values())
    return MessageError(
        sum(lost.values()) / total if total else 0.0,
        (promised / total if total else 0.0) if stated_everywhere else None,
        {name: lost[name] / norms[name] if norms[name] else 0.0 for name in norms},
    )


def _squared_norm(tensor: Floats) -> float:
    """In float64, and never much of it at a time."""
    parts = np.split(tensor.reshape(-1), range(AT_ONCE, tensor.size, AT_ONCE))
    return math.fsum(float(np.linalg.norm(part.astype(np.float64)) ** 2) for part in parts)


def _plan(like: Mapping[str, Shape], format: Format) -> Iterator[tuple[str, Shape, int]]:
    if isinstance(format.bits, Mapping) and not format.bits.keys() <= like.keys():
        unknown = ", ".join(sorted(format.bits.keys() - like.keys()))
        raise ValueError(f"bits are given for tensors the model does not have: {unknown}")
    return ((name, shape, bits_of(name, shape, format)) for name, shape in like.items())


def _tensor_bytes(shape: Shape, bits: int, format: Format) -> int:
    if isinstance(shape, Integers):
        return 8 * math.prod(shape.shape)
    return CODECS[format.codec if bits else format.rest].body_bytes(math.prod(shape), bits)


def _header_bytes(like: Mapping[str, Shape]) -> int:
    return HEADER.size + BITS.itemsize * len(like)


def _seed(own: bytes, index: int) -> bytes:
    return own + index.to_bytes(4, "little")


def _check_header(content: memoryview, plan: list[tuple[str, Shape, int]], format: Format) -> bytes:
    """The seed, if the rest is as agreed."""
    own: bytes
    magic, name, unbiased, count, own = HEADER.unpack(content[: HEADER.size])
    if magic != MAGIC:
        raise InvalidBody("this is not a body of parameters")
    if (codec := name.rstrip(b"\0")) != format.codec.encode():
        raise InvalidBody(f"the codec is {codec.decode('ascii', 'replace')!r}, and {format.codec!r} was agreed")
    if unbiased != format.unbiased:
        raise InvalidBody("the scale of the values is another than was agreed")
    if count != len(plan):
        raise InvalidBody(f"the body has {count} tensors, and {len(plan)} are due")
    widths = np.frombuffer(content, BITS, count, HEADER.size)
    for (tensor, _, bits), width in zip(plan, widths.tolist(), strict=True):
        if width != bits:
            raise InvalidBody(f"tensor {tensor} has {width} bits, and {bits} were agreed")
    return own
