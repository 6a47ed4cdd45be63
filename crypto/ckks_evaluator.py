"""The evaluator's end of CKKS: loads what passed the gate, computes, and asks for masked sums. It cannot decrypt.

The rules it keeps, and why, stand in `crypto.ckks`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from crypto.ciphertexts import Seeded, new_seeds, read_seeded, write_integers, write_words
from crypto.ckks import Masked, PublicMaterial, galois_elements
from crypto.ckks_columns import to_slots
from crypto.ckks_context import contexts_of, load_public_key
from crypto.ckks_packing import Packing, words_of
from crypto.ckks_parameters import CUT_SCALE, RING_DEGREE, SLOTS, CkksPreset
from crypto.ckks_sums import EncryptedSums, Mask, PackedSums, UnpackedSums, added
from crypto.ring import block_coefficients, block_sums, uniform_words
from crypto.seal_stream import identifier, key_switching_payload, load, read_ciphertext, seeded_payload, stream

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]

LEAST_BY_ROW = 256.0
"""In units of a plaintext's scale: slots of this size leave coefficients that are not all rounded to zero."""


@dataclass(frozen=True)
class CkksVector:
    """One encrypted number per row, in slots filled `times` times. SEAL tracks the ciphertext's scale exactly."""

    ciphertext: Any = field(repr=False)
    rows: int
    times: int

    @property
    def primes(self) -> int:
        count: int = self.ciphertext.coeff_modulus_size()
        return count


RowProduct: TypeAlias = tuple[CkksVector, CkksVector | Floats]
"""An error and what it is multiplied with, row by row: another vector, or clear numbers."""


