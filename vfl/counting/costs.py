"""What a step on numbers and a step of a small network cost on this machine, done a few times by the real classes."""

import statistics
from collections.abc import Callable, Iterator

import numpy as np

from vfl.models.polynomial import Numbers, Top
from vfl.models.scorer import Shape
from vfl.planning.work import Clock
from vfl.spec.sections import Optimiser
from vfl.spec.training import Bottom

TRIES, FEW_ROWS, MANY_ROWS = 5, 64, 4096
COLUMNS, WIDTH, LAYERS = 16, 32, 2
PASSES = 3
"""Multiplications for each weight and row in a step of a network: forward, and back to inputs and to weights."""


def of_numbers(clock: Clock) -> Iterator[tuple[str, float]]:
    """A step of a linear top model, and each number that it looks at."""
    top = Top(Shape(COLUMNS, 0, 0, 1), "linear", Optimiser(rate=0.01), bytes(32), 6.0)

    def step(rows: int) -> None:
        values, numbers = np.ones((rows, COLUMNS)), Numbers()
        passes = top.passes(numbers, list(values.T), np.zeros((rows, 0)), np.zeros((rows, 1)))
        top.update(numbers.sums(passes.products), float(rows))

    few, many = _median(lambda: step(FEW_ROWS), clock), _median(lambda: step(MANY_ROWS), clock)
    yield "step", few
    yield "number", max(0.0, many - few) / ((MANY_ROWS - FEW_ROWS) * COLUMNS)


def of_networks(clock: Clock) -> Iterator[tuple[str, float]]:
    """A layer in a step of a bottom model, and each multiplication."""
    import torch  # noqa: PLC0415 - not every job needs it

    from vfl.models.tabular import BottomModel, build  # noqa: PLC0415

    torch.set_num_threads(1)
    bottom = Bottom(hidden=(WIDTH,) * (LAYERS - 1), out=WIDTH)
    model = BottomModel(build(bottom, WIDTH, bytes(32), None), Optimiser(rate=0.01))

    def step(rows: int) -> None:
        model.forward(np.ones((rows, WIDTH)))
        model.backward([np.ones((rows, WIDTH))])

    few, many = _median(lambda: step(FEW_ROWS), clock), _median(lambda: step(MANY_ROWS), clock)
    yield "step", few / LAYERS
    yield "product", max(0.0, many - few) / ((MANY_ROWS - FEW_ROWS) * PASSES * LAYERS * WIDTH * WIDTH)


def _median(action: Callable[[], object], clock: Clock) -> float:
    """The first time is not counted."""
    action()
    return statistics.median(_once(action, clock) for _ in range(TRIES))


def _once(action: Callable[[], object], clock: Clock) -> float:
    start = clock()
    action()
    return clock() - start
