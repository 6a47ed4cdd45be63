"""What held-out rows can tell: how many there are of each class, and a word where they are too few."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vfl.notices import Notice

FEW_ROWS, FEW_OF_A_CLASS = 50, 5
SHOWN_CLASSES = 20
CERTAINTY = 0.95
SURELY = "split.stratify = true surely where the class has two"


def few_rows(rows: int) -> Iterator[Notice]:
    if rows < FEW_ROWS:
        counted = "1 row is" if rows == 1 else f"{rows} rows are"
        text = f"only {counted} held out: read every metric with its interval. More rows make it narrower"
        yield Notice("warning", "few_held_out", text)


def of_classes(
    labels: NDArray[np.float64], held_out: NDArray[np.int64], classes: Sequence[str], share: float | None
) -> Iterator[Notice]:
    """Of the labels of all rows, those held out, what class 0, 1, ... is called, and the share that is drawn; None
    where another draw would hold out the same."""
    everywhere, here = (
        np.bincount(rows.astype(np.int64), minlength=len(classes)) for rows in (labels, labels[held_out])
    )
    if len(classes) <= SHOWN_CLASSES:
        counted = ", ".join(f"{count:,} of {name}" for count, name in zip(here, classes, strict=True))
        yield Notice("note", "held_out_classes", f"held-out rows by class: {counted}")
    yield from _few_of_a_class(here, classes)
    for at in map(int, np.flatnonzero(here == 0)):
        total, count = len(labels), int(everywhere[at])
        text = (
            f"none of the {len(held_out):,} held-out rows is of class {classes[at]}, so {_unmeasured(classes)}: "
            f"{count:,} of {total:,} rows are. {_rows_wanted(count, total, share)}"
        )
        yield Notice("warning", "class_not_held_out", text)


def of_test_rows(labels: NDArray[np.int64], classes: int) -> Iterator[Notice]:
    """Of rows that an aggregator brings to test on; their classes count from 0."""
    here, names = np.bincount(labels, minlength=classes), [str(at) for at in range(classes)]
    yield from _few_of_a_class(here, names)
    absent = [name for count, name in zip(here, names, strict=True) if not count]
    if absent:
        text = (
            f"none of the {len(labels):,} test rows is of class {', '.join(absent[:SHOWN_CLASSES])}, so "
            f"{_unmeasured(names)}. Bring test rows of it"
        )
        yield Notice("warning", "class_not_held_out", text)


def _few_of_a_class(counts: NDArray[np.int64], classes: Sequence[str]) -> Iterator[Notice]:
    few = [name for count, name in zip(counts, classes, strict=True) if 0 < count < FEW_OF_A_CLASS]
    if few:
        text = (
            f"fewer than {FEW_OF_A_CLASS} rows are held out of class {', '.join(few[:SHOWN_CLASSES])}: what a metric "
            "says of it can be chance"
        )
        yield Notice("warning", "few_held_out", text)


def _unmeasured(classes: Sequence[str]) -> str:
    return "the AUC is not defined" if len(classes) == 2 else "no metric says anything of it"


def _rows_wanted(count: int, total: int, share: float | None) -> str:
    """How large a table would be that almost surely holds one of such rows out."""
    if count in {0, total}:
        return "Bring rows of it"
    if share is None:
        return "Raise split.test, or hold rows out at random"
    rows_needed = math.ceil(math.log(1 - CERTAINTY) / math.log(1 - count / total) / share)
    if rows_needed <= total:
        return f"Another seed would very likely hold one out, {SURELY}"
    more = f"{rows_needed - total:,} more rows like these"
    return f"About {more} would hold one out with {CERTAINTY:.0%} certainty, {SURELY}"
