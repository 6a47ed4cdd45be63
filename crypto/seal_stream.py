"""Between SEAL objects and words: SEAL 4's serialisation format, read and written by us.

SEAL objects in `tenseal.sealapi` have no way to their words but `save` and `load` on a path, so they pass through an
anonymous file in memory. What a peer sends never reaches SEAL as it came: the streams loaded here have headers written
by us around words checked by `crypto.ciphertexts` (threat_model.md).

Layout of a ciphertext after the 16-byte stream header (SEAL 4, ciphertext.cpp): parms_id 32 | NTT flag 1 | polynomials
u64 | ring degree u64 | primes u64 | scale f64 | correction factor u64 | array: stream header 16, count u64, words. A
seeded ciphertext holds its first polynomial only, followed by stream header 16, generator type 1, seed 64.
"""

import os
import struct
from typing import Any, TypeVar

import numpy as np
import zstandard
from numpy.typing import NDArray

Words = NDArray[np.uint64]
T = TypeVar("T")

SEED_BYTES = 64
_MAGIC, _HEADER, _UNCOMPRESSED, _ZSTANDARD = 0xA15E, 16, 0, 2
_VERSION = (4, 3)
_CIPHERTEXT_HEAD = struct.Struct("<32sBQQQdQ")
_PLAINTEXT_HEAD = struct.Struct("<32sQd")
_SEED_HEAD = struct.Struct("<HBBBBHQB")
_BLAKE2XB = 1


class _MemoryFile:
    """One anonymous file of this process; created at first use, never on a disk, empty whenever it is not in use.

    Secret keys pass through it, and whoever may open this process's files reads what it holds.
    """

    def __init__(self) -> None:
        self._descriptor = -1

    def _open(self) -> str:
        if self._descriptor < 0:
            self._descriptor = os.memfd_create("ckks")
        return f"/proc/self/fd/{self._descriptor}"

    def save(self, thing: Any) -> bytes:
        path = self._open()
        try:
            thing.save(path)
            return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)
        finally:
            os.ftruncate(self._descriptor, 0)

    def load(self, thing: T, context: Any, *parts: "bytes | memoryview") -> T:
        path = self._open()
        try:
            os.pwritev(self._descriptor, parts, 0)
            thing.load(context, path)  # type: ignore[attr-defined]
        finally:
            os.ftruncate(self._descriptor, 0)
        return thing


_MEMORY = _MemoryFile()


def load(thing: T, context: Any, data: bytes) -> T:
    """Fill an empty SEAL object from a stream written by `stream`; SEAL checks it against the context."""
    return _MEMORY.load(thing, context, data)


def payload(thing: Any) -> bytes:
    """A SEAL object's uncompressed serialisation without its stream header."""
    data = _MEMORY.save(thing)
    if data[5] == _ZSTANDARD:
        return zstandard.ZstdDecompressor().decompressobj().decompress(memoryview(data)[_HEADER:])
    return data[_HEADER:]


def identifier(parms_id: list[int]) -> bytes:
    """A context's parameter identifier as bytes."""
    return struct.pack("<4Q", *parms_id)


def read_ciphertext(ciphertext: Any) -> Words:
    """polynomials x primes x ring degree."""
    data = payload(ciphertext)
    _, _, polynomials, degree, primes, _, _ = _CIPHERTEXT_HEAD.unpack_from(data)
    start = len(data) - 8 * polynomials * degree * primes
    return np.frombuffer(data, "<u8", offset=start).reshape(polynomials, primes, degree)


def read_seeded(data: bytes, start: int = 0) -> tuple[Words, bytes, int]:
    """(first polynomial as primes x ring degree, seed, position behind) of a seeded ciphertext's payload."""
    _, _, _, degree, primes, _, _ = _CIPHERTEXT_HEAD.unpack_from(data, start)
    at = start + _CIPHERTEXT_HEAD.size + _HEADER + 8
    words = np.frombuffer(data, "<u8", primes * degree, at).reshape(primes, degree)
    seed = at + words.nbytes + _SEED_HEAD.size
    return words, data[seed : seed + SEED_BYTES], seed + SEED_BYTES


