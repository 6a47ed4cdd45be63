"""What work on ciphertexts costs on this machine: each sort of operation is done a few times by the real classes.

A cost hangs on the number of primes that a ciphertext stands on and on nothing else, so two presets are enough for all:
between the numbers of primes that they measure, costs are interpolated (`vfl.planning.work`).
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from crypto.ckks import CkksPrivateKey, Masked, repeats
from crypto.ckks_context import contexts_of
from crypto.ckks_evaluator import CkksPublicKey, CkksVector, RowProduct
from crypto.ckks_parameters import PRESETS, CkksPreset
from crypto.ckks_sums import EncryptedSums
from crypto.encrypted_quadratics import EncryptedQuadratics, QuadraticKey
from crypto.encrypted_weights import EncryptedWeights, WeightsKey
from crypto.packing import groups_for
from crypto.scoring_keys import ScoreBlock
from crypto.scoring_parameters import layout_for

Floats = NDArray[np.float64]
Cost = tuple[str, float]
"""An operation, with the number of primes where these count (`plain product@5`), and its seconds."""

ROWS, VALUES, TIMES, MANY = 512, 16, 3, 4
WIDTHS = 8, 64
"""Of rows that a model with hidden neurons scores."""
OPENED = 1 << 20
"""Values that a key made here may open: it protects nothing."""


def costs(clock: Callable[[], float]) -> Iterator[Cost]:
    """`clock` tells processor seconds of this process."""
    measure = _Measure(clock)
    for name in ("ckks-linear", "ckks-mlp"):
        yield from _of_preset(PRESETS[name], measure)
    yield from _of_encrypted_weights(measure)
    yield from _of_encrypted_quadratics(measure)


class _Measure:
    """Seconds of something done, the middle one of a few tries."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def __call__(self, action: Callable[[], object], times: int = TIMES) -> float:
        return statistics.median(self._once(action) for _ in range(times))

    def _once(self, action: Callable[[], object]) -> float:
        start = self._clock()
        action()
        return self._clock() - start

    def each(self, few: Callable[[], object], many: Callable[[], object], more: int) -> tuple[float, float]:
        """(seconds of what is there once, seconds of each one of `more` that `many` does beyond the one of `few`)."""
        one, all_of_them = self(few), self(many)
        each = max(0.0, all_of_them - one) / more
        return max(0.0, one - each), each


def _of_preset(preset: CkksPreset, measure: _Measure) -> Iterator[Cost]:
    primes = len(preset.data_moduli)
    yield f"contexts@{primes}", measure(lambda: contexts_of(preset), 1)
    draws, weights = np.random.default_rng(0), np.full(MANY + 1, 0.1)
    rows, columns = draws.uniform(-1, 1, ROWS), draws.uniform(-1, 1, (ROWS, MANY + 1))
    key = CkksPrivateKey(preset, OPENED)
    made, packing_key = measure.each(lambda: key.public_material(1), lambda: key.public_material(VALUES), 4)
    yield f"key@{primes}", made + packing_key + measure(lambda: CkksPrivateKey(preset, OPENED))
    yield "packing key", packing_key
    small, material = key.public_material(1), key.public_material(VALUES)
    loaded, loaded_packing_key = measure.each(
        lambda: CkksPublicKey(preset, small, 1), lambda: CkksPublicKey(preset, material, VALUES), 4
    )
    yield f"loaded key@{primes}", loaded + loaded_packing_key
    yield "loaded packing key", loaded_packing_key

    times, ckks = repeats(ROWS), CkksPublicKey(preset, material, VALUES)
    yield f"encrypted column@{primes}", measure(lambda: key.encrypt_rows(columns[:, :MANY], times)) / MANY
    sent = [key.encrypt_rows(columns, times) for _ in range(TIMES)]
    embedding: list[CkksVector] = []
    seconds = measure(lambda: embedding.extend(ckks.load(sent.pop(), MANY + 1, ROWS, times)))
    yield f"loaded column@{primes}", seconds / (MANY + 1)
    embedding = embedding[: MANY + 1]
    for at in (primes, 3) if primes > 3 else (primes,):
        yield from _of_sums(ckks, [_lowered(ckks, each, at) for each in embedding], weights, rows, measure)
    for at in range(2, primes):
        value = _lowered(ckks, embedding[0], at)
        yield f"product@{at}", measure(partial(ckks.product, value, value))
    last = [_lowered(ckks, each, preset.error_primes) for each in embedding]
    yield f"encrypted label@{preset.error_primes}", measure(lambda: ckks.subtract_encrypted(last[0], rows))
    if primes > 3:
        once, each = measure.each(
            lambda: ckks.weighted_products(last[:1], embedding[0], weights[:1]),
            lambda: ckks.weighted_products(last, embedding[0], weights),
            MANY,
        )
        yield f"closed product@{preset.error_primes}", once
        yield f"slope@{preset.error_primes}", each
    else:  # at the last prime all presets are alike
        yield from _of_release(key, ckks, [_lowered(ckks, each, 1) for each in embedding], columns, measure)


