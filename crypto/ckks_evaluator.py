"""The evaluator's end of CKKS: loads what passed the gate, computes, and asks for masked sums. It cannot decrypt.

The rules it keeps, and why, stand in `crypto.ckks`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tenseal import sealapi

from crypto.ciphertexts import Seeded, read_integers, read_seeded, write_integers, write_words
from crypto.ckks import Masked, PublicMaterial, fill, galois_elements, repeats, score_groups
from crypto.ckks_context import contexts_of
from crypto.ckks_parameters import RING_DEGREE, SLOTS, CkksPreset
from crypto.packing import Group, groups_for
from crypto.ring import block_coefficients, block_sums, centred, uniform_words
from crypto.seal_stream import identifier, key_switching_payload, load, read_ciphertext, seeded_payload, stream

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CkksVector:
    """One encrypted number per row. Holds a SEAL ciphertext, which tracks its scale exactly; None is zero."""

    ciphertext: Any = field(repr=False)
    rows: int

    @property
    def primes(self) -> int:
        count: int = self.ciphertext.coeff_modulus_size()
        return count


@dataclass(frozen=True)
class Mask:
    """What only the evaluator can take off opened values again."""

    numbers: list[int] = field(repr=False)
    scales: list[float]
    modulus: int

    def remove(self, opened: bytes) -> Floats:
        """The released coefficients, unscaled. Raises InvalidCiphertext for another number of values."""
        values = read_integers(opened, len(self.numbers), self.modulus)
        return np.array(
            [
                centred((value - number) % self.modulus, self.modulus) / scale
                for value, number, scale in zip(values, self.numbers, self.scales, strict=True)
            ]
        )


class CkksPublicKey:
    """The evaluator's end: loads what passed the gate, computes, masks. Implements `Arithmetic` over CkksVector."""

    def __init__(self, preset: CkksPreset, material: PublicMaterial, values: int) -> None:
        """`values` as in `public_material`. Raises InvalidCiphertext for keys no honest owner could have sent."""
        self._contexts = contexts_of(preset)
        self._preset = preset
        self.operations: Counter[str] = Counter()
        self._seeds: set[bytes] = set()
        self._zeros: list[Any] = []
        release, relinearise = self._contexts.release, self._contexts.relinearise
        (public,) = self._gate(material.public, 1, release.moduli)
        key = stream(seeded_payload(release.key_identifier, 1.0, *public))
        self._encryptor = sealapi.Encryptor(release.seal, load(sealapi.PublicKey(), release.seal, key))
        self._relin_keys = self._packing_keys = None
        if values:
            digits = self._gate(material.relinearise, len(relinearise.moduli) - 1, relinearise.moduli)
            self._relin_keys = self._key_switching(relinearise, sealapi.RelinKeys(), {0: digits})
            elements = galois_elements(values)
            keys = self._gate(material.packing, len(elements), release.moduli)
            by_slot = {(element - 1) // 2: [key] for element, key in zip(elements, keys, strict=True)}
            if by_slot:
                self._packing_keys = self._key_switching(release, sealapi.GaloisKeys(), by_slot)

    def _gate(self, data: bytes, count: int, moduli: Sequence[int]) -> list[Seeded]:
        return read_seeded(data, count, moduli, RING_DEGREE, self._seeds)

    def _key_switching(self, context: Any, keys: Any, by_slot: dict[int, list[Seeded]]) -> Any:
        payloads = {
            slot: [seeded_payload(context.key_identifier, 1.0, *digit) for digit in digits]
            for slot, digits in by_slot.items()
        }
        return load(keys, context.seal, stream(key_switching_payload(context.key_identifier, payloads)))

    # -- what arrives

    def load(self, data: bytes, columns: int, rows: int) -> list[CkksVector]:
        """One vector per column, each holding `rows` values. Raises InvalidCiphertext."""
        context, preset = self._contexts.data, self._preset
        level = identifier(context.levels[-1])
        vectors = []
        for words, seed in self._gate(data, columns, preset.data_moduli):
            body = stream(seeded_payload(level, 2.0**preset.embedding_scale, words, seed))
            vectors.append(CkksVector(load(sealapi.Ciphertext(), context.seal, body), rows))
        self.operations["load"] += columns
        return vectors

    # -- arithmetic

    def weighted_sum(self, columns: Sequence[CkksVector], weights: Floats, offset: Floats) -> CkksVector:
        """sum_j weights[j] columns[j] + offset per row, one rescale, at the preset's score scale."""
        result = self._combine(columns, weights, 2.0**self._preset.score_scale, rescale=True)
        return self.plus(result, offset)

    def product(self, left: CkksVector, right: CkksVector) -> CkksVector:
        """Row by row; relinearised and rescaled."""
        context = self._contexts.relinearise
        primes = min(left.primes, right.primes)
        a, b = (self._at(vector.ciphertext, primes) for vector in (left, right))
        result = sealapi.Ciphertext()
        context.evaluator.multiply(a, b, result)
        context.evaluator.relinearize_inplace(result, self._relin_keys)
        self._contexts.data.evaluator.rescale_to_next_inplace(result)
        self.operations.update(("multiply", "relinearise", "rescale"))
        return CkksVector(result, left.rows)

    def subtract_from(self, constant: float, value: CkksVector) -> CkksVector:
        evaluator, result = self._contexts.data.evaluator, sealapi.Ciphertext()
        evaluator.negate(value.ciphertext, result)
        plain = self._contexts.data.encode(constant, value.primes, result.scale)
        evaluator.add_plain_inplace(result, plain)
        return CkksVector(result, value.rows)

    def plus(self, value: CkksVector, rows: Floats) -> CkksVector:
        """Empty slots get nothing: there embedding, offset and target are all zero, and so is the error."""
        result = sealapi.Ciphertext()
        plain = self._contexts.data.encode(fill(rows), value.primes, value.ciphertext.scale)
        self._contexts.data.evaluator.add_plain(value.ciphertext, plain, result)
        self.operations["add plain"] += 1
        return CkksVector(result, value.rows)

    def row_products(
        self, errors: Sequence[CkksVector], columns: Sequence[CkksVector], own: Floats
    ) -> list[CkksVector]:
        """Each error (at the last level) times every column and every own column, prepared for `mask_sums`.

        No rescale: the first prime holds the product. Each error is first multiplied by 1/width modulo that prime,
        which undoes the factor that packing into a group of that width puts on its values.
        """
        evaluator, rows = self._contexts.release.evaluator, len(own)
        width = len(columns) + own.shape[1]
        widths = [group.width for group in groups_for(len(errors) * width) for _ in range(group.values)]
        lowered = [self._at(column.ciphertext, 1) for column in columns]
        plains = [self._own_plain(column) for column in own.T]
        products = []
        for k, error in enumerate(errors):
            scaled: dict[int, Any] = {}
            for j, group_width in enumerate(widths[k * width : (k + 1) * width]):
                if group_width not in scaled:
                    scaled[group_width] = sealapi.Ciphertext()
                    inverse = self._contexts.inverse_width(group_width)
                    evaluator.multiply_plain(error.ciphertext, inverse, scaled[group_width])
                result = sealapi.Ciphertext()
                if j < len(columns):
                    evaluator.multiply(scaled[group_width], lowered[j], result)
                    self._contexts.relinearise.evaluator.relinearize_inplace(result, self._relin_keys)
                    self.operations.update(("multiply", "relinearise"))
                elif (plain := plains[j - len(columns)]) is None:
                    result = None
                else:
                    evaluator.multiply_plain(scaled[group_width], plain, result)
                    self.operations["multiply plain"] += 1
                products.append(CkksVector(result, rows))
        return products

    def _own_plain(self, column: Floats) -> Any:
        """An own column at the last level and the embedding's scale; None when zero, which SEAL cannot multiply."""
        if not column.any():
            return None
        value = float(column[0]) if (column == column[0]).all() else fill(column)
        return self._contexts.release.encode(value, 1, 2.0**self._preset.embedding_scale)

    def scores(self, columns: Sequence[CkksVector], weights: Floats) -> list[CkksVector]:
        """Coefficient-encoded columns weighted by outputs x columns: scalar products keep the rows apart."""
        scale = 2.0**self._preset.sum_scale
        return [
            CkksVector(self._at(self._combine(columns, row, scale, rescale=False).ciphertext, 1), columns[0].rows)
            for row in weights
        ]

    def _combine(self, columns: Sequence[CkksVector], weights: Floats, scale: float, *, rescale: bool) -> CkksVector:
        context, total = self._contexts.data, None
        fresh = columns[0].ciphertext
        weight_scale = scale / fresh.scale * (context.moduli[columns[0].primes - 1] if rescale else 1)
        quantised = np.rint(weights * weight_scale)
        if not quantised.any():
            quantised[0] = 1.0  # SEAL refuses a product with zero; one quantum is far below the noise
        for column, quantum in zip(columns, quantised / weight_scale, strict=True):
            if quantum:
                term = sealapi.Ciphertext()
                context.evaluator.multiply_plain(
                    column.ciphertext, context.encode(float(quantum), column.primes, weight_scale), term
                )
                if total is None:
                    total = term
                else:
                    context.evaluator.add_inplace(total, term)
        self.operations["multiply plain"] += int(np.count_nonzero(quantised))
        if rescale:
            context.evaluator.rescale_to_next_inplace(total)
            self.operations["rescale"] += 1
        return CkksVector(total, columns[0].rows)

    def _at(self, ciphertext: Any, primes: int) -> Any:
        if ciphertext.coeff_modulus_size() == primes:
            return ciphertext
        lowered, context = sealapi.Ciphertext(), self._contexts.data
        context.evaluator.mod_switch_to(ciphertext, context.levels[primes - 1], lowered)
        return lowered

    # -- what leaves

    def prepare_zeros(self, count: int) -> None:
        """Fill the pool of fresh encryptions of zero, each used once; work for the time a reply is awaited."""
        level = self._contexts.release.levels[0]
        while len(self._zeros) < count:
            zero = sealapi.Ciphertext()
            self._encryptor.encrypt_zero(level, zero)
            self._zeros.append(zero)
            self.operations["encrypt zero"] += 1

    def mask_sums(self, products: Sequence[CkksVector]) -> tuple[Masked, Mask]:
        """Ask for the sum over the distinct rows of each product. `Mask.remove` gives those sums in the same order."""
        groups, packed, start = groups_for(len(products)), [], 0
        scale = next(p.ciphertext.scale for p in products if p.ciphertext is not None)
        for group in groups:
            leaves = [product.ciphertext for product in products[start : start + group.values]]
            packed.append(self._pack([*leaves, *[None] * (group.width - group.values)]))
            start += group.values
        # constant coefficient = scale x mean over slots; the rows stand in them `repeats` times
        return self._release(packed, groups, scale * repeats(products[0].rows) / SLOTS, scale)

    def mask_scores(self, scores: Sequence[CkksVector]) -> tuple[Masked, Mask]:
        """Ask for the first coefficients of each score ciphertext, as many as it holds rows."""
        groups = score_groups(scores[0].rows, len(scores))
        scale = scores[0].ciphertext.scale
        return self._release([score.ciphertext for score in scores], groups, scale, scale)

    def _release(self, packed: list[Any], groups: Sequence[Group], unit: float, scale: float) -> tuple[Masked, Mask]:
        modulus, evaluator = self._preset.data_moduli[0], self._contexts.release.evaluator
        self.prepare_zeros(len(packed))
        polynomials, numbers, masks = [], [], []
        for ciphertext, group in zip(packed, groups, strict=True):
            total = self._zeros.pop()
            total.scale = scale
            if ciphertext is not None:
                evaluator.add_inplace(total, ciphertext)
            words = read_ciphertext(total)
            mask = uniform_words(group.width, modulus)
            sums = block_sums(words[0, 0], group.width, modulus)
            polynomials.append(write_words(words[1], (modulus,)))
            numbers += [(total + number) % modulus for total, number in zip(sums, mask, strict=True)]
            masks += block_coefficients(mask, RING_DEGREE, modulus)[: group.values]
        self.operations["release value"] += len(masks)
        return Masked(b"".join(polynomials), write_integers(numbers)), Mask(masks, [unit] * len(masks), modulus)

    def _pack(self, leaves: list[Any]) -> Any:
        """One ciphertext whose coefficients at multiples of N/m are m times the leaves' constant coefficients."""
        if len(leaves) == 1:
            return leaves[0]
        level = len(leaves).bit_length() - 1
        even, odd = self._pack(leaves[0::2]), self._pack(leaves[1::2])
        if even is None and odd is None:
            return None
        evaluator, total, difference = self._contexts.release.evaluator, sealapi.Ciphertext(), sealapi.Ciphertext()
        if odd is None:
            total = difference = even
        else:
            shifted = sealapi.Ciphertext()
            evaluator.multiply_plain(odd, self._contexts.monomials[level], shifted)
            if even is None:
                total = shifted
                evaluator.negate(shifted, difference)
            else:
                evaluator.add(even, shifted, total)
                evaluator.sub(even, shifted, difference)
        rotated = sealapi.Ciphertext()
        evaluator.apply_galois(difference, (1 << level) + 1, self._packing_keys, rotated)
        evaluator.add_inplace(rotated, total)
        self.operations["pack"] += 1
        return rotated
