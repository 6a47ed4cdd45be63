"""Codes of 1 to 8 bits side by side, little end first: code i takes bits [b*i, b*i + b) of the body.

Eight codes make one 64-bit word. Three halvings move its eight fields together, so a word gives exactly b bytes.
"""

import numpy as np

from vfl.codecs.codec import Bytes

CODES_PER_WORD = 8


def packed_bytes(count: int, bits: int) -> int:
    return -(-count * bits // 8)


def pack(codes: Bytes, bits: int) -> bytes:
    """Codes below 2^bits, one per byte -> packed_bytes(len(codes), bits) bytes."""
    words = np.zeros(-(-len(codes) // CODES_PER_WORD), "<u8")
    words.view(np.uint8)[: len(codes)] = codes
    for width in (1, 2, 4):
        low = words & _low_fields(width, width * bits)
        words = low | ((words ^ low) >> np.uint64(width * (8 - bits)))
    return words.view(np.uint8).reshape(-1, 8)[:, :bits].tobytes()[: packed_bytes(len(codes), bits)]


def unpack(body: Bytes, count: int, bits: int) -> Bytes:
    """The inverse of `pack`."""
    groups = -(-count // CODES_PER_WORD)
    whole, rest = divmod(len(body), bits)
    fields = np.zeros((groups, 8), np.uint8)
    fields[:whole, :bits] = body[: whole * bits].reshape(whole, bits)
    fields[whole:, :rest] = body[whole * bits :]
    words = fields.reshape(-1).view("<u8")
    for width in (4, 2, 1):
        low = words & _low_fields(width, width * bits)
        words = low | ((words ^ low) << np.uint64(width * (8 - bits)))
    return words.view(np.uint8)[:count]


def _low_fields(width: int, bits: int) -> np.uint64:
    """A mask of the lowest `bits` bits in every second group of `width` bytes."""
    period = 16 * width
    return np.uint64(sum(((1 << bits) - 1) << start for start in range(0, 64, period)))
