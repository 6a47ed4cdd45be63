"""Work on ciphertexts, counted: the top model runs its own passes on an arithmetic that counts and computes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crypto.ckks_parameters import CkksPreset
from crypto.packing import groups_for
from vfl.models.polynomial import RowProducts, Top
from vfl.models.scorer import Shape
from vfl.planning.training import loss_of, preset_of
from vfl.planning.work import Counts, added, times
from vfl.spec.training import TrainingSpec

Floats = NDArray[np.float64]
ROWS = 2
"""Of a pass that only counts: what it counts does not hang on them."""


@dataclass(frozen=True)
class Counted:
    """An encrypted vector of which only the number of primes is known."""

    primes: int


class CountedArithmetic:
    """Implements `Arithmetic` over Counted, as `crypto.ckks_evaluator` does over ciphertexts."""

    def __init__(self) -> None:
        self.counts: Counts = {}

    def weighted_sum(
        self,
        columns: Sequence[Counted],
        weights: Floats,  # noqa: ARG002
        offset: Floats,  # noqa: ARG002
        factors: Floats | None = None,
    ) -> Counted:
        primes = columns[0].primes
        self._add(f"weighted sum@{primes}")
        self._add(f"{'plain' if factors is None else 'slot'} product@{primes}", len(columns))
        return Counted(primes - 1)

    def product(self, left: Counted, right: Counted) -> Counted:
        primes = min(left.primes, right.primes)
        self._add(f"product@{primes}")
        return Counted(primes - 1)

    def weighted_products(self, errors: Sequence[Counted], value: Counted, weights: Floats) -> Counted:  # noqa: ARG002
        primes = errors[0].primes
        self._add(f"closed product@{primes}")
        self._add(f"slope@{primes}", len(errors))
        return Counted(primes - 1)

    def subtract_from(self, constant: float, value: Counted) -> Counted:  # noqa: ARG002
        return value

    def plus(self, value: Counted, rows: Floats) -> Counted:  # noqa: ARG002
        self._add(f"added rows@{value.primes}")
        return value

    def subtract_encrypted(self, value: Counted, rows: Floats) -> Counted:  # noqa: ARG002
        self._add(f"encrypted label@{value.primes}")
        return value

    def add_products(self, products: RowProducts[Counted]) -> None:
        """Of one block."""
        self._add("error in sums", len({id(error) for error, _ in products}))
        for _, factor in products:
            self._add("summand, encrypted" if isinstance(factor, Counted) else "summand, clear")

    def release(self, products: RowProducts[Counted]) -> None:
        """Once the products of all blocks are added."""
        for _, factor in products:
            self._add("packed value, encrypted" if isinstance(factor, Counted) else "packed value, clear")
        self._add("release", len(groups_for(len(products))))

    def _add(self, operation: str, number: float = 1) -> None:
        self.counts = added(self.counts, {f"ckks/{operation}": number})


def key(preset: CkksPreset, values: int) -> Counts:
    """Of a fresh key, at its owner."""
    return {f"ckks/key@{len(preset.data_moduli)}": 1, "ckks/packing key": _packing_keys(values)}


def loaded_key(preset: CkksPreset, values: int) -> Counts:
    return {f"ckks/loaded key@{len(preset.data_moduli)}": 1, "ckks/loaded packing key": _packing_keys(values)}


def encrypted(preset: CkksPreset, columns: int) -> Counts:
    return {f"ckks/encrypted column@{len(preset.data_moduli)}": columns}


def opened(values: int) -> Counts:
    return {"ckks/opening": len(groups_for(values)), "ckks/opened value": values}


def label_step(spec: TrainingSpec, parts: int) -> Counts:
    """What the label party computes in one step, on a batch in so many blocks."""
    top, shape = _top(spec)
    arithmetic, embedding = _loaded(spec, shape)
    weights = None if spec.train.class_weights == "none" else np.ones(ROWS)
    own, targets = np.zeros((ROWS, shape.own)), np.zeros((ROWS, shape.outputs))
    passes = top.passes(arithmetic, embedding, own, targets, weights)
    arithmetic.add_products(passes.products)
    blocks = times(parts, arithmetic.counts)
    arithmetic.counts = {}
    arithmetic.release(passes.products)
    return added(blocks, arithmetic.counts)


def label_validation(spec: TrainingSpec, parts: int) -> Counts:
    top, shape = _top(spec)
    arithmetic, embedding = _loaded(spec, shape)
    squares = top.squared_errors(
        arithmetic, embedding, np.zeros((ROWS, shape.own)), np.zeros((ROWS, shape.outputs)), np.ones(ROWS)
    )
    arithmetic.add_products(squares)
    blocks = times(parts, arithmetic.counts)
    arithmetic.counts = {}
    arithmetic.release(squares)
    return added(blocks, arithmetic.counts)


def _top(spec: TrainingSpec) -> tuple[Top, Shape]:
    label = spec.roster.label
    width = sum(map(spec.embedding_width, spec.roster.features))
    shape = Shape(width, spec.data[label].prepared_width, spec.hidden, spec.outputs)
    encrypts_labels = spec.ckks.labels == "ciphertext"
    limit = spec.train.weight_limit
    top = Top(shape, loss_of(spec), spec.train.optimiser, bytes(32), limit, encrypt_labels=encrypts_labels)
    return top, shape


def _loaded(spec: TrainingSpec, shape: Shape) -> tuple[CountedArithmetic, list[Counted]]:
    primes, arithmetic = len(preset_of(spec).data_moduli), CountedArithmetic()
    arithmetic.counts = {f"ckks/loaded column@{primes}": shape.embedding}
    return arithmetic, [Counted(primes)] * shape.embedding


def _packing_keys(values: int) -> int:
    return max(group.width for group in groups_for(values)).bit_length() - 1
