"""The largest values alone, with their positions (top-k): a baseline, biased by what it leaves out."""

import numpy as np

from vfl.codecs.codec import Body, Codec, Floats, InvalidBody, exactly, received, sendable

PER_THOUSAND = 1000
VALUE_BYTES = 8


def kept(count: int, bits: int) -> int:
    """How many values travel: here `bits` is the share of values, in tenths of a percent."""
    return -(-count * bits // PER_THOUSAND)


def encode(values: Floats, bits: int, seed: bytes, *, unbiased: bool) -> bytes:  # noqa: ARG001 - the interface
    """A codec's `encode`: ascending positions (u32), then the values there (fp32). There is no unbiased form."""
    sendable(values)
    rest = len(values) - kept(len(values), bits)
    positions = np.sort(np.argpartition(np.abs(values), rest)[rest:]) if rest else np.arange(len(values))
    return positions.astype("<u4").tobytes() + values[positions].astype("<f4", copy=False).tobytes()


def decode(body: Body, count: int, bits: int, seed: bytes) -> Floats:  # noqa: ARG001 - the interface of every codec
    """A codec's `decode`: zero where nothing was sent."""
    content = exactly(body, body_bytes(count, bits))
    end = len(content) // 2
    positions = content[:end].view("<u4").astype(np.int64)
    if not (np.diff(positions) > 0).all() or not (positions < count).all():
        raise InvalidBody("the positions of the values do not ascend, or lie outside the tensor")
    values = np.zeros(count, np.float32)
    values[positions] = received(content[end:].view("<f4"), "values")
    return values


def body_bytes(count: int, bits: int) -> int:
    return VALUE_BYTES * kept(count, bits)


SPARSE = Codec(encode, decode, body_bytes, lambda *_: None, range(1, PER_THOUSAND + 1))