class CkksPublicKey:
    """The evaluator's end: loads what passed the gate, computes, masks. Implements `Arithmetic` over CkksVector."""

    def __init__(self, preset: CkksPreset, material: PublicMaterial, values: int) -> None:
        """`values` as in `public_material`. Raises InvalidCiphertext for keys no honest owner could have sent."""
        self._contexts = contexts_of(preset)
        self._preset = preset
        self.operations: Counter[str] = Counter()
        self._seeds: set[bytes] = set()
        self._zeros: list[Any] = []
        release, relinearise, public = self._contexts.release, self._contexts.relinearise, self._contexts.public
        (zero,) = self._gate(material.public, 1, public.moduli)
        self._encryptor = load_public_key(public, zero)
        digits = self._gate(material.relinearise, len(relinearise.moduli) - 1, relinearise.moduli)
        self._relin_keys = self._key_switching(relinearise, sealapi.RelinKeys(), {0: digits})
        packing_keys, elements = None, galois_elements(values)
        keys = self._gate(material.packing, len(elements), release.moduli)
        by_slot = {(element - 1) // 2: [key] for element, key in zip(elements, keys, strict=True)}
        if by_slot:
            packing_keys = self._key_switching(release, sealapi.GaloisKeys(), by_slot)
        self.packing = Packing(self._contexts, self._relin_keys, packing_keys, self.operations)

    @property
    def modulus(self) -> int:
        """Of the last level."""
        return self._preset.data_moduli[0]

    def _gate(self, data: bytes, count: int, moduli: Sequence[int]) -> list[Seeded]:
        return read_seeded(data, count, moduli, RING_DEGREE, self._seeds)

    def _key_switching(self, context: Any, keys: Any, by_slot: dict[int, list[Seeded]]) -> Any:
        payloads = {
            slot: [seeded_payload(context.key_identifier, 1.0, *digit) for digit in digits]
            for slot, digits in by_slot.items()
        }
        return load(keys, context.seal, stream(key_switching_payload(context.key_identifier, payloads)))

    # -- what arrives

    def load(self, data: bytes, columns: int, rows: int, times: int) -> list[CkksVector]:
        """One vector per column, each holding `rows` values `times` times. Raises InvalidCiphertext."""
        self.check_seeds(data, columns)
        return self.load_checked(data, columns, rows, times)

    def check_seeds(self, data: bytes, columns: int) -> None:
        """That none has been used under this key, which one process alone can know. Raises InvalidCiphertext."""
        new_seeds(data, columns, self._preset.data_moduli, RING_DEGREE, self._seeds)

    def load_checked(self, data: bytes | memoryview, columns: int, rows: int, times: int) -> list[CkksVector]:
        """`load` of ciphertexts whose seeds have been checked: everything else is checked here."""
        context, preset = self._contexts.data, self._preset
        level = identifier(context.levels[-1])
        vectors = []
        for words, seed in read_seeded(data, columns, preset.data_moduli, RING_DEGREE, set()):
            body = stream(seeded_payload(level, 2.0**preset.embedding_scale, words, seed))
            vectors.append(CkksVector(load(sealapi.Ciphertext(), context.seal, body), rows, times))
        self.operations["load"] += columns
        return vectors

    # -- arithmetic

    def weighted_sum(
        self, columns: Sequence[CkksVector], weights: Floats, offset: Floats, factors: Floats | None = None
    ) -> CkksVector:
        """sum_j weights[j] columns[j] + offset per row, one rescale, at the preset's scale for the level below.

        Factors, above 0 and at most 1, multiply the sum row by row and take no level of their own: they join the
        weights, which are then a number per slot in place of one for all.
        """
        scale = 2.0 ** self._preset.level_scales[columns[0].primes - 2]
        return self.plus(self._combine(columns, weights, scale, factors, rescale=True), offset)

    def product(self, left: CkksVector, right: CkksVector) -> CkksVector:
        """Row by row; relinearised and rescaled."""
        return self._finished(self._multiplied(left, right), left)

    def weighted_products(self, errors: Sequence[CkksVector], value: CkksVector, weights: Floats) -> CkksVector:
        """value x sum_o weights[o] errors[o], row by row; one relinearisation and one rescale for the whole sum."""
        lowered = replace(value, ciphertext=self._at(value.ciphertext, errors[0].primes + 1))
        scale, total = 2.0 ** self._preset.level_scales[errors[0].primes - 1], None
        for error, weight in zip(errors, weights, strict=True):
            slope = self._combine([lowered], np.array([weight]), scale, rescale=True)
            term = self._multiplied(error, slope)
            if total is None:
                total = term
            else:
                self._contexts.data.evaluator.add_inplace(total, term)
        return self._finished(total, value)

    def subtract_from(self, constant: float, value: CkksVector) -> CkksVector:
        evaluator, result = self._contexts.data.evaluator, sealapi.Ciphertext()
        evaluator.negate(value.ciphertext, result)
        plain = self._contexts.data.encode(constant, value.primes, result.scale)
        evaluator.add_plain_inplace(result, plain)
        return replace(value, ciphertext=result)

    def plus(self, value: CkksVector, rows: Floats) -> CkksVector:
        """Empty slots get nothing: there embedding, offset and target are all zero, and so is the error."""
        result = sealapi.Ciphertext()
        plain = self._contexts.data.encode(to_slots(rows, value.times), value.primes, value.ciphertext.scale)
        self._contexts.data.evaluator.add_plain(value.ciphertext, plain, result)
        self.operations["add plain"] += 1
        return replace(value, ciphertext=result)

    def subtract_encrypted(self, value: CkksVector, rows: Floats) -> CkksVector:
        """value - [[rows]], the rows encrypted here first under the owner's public key: the label ciphertext."""
        context, result = self._contexts.public, sealapi.Ciphertext()
        plain = context.encode(to_slots(rows, value.times), value.primes, value.ciphertext.scale)
        encrypted = sealapi.Ciphertext()
        self._encryptor.encrypt(plain, encrypted)
        context.evaluator.sub(value.ciphertext, encrypted, result)
        self.operations["encrypt label"] += 1
        return replace(value, ciphertext=result)

    def _multiplied(self, left: CkksVector, right: CkksVector) -> Any:
        primes = min(left.primes, right.primes)
        a, b = (self._at(vector.ciphertext, primes) for vector in (left, right))
        result = sealapi.Ciphertext()
        self._contexts.data.evaluator.multiply(a, b, result)
        self.operations["multiply"] += 1
        return result

    def _finished(self, product: Any, like: CkksVector) -> CkksVector:
        self._contexts.relinearise.evaluator.relinearize_inplace(product, self._relin_keys)
        self._contexts.data.evaluator.rescale_to_next_inplace(product)
        self.operations.update(("relinearise", "rescale"))
        return replace(like, ciphertext=product)

    def _combine(
        self,
        columns: Sequence[CkksVector],
        weights: Floats,
        scale: float,
        factors: Floats | None = None,
        *,
        rescale: bool,
    ) -> CkksVector:
        context, total = self._contexts.data, None
        first = columns[0]
        weight_scale = scale / first.ciphertext.scale * (context.moduli[first.primes - 1] if rescale else 1)
        quantised = np.rint(weights * weight_scale)
        least = 1.0 if factors is None else LEAST_BY_ROW / factors.max()
        quantised[np.abs(quantised) < least] = 0.0
        if not quantised.any():
            quantised[0] = least  # SEAL refuses a product with zero; so small a weight is far below the noise
        for column, quantum in zip(columns, quantised / weight_scale, strict=True):
            if quantum:
                value = float(quantum) if factors is None else to_slots(quantum * factors, first.times)
                term = sealapi.Ciphertext()
                context.evaluator.multiply_plain(
                    column.ciphertext, context.encode(value, column.primes, weight_scale), term
                )
                if total is None:
                    total = term
                else:
                    context.evaluator.add_inplace(total, term)
        self.operations["multiply plain"] += int(np.count_nonzero(quantised))
        if rescale:
            context.evaluator.rescale_to_next_inplace(total)
            self.operations["rescale"] += 1
        return replace(first, ciphertext=total)

    def _at(self, ciphertext: Any, primes: int) -> Any:
        if ciphertext.coeff_modulus_size() == primes:
            return ciphertext
        lowered, context = sealapi.Ciphertext(), self._contexts.data
        context.evaluator.mod_switch_to(ciphertext, context.levels[primes - 1], lowered)
        return lowered

    # -- sums over rows

    def add_products(self, sums: EncryptedSums, products: Sequence[RowProduct]) -> None:
        """Add one block's row products, in the order in which the sums are to be released.

        Nothing is rescaled: the first prime holds the product. Each error is multiplied once by 1/width modulo that
        prime, which undoes the factor that packing into a group of that width puts on its values. Scales of one release
        differ by a hair; the exact one of each value is kept for `Mask`.
        """
        evaluator = self._contexts.release.evaluator
        scaled: dict[tuple[int, int], Any] = {}
        factors: dict[tuple[int, float], Any] = {}
        sums.times = products[0][0].times
        for position, (error, factor) in enumerate(products):
            width = sums.widths[position]
            if (id(error), width) not in scaled:
                lowered, result = self._at(error.ciphertext, 1), sealapi.Ciphertext()
                evaluator.multiply_plain(lowered, self._contexts.inverse_width(width), result)
                scaled[id(error), width] = result
            left = scaled[id(error), width]
            at = (id(factor), error.ciphertext.scale)
            if at not in factors:
                factors[at] = self._factor(factor, error)
            if (right := factors[at]) is None:
                continue
            term = sealapi.Ciphertext()
            if isinstance(factor, CkksVector):
                evaluator.multiply(left, right, term)
                self.operations["multiply"] += 1
            else:
                evaluator.multiply_plain(left, right, term)
                self.operations["multiply plain"] += 1
            if sums.ciphertexts[position] is None:
                sums.ciphertexts[position] = term
            else:
                evaluator.add_inplace(sums.ciphertexts[position], term)

    def _factor(self, factor: CkksVector | Floats, error: CkksVector) -> Any:
        """At the last level; clear numbers at the scale that gives a sum its own. None for zeros: SEAL refuses them."""
        if isinstance(factor, CkksVector):
            return self._at(factor.ciphertext, 1)
        if not factor.any():
            return None
        value = float(factor[0]) if (factor == factor[0]).all() else to_slots(factor, error.times)
        return self._contexts.release.encode(value, 1, 2.0**self._preset.sum_scale / error.ciphertext.scale)

    # -- what leaves

    def prepare_zeros(self, count: int) -> None:
        """Fill the pool of fresh encryptions of zero, each used once; work for the time a reply is awaited."""
        level = self._contexts.public.levels[0]
        while len(self._zeros) < count:
            zero = sealapi.Ciphertext()
            self._encryptor.encrypt_zero(level, zero)
            self._zeros.append(zero)
            self.operations["encrypt zero"] += 1

    def mask_sums(self, sums: EncryptedSums) -> tuple[Masked, Mask]:
        """Ask for each sum over distinct rows. `Mask.remove` gives them in the order of `add_products`."""
        return self.mask_packed(self.pack(sums))

    def pack(self, sums: EncryptedSums) -> PackedSums:
        """The same in few ciphertexts; the sums are used up."""
        usual_unit, units = self._units(sums)
        words, start = [], 0
        for group in sums.groups:
            leaves = sums.ciphertexts[start : start + group.values]
            packed = self.packing.packed([*leaves, *[None] * (group.width - group.values)])
            words.append(np.zeros((2, RING_DEGREE), np.uint64) if packed is None else words_of(packed))
            start += group.values
        return PackedSums(sums.groups, usual_unit, units, words)

    def words_of_sums(self, sums: EncryptedSums) -> UnpackedSums:
        """The same for another process, which adds them to those of other blocks."""
        return UnpackedSums(*self._units(sums), [words_of(ciphertext) for ciphertext in sums.ciphertexts])

    def _units(self, sums: EncryptedSums) -> tuple[float, list[float]]:
        # constant coefficient = scale x mean over slots; the rows stand in them `times` times
        share = sums.times / SLOTS
        units = [0.0 if ciphertext is None else share * ciphertext.scale for ciphertext in sums.ciphertexts]
        return share * 2.0**self._preset.sum_scale, units

    def cut_errors(self, errors: Sequence[CkksVector], mixing: Floats, noise: Complex) -> bytes:
        """For each column of `mixing` (errors x columns) the combination of errors, plus noise (rows x columns).

        The noise is complex: its imaginary half covers the ciphertext noise that a key owner would else read in the
        imaginary halves of the slots (ckks_training.md). Ciphertexts travel whole, re-randomised.
        """
        context, modulus = self._contexts.release, self._preset.data_moduli[0]
        lowered = [replace(error, ciphertext=self._at(error.ciphertext, 1)) for error in errors]
        self.prepare_zeros(mixing.shape[1])
        encoded = []
        for weights, rows in zip(mixing.T, noise.T, strict=True):
            total = self._combine(lowered, weights.copy(), 2.0**CUT_SCALE, rescale=False).ciphertext
            slots = np.zeros(SLOTS, np.complex128)
            slots[: len(rows)] = rows
            context.evaluator.add_plain_inplace(total, context.encode(slots.tolist(), 1, total.scale))
            zero = self._zeros.pop()
            zero.scale = total.scale
            context.evaluator.add_inplace(total, zero)
            words = read_ciphertext(total)
            encoded.append(write_words(words[:, 0], (modulus, modulus)))
        return b"".join(encoded)

    def mask_packed(self, sums: PackedSums) -> tuple[Masked, Mask]:
        """Each under a mask of its own, behind a fresh encryption of zero."""
        modulus = self._preset.data_moduli[0]
        self.prepare_zeros(len(sums.groups))
        polynomials, numbers, masks = [], [], []
        for packed, group in zip(sums.words, sums.groups, strict=True):
            words = added(words_of(self._zeros.pop()), packed, modulus)
            mask = uniform_words(group.width, modulus)
            totals = block_sums(words[0], group.width, modulus)
            polynomials.append(write_words(words[1:], (modulus,)))
            numbers += [(total + number) % modulus for total, number in zip(totals, mask, strict=True)]
            masks += block_coefficients(mask, RING_DEGREE, modulus)[: group.values]
        self.operations["release value"] += len(masks)
        return Masked(b"".join(polynomials), write_integers(numbers)), Mask(
            masks, [unit or sums.usual_unit for unit in sums.units], modulus
        )