def read_key_switching(thing: Any) -> list[tuple[Words, bytes]]:
    """Seeded relinearisation or Galois keys: one (first polynomial, seed) for each key and decomposition digit."""
    data = payload(thing)
    (slots,) = struct.unpack_from("<Q", data, 32)
    keys, at = [], 40
    for _ in range(slots):
        (digits,) = struct.unpack_from("<Q", data, at)
        at += 8
        for _ in range(digits):
            words, seed, at = read_seeded(data, at + _HEADER)
            keys.append((words, seed))
    return keys


def read_plain_words(thing: Any) -> Words:
    """All words of a plaintext or a secret key, flat."""
    data = payload(thing)
    return np.frombuffer(data, "<u8", offset=_PLAINTEXT_HEAD.size + _HEADER + 8)


def stream(body: bytes) -> bytes:
    """A payload as an uncompressed SEAL stream."""
    return _stream_head(len(body)) + body


def _stream_head(body_bytes: int) -> bytes:
    return struct.pack("<HBBBBHQ", _MAGIC, _HEADER, *_VERSION, _UNCOMPRESSED, 0, _HEADER + body_bytes)


def _array(words: Words) -> bytes:
    return stream(struct.pack("<Q", words.size) + np.ascontiguousarray(words, "<u8").tobytes())


def ciphertext_payload(parms_id: bytes, scale: float, words: Words) -> bytes:
    """From polynomials x primes x ring degree, in NTT form."""
    polynomials, primes, degree = words.shape
    return _CIPHERTEXT_HEAD.pack(parms_id, 1, polynomials, degree, primes, scale, 1) + _array(words)


def seeded_payload(parms_id: bytes, scale: float, words: Words, seed: bytes) -> bytes:
    """A ciphertext of two polynomials given by the first (primes x ring degree) and the seed of the second."""
    primes, degree = words.shape
    head = _CIPHERTEXT_HEAD.pack(parms_id, 1, 2, degree, primes, scale, 1)
    # The length counts this header, the generator's type and the seed.
    tail = _SEED_HEAD.pack(_MAGIC, _HEADER, *_VERSION, _UNCOMPRESSED, 0, _SEED_HEAD.size + SEED_BYTES, _BLAKE2XB)
    return head + _array(words) + tail + seed


def plain_payload(parms_id: bytes, scale: float, words: Words) -> bytes:
    """A plaintext in NTT form, or a secret key, from flat words."""
    return _PLAINTEXT_HEAD.pack(parms_id, words.size, scale) + _array(words)


def key_switching_payload(parms_id: bytes, keys: dict[int, list[bytes]]) -> bytes:
    """Key switching keys from seeded payloads by position and digit."""
    slots = max(keys) + 1
    parts = [parms_id, struct.pack("<Q", slots)]
    for slot in range(slots):
        digits = keys.get(slot, [])
        parts.append(struct.pack("<Q", len(digits)))
        parts.extend(stream(digit) for digit in digits)
    return b"".join(parts)


def load_polynomials(thing: T, context: Any, parms_id: bytes, words: Words, *, in_ntt_form: bool) -> T:
    """Fill an empty ciphertext with polynomials x ring degree under one prime; words go to SEAL without a copy."""
    polynomials, degree = words.shape
    head = _CIPHERTEXT_HEAD.pack(parms_id, in_ntt_form, polynomials, degree, 1, 1.0, 1)
    array = _stream_head(8 + words.nbytes) + struct.pack("<Q", words.size)
    whole = _stream_head(len(head) + len(array) + words.nbytes)
    return _MEMORY.load(thing, context, whole + head + array, np.ascontiguousarray(words, "<u8").data.cast("B"))
