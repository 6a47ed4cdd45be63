"""One column of rows as a seeded ciphertext: work that a key owner spreads over processes of its machine."""

import functools
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from crypto.ciphertexts import Seeded, write_seeded
from crypto.ckks_context import Context, data_context, secret_under
from crypto.ckks_parameters import RING_DEGREE, SLOTS, CkksPreset
from crypto.pieces import SecretBytes
from crypto.seal_stream import payload
from crypto.seal_stream import read_seeded as parse_seeded

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]

_HEAD = struct.Struct("<QQQ")


class _Encryption(NamedTuple):
    context: Context
    encryptor: Any
    scale: float
    times: int


def to_slots(values: Floats, times: int) -> list[float]:
    """A value per row (B) as slots: repeated whole so many times, rest zero."""
    slots = np.zeros(SLOTS)
    slots[: times * len(values)] = np.tile(values, times)
    filled: list[float] = slots.tolist()
    return filled


def encryption_key(secret: Mapping[int, Words], preset: CkksPreset, times: int) -> SecretBytes:
    """What encrypting the columns of one block shares: the secret, the scale, how often rows are repeated."""
    moduli = (*preset.data_moduli, preset.special_modulus)
    words = (secret[modulus].tobytes() for modulus in moduli)
    head = _HEAD.pack(preset.embedding_scale, times, len(moduli))
    return SecretBytes(b"".join((head, np.array(moduli, "<u8").tobytes(), *words)))


def encrypted_column(shared: bytes, column: bytes) -> bytes:
    """Work: a number for each row, encrypted with randomness of its own, in wire form."""
    context, encryptor, scale, times = encryption(shared)
    data = context.moduli[:-1]
    plain = context.encode(to_slots(np.frombuffer(column), times), len(data), scale)
    words, seed, _ = parse_seeded(payload(encryptor.encrypt_symmetric(plain)))
    return write_seeded([Seeded(words, seed)], data)


@functools.lru_cache(maxsize=1)
def encryption(shared: bytes) -> _Encryption:
    """Kept for the next column of the same block, or of one under the same key."""
    scale_bits, times, count = _HEAD.unpack_from(shared)
    moduli = tuple(np.frombuffer(shared, "<u8", count, _HEAD.size).tolist())
    words = np.frombuffer(shared, "<u8", count * RING_DEGREE, _HEAD.size + 8 * count).reshape(count, RING_DEGREE)
    context = data_context(moduli)
    secret = secret_under(dict(zip(moduli, words, strict=True)), context)
    return _Encryption(context, sealapi.Encryptor(context.seal, secret), 2.0**scale_bits, times)