def _of_sums(
    ckks: CkksPublicKey, values: list[CkksVector], weights: Floats, rows: Floats, measure: _Measure
) -> Iterator[Cost]:
    primes, few = values[0].primes, weights[:1]
    once, each = measure.each(
        lambda: ckks.weighted_sum(values[:1], few, rows), lambda: ckks.weighted_sum(values, weights, rows), MANY
    )
    yield f"weighted sum@{primes}", once
    yield f"plain product@{primes}", each
    factors = np.full(len(rows), 0.9)
    factors[0] = 0.5
    _, each = measure.each(
        lambda: ckks.weighted_sum(values[:1], few, rows, factors),
        lambda: ckks.weighted_sum(values, weights, rows, factors),
        MANY,
    )
    yield f"slot product@{primes}", each
    yield f"added rows@{primes}", measure(lambda: ckks.plus(values[0], rows))


def _of_release(
    key: CkksPrivateKey, ckks: CkksPublicKey, values: list[CkksVector], columns: Floats, measure: _Measure
) -> Iterator[Cost]:
    """Sums of row products, from the products to the values that their owner opens."""
    clear = [np.ascontiguousarray(column) for column in columns.T]
    factors: dict[str, list[CkksVector | Floats]] = {"encrypted": [*values], "clear": [*clear]}
    for what, of_products in factors.items():
        products: list[RowProduct] = [(values[0], factor) for factor in of_products]
        once, each = measure.each(partial(_summed, ckks, products[:1]), partial(_summed, ckks, products), MANY)
        yield f"summand, {what}", each
        if what == "clear":
            yield "error in sums", max(0.0, once - each)
        many: list[RowProduct] = [(values[0], of_products[at % MANY]) for at in range(VALUES)]
        one, sixteen = ([_summed(ckks, part) for _ in range(TIMES)] for part in (many[:1], many))
        once, each = measure.each(partial(_masked_last, ckks, one), partial(_masked_last, ckks, sixteen), VALUES - 1)
        yield f"packed value, {what}", each
        if what == "clear":
            yield "release", once
    masked = {}
    for count in (1, VALUES):
        masked[count], _ = ckks.mask_sums(_summed(ckks, [(values[0], clear[at % MANY]) for at in range(count)]))
    once, each = measure.each(
        lambda: key.open(Masked(*masked[1]), groups_for(1)),
        lambda: key.open(Masked(*masked[VALUES]), groups_for(VALUES)),
        VALUES - 1,
    )
    yield "opening", once
    yield "opened value", each
    yield "cut error", measure(lambda: ckks.cut_errors(values[:1], np.ones((1, 1)), np.zeros((ROWS, 1), complex)))
    cut = ckks.cut_errors(values[:1], np.ones((1, 1)), np.zeros((ROWS, 1), complex))
    yield "decrypted cut error", measure(lambda: key.decrypt_cut(cut, 1, ROWS))


