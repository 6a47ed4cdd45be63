"""CKKS for two parties: one owns the key, the other computes and reads nothing but masked, noisy sums.

Four rules, each with a test that shows what happens without it:

1. A ciphertext handed back to the key owner is first re-randomised with a fresh encryption of zero; else its second
   polynomial is a linear system in the evaluator's weights.
2. A sum is released as one masked coefficient, never as slots, and the rest of its first polynomial never travels: the
   key owner sees pseudo-random words and uniform numbers.
3. The key owner adds noise to each value it opens and counts them; else as many exact answers as the ring has
   coefficients give the key away. A key lives in memory, for the values its preset allows.
4. The public key travels as a seeded encryption of zero, so that its random half is not the key owner's choice; every
   seeded ciphertext has a seed of its own.

The sum over all slots of a plaintext is (N/2) / scale times its constant coefficient, which is why nobody rotates slots
(ckks_training.md).
"""

import math
import secrets
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from crypto.ciphertexts import Seeded, read_integers, read_words, write_integers, write_seeded
from crypto.ckks_columns import encrypted_column, encryption_key
from crypto.ckks_context import contexts_of, fresh_secret, secret_under, seeded_public_key
from crypto.ckks_parameters import CUT_SCALE, RING_DEGREE, SLOTS, CkksPreset
from crypto.errors import InvalidCiphertext, KeyUsedUp, OutOfRange
from crypto.packing import Group, groups_for
from crypto.pieces import HERE, Pool
from crypto.ring import block_coefficients, block_inner_products
from crypto.seal_stream import ciphertext_payload, identifier, load, read_key_switching, stream

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]


class PublicMaterial(NamedTuple):
    """A key's public part in wire form. Packing keys come smallest width first."""

    public: bytes
    relinearise: bytes
    packing: bytes


class Masked(NamedTuple):
    """What the evaluator sends to have values opened: one c1 per group, and the masked words of c0 it wants."""

    packed: bytes
    masked: bytes


def repeats(rows: int) -> int:
    """How often a block of distinct rows fills the slots; what is left over stays empty."""
    if not 0 < rows <= SLOTS:
        raise OutOfRange(f"{rows} rows do not fit {SLOTS} slots")
    return SLOTS // rows


class CkksPrivateKey:
    """The key owner's end: encrypts, opens masked values with noise, counts them. Cannot be printed or pickled.

    Raises KeyUsedUp when a value more than the preset allows would be opened.
    """

    def __init__(self, preset: CkksPreset, values_per_key: int) -> None:
        self._contexts = contexts_of(preset)
        self._preset = preset
        self.values_left = values_per_key
        self.operations: Counter[str] = Counter()
        self._secret = fresh_secret(self._contexts.data)

    def __repr__(self) -> str:
        return "CkksPrivateKey(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key stays in the process that made it")

    def public_material(self, values: int) -> PublicMaterial:
        """The public part for releases of up to `values` numbers."""
        contexts = self._contexts
        public = seeded_public_key(self._secret, contexts.zero, contexts.public.moduli)
        relinearise = sealapi.KeyGenerator(
            contexts.relinearise.seal, secret_under(self._secret, contexts.relinearise)
        ).create_relin_keys()
        generator = sealapi.KeyGenerator(contexts.release.seal, secret_under(self._secret, contexts.release))
        packing = [generator.create_galois_keys([element]) for element in galois_elements(values)]
        return PublicMaterial(
            public,
            write_seeded((Seeded(*key) for key in read_key_switching(relinearise)), contexts.relinearise.moduli),
            write_seeded(
                (Seeded(*key) for keys in packing for key in read_key_switching(keys)), contexts.release.moduli
            ),
        )

    def encrypt_rows(self, columns: Floats, times: int, pool: Pool = HERE) -> bytes:
        """Rows x columns as one seeded ciphertext per column, rows in slots, repeated so many times."""
        shared = encryption_key(self._secret, self._preset, times)
        self.operations["encrypt"] += columns.shape[1]
        return b"".join(pool.map(encrypted_column, shared, (column.tobytes() for column in columns.T)))

    def open(self, masked: Masked, groups: Sequence[Group], output_sums: int = 0, blocks: int = 1) -> bytes:
        """The values of these groups, still masked, each with fresh noise. Nothing else of the ciphertext is returned.

        The last `output_sums` of them belong to an output layer above hidden neurons and get its wider noise. Sums over
        several `blocks` carry the ciphertext noise of each, and get as much more.
        The noise is added to coefficients, after the transform: before it, full-size constants would multiply it.
        """
        count = sum(group.values for group in groups)
        if count > self.values_left:
            raise KeyUsedUp(f"{count} values were asked for, and this key may open {self.values_left} more")
        modulus = self._preset.data_moduli[0]
        numbers = read_integers(masked.masked, sum(group.width for group in groups), modulus)
        size = 8 * RING_DEGREE
        if len(masked.packed) != size * len(groups):
            raise InvalidCiphertext(
                f"{len(groups)} polynomials of {size} bytes were due, and {len(masked.packed)} bytes came"
            )
        self.values_left -= count
        self.operations["open value"] += count
        noise, opened = secrets.SystemRandom(), []
        for position, group in enumerate(groups):
            packed = memoryview(masked.packed)[position * size : (position + 1) * size]
            words = read_words(packed, (modulus,), RING_DEGREE)[0]
            products = block_inner_products(words, self._secret[modulus], group.width, modulus)
            sums = [(number + product) % modulus for number, product in zip(numbers, products, strict=False)]
            numbers = numbers[group.width :]
            values = block_coefficients(sums, RING_DEGREE, modulus)[: group.values]
            opened += values
        widths = [self._preset.noise] * (count - output_sums) + [self._preset.output_noise] * output_sums
        wider = math.log2(blocks) / 2
        noisy = (
            value + self._noise(noise, width + wider if width else 0.0)
            for value, width in zip(opened, widths, strict=True)
        )
        return write_integers(value % modulus for value in noisy)

    def decrypt_cut(self, data: bytes, count: int, rows: int) -> Floats:
        """Whole cut errors, for the key owner's eyes alone: rows x count. Their imaginary halves are dropped unread.

        Raises InvalidCiphertext for anything but `count` ciphertexts of two polynomials at the last level.
        """
        context, modulus = self._contexts.release, self._preset.data_moduli[0]
        size = 2 * 8 * RING_DEGREE
        if len(data) != count * size:
            raise InvalidCiphertext(f"{count} ciphertexts of {size} bytes were due, and {len(data)} bytes came")
        decryptor, columns = sealapi.Decryptor(context.seal, secret_under(self._secret, context)), []
        for start in range(0, len(data), size):
            words = read_words(memoryview(data)[start : start + size], (modulus, modulus), RING_DEGREE)
            body = ciphertext_payload(identifier(context.levels[0]), 2.0**CUT_SCALE, words.reshape(2, 1, RING_DEGREE))
            plain = sealapi.Plaintext()
            decryptor.decrypt(load(sealapi.Ciphertext(), context.seal, stream(body)), plain)
            columns.append(context.encoder.decode_double(plain)[:rows])
        self.operations["decrypt"] += count
        return np.array(columns).T

    def _noise(self, generator: secrets.SystemRandom, width: float) -> int:
        return round(generator.gauss(0.0, 2.0**width)) if width > 0 else 0


def galois_elements(values: int) -> list[int]:
    """Automorphisms that packing so many values uses, smallest width first."""
    widest = max(group.width for group in groups_for(values))
    return [(1 << level) + 1 for level in range(1, widest.bit_length())]