def _of_encrypted_weights(measure: _Measure) -> Iterator[Cost]:
    """Of scores of a linear model."""
    owner, draws = WeightsKey(), np.random.default_rng(0)
    rows = draws.uniform(-1, 1, (ROWS, MANY + 1))
    once, each = measure.each(
        lambda: owner.encrypt(np.full((1, 1), 0.1)), lambda: owner.encrypt(np.full((1, MANY + 1), 0.1)), MANY
    )
    yield "weights key", once
    yield "encrypted weight", each
    one, many = owner.encrypt(np.full((1, 1), 0.1)), owner.encrypt(np.full((1, MANY + 1), 0.1))
    loaded = EncryptedWeights(one, 1, 1), EncryptedWeights(many, MANY + 1, 1)
    yield "loaded weight", measure(lambda: EncryptedWeights(many, MANY + 1, 1)) / (MANY + 1)
    once, each = measure.each(lambda: loaded[0].scores(rows[:, :1]), lambda: loaded[1].scores(rows), MANY)
    yield "block of scores", once
    yield "column of scores", each
    block = loaded[1].scores(rows)
    yield "read block of scores", measure(lambda: owner.read(block, ROWS, 1))


def _of_encrypted_quadratics(measure: _Measure) -> Iterator[Cost]:
    """Of scores of a model with hidden neurons: of narrow and of wide rows, by one output and by two."""
    draws = np.random.default_rng(0)
    pieces = dict[int, tuple[float, float]]()
    for width in WIDTHS:
        layout, owner = layout_for(width), QuadraticKey(width)
        rows, slopes = draws.uniform(-1, 1, (layout.rows, width)), np.full((layout.rows, 2, width), 0.1)
        squares = np.full((2, width * (width + 1) // 2), 0.1)
        material = [owner.encrypt(squares[:outputs]) for outputs in (1, 2)]
        loaded = [EncryptedQuadratics(each, width, outputs) for outputs, each in enumerate(material, 1)]
        one, two = (
            measure(partial(_scored, each, rows, [owner.encrypt_slopes(slopes[:, :outputs]) for _ in range(TIMES)]))
            for outputs, each in enumerate(loaded, 1)
        )
        columns = layout.slopes + layout.squares
        pieces[columns] = one, max(0.0, two - one)
        if width == max(WIDTHS):
            once, each = measure.each(
                partial(owner.encrypt, squares[:1]), partial(owner.encrypt, squares), layout.squares
            )
            yield "network weights key", max(0.0, once - (layout.squares - 1) * each)
            yield "encrypted factor", each
            yield "loaded factor", measure(partial(EncryptedQuadratics, material[1], width, 2)) / (2 * layout.squares)
            block = loaded[1].scores(rows, owner.encrypt_slopes(slopes))
            yield "read piece of scores", measure(partial(owner.read, block, layout.rows, 2)) / 2
    (few, (narrow, second_narrow)), (many, (wide, second_wide)) = sorted(pieces.items())
    product, column = (
        max(0.0, more - less) / (many - few) for less, more in ((second_narrow, second_wide), (narrow, wide))
    )
    yield "piece of scores", max(0.0, second_wide - many * product)
    yield "piece product", product
    yield "piece column", max(0.0, column - product)


def _scored(quadratics: EncryptedQuadratics, rows: Floats, slopes: list[bytes]) -> ScoreBlock:
    """Each once: no factor is taken twice."""
    return quadratics.scores(rows, slopes.pop())


def _summed(ckks: CkksPublicKey, products: list[RowProduct]) -> EncryptedSums:
    sums = EncryptedSums(len(products))
    ckks.add_products(sums, products)
    return sums


def _masked_last(ckks: CkksPublicKey, sums: list[EncryptedSums]) -> None:
    """Each once: what is masked is used up."""
    ckks.mask_sums(sums.pop())


def _lowered(ckks: CkksPublicKey, value: CkksVector, primes: int) -> CkksVector:
    return replace(value, ciphertext=ckks._at(value.ciphertext, primes))  # noqa: SLF001 - the same room
