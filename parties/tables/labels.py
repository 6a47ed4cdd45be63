"""A label column as the numbers a job trains on: which value is which class, and what was guessed of it.

Its errors and notices are for the party that holds the labels: `redacted_for_peer` keeps an error from a peer, and
notices are not sent.
"""

import difflib
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from parties.errors import ConstantLabel, LabelsNotBinary, LabelsNotClasses, TaskUnclear
from parties.tables.spellings import MISSING
from vfl.notices import Notice
from vfl.spec.sections import Job, TableUse

EXAMPLES = 3
FEWEST_CLASSES = 3
FEWEST_OF_A_CLASS = 10
"""Rows of a class below which its owner is warned: about two of them are held out."""
MANY_CLASSES, MOST_CLASSES = 20, 50
"""Up to so many whole numbers are taken for classes: any, and those that count from 0 without a gap."""
ROWS_OF_A_CLASS = 5
"""On average, below which whole numbers are not taken for classes."""

Numbers = Callable[[], NDArray[np.float64]]
"""Reads the column as numbers. Raises InvalidData, naming the row."""


class Labels(NamedTuple):
    numbers: NDArray[np.float64] | None
    """rows; classes count from 0. None at a party without labels."""
    classes: tuple[str, ...] = ()
    """What the column holds for class 0, 1, ...; empty for a regression."""
    notices: tuple[Notice, ...] = ()


def read_labels(job: Job, use: TableUse, party: str, column: pl.Series, numbers: Numbers) -> Labels:
    """The labels one party brings to a job of known task. Raises InvalidData."""
    if job.task == "regression":
        return _measured(use.label, numbers())
    if use.some_classes:
        return Labels(_agreed(job, use.label, numbers()))
    values, codes, words = _distinct(column, numbers)
    _check_varied(use.label, values)
    if job.task == "binary":
        values, codes, notices = _two(use, party, values, codes, words=words)
    else:
        notices = _several(job, use.label, values)
    _check_weighted(job, use, values)
    return Labels(codes.astype(np.float64), values, (*notices, *_rare(use.label, values, codes)))


def guess_task(name: str, column: pl.Series, numbers: Numbers) -> tuple[str, tuple[Notice, ...]]:
    """What the values of a label column suggest is to be learned. Raises InvalidData, TaskUnclear where it is open."""
    values, codes, words = _distinct(column, numbers)
    _check_varied(name, values)
    rows, whole = len(codes), words or all(float(value).is_integer() for value in values)
    if len(values) == 2:
        task, why = "binary", f"it holds two values, {_listed(values)}"
    elif not whole:
        task, why = "regression", "it holds numbers with fractions"
    elif words or len(values) <= MOST_CLASSES:
        counted = not words and values == tuple(map(str, range(len(values))))
        if len(values) > (MOST_CLASSES if counted else MANY_CLASSES) or rows < ROWS_OF_A_CLASS * len(values):
            raise TaskUnclear(
                f"the label {name!r} holds {len(values)} different values in {rows:,} rows: {_listed(values)}. "
                "They may be classes or amounts",
                fix="Say which: --task multiclass or --task regression.",
            )
        task, why = "multiclass", f"it holds {len(values)} different values, {_listed(values)}"
    else:
        task, why = "regression", f"it holds {len(values):,} different whole numbers"
    text = f"the task is {task}: the label {name!r} was looked at, and {why}. Name the task with --task to be sure"
    return task, (Notice("guess", "task", text),)


def _distinct(column: pl.Series, numbers: Numbers) -> tuple[tuple[str, ...], NDArray[np.int64], bool]:
    """(distinct values in ascending order, the position of each row's value among them, whether they are words)."""
    if _are_words(column):
        cells = column.cast(pl.String).str.strip_chars()
        words = cells.unique().sort()
        return tuple(words), cells.cast(pl.Enum(words)).to_physical().to_numpy().astype(np.int64), True
    read = numbers()
    values = np.unique(read)
    return tuple(f"{value:.15g}" for value in values), np.searchsorted(values, read), False


def _are_words(column: pl.Series) -> bool:
    """Whether each cell holds a word: none is empty, a number, or stands for a missing value."""
    if not (column.dtype == pl.String or isinstance(column.dtype, pl.Categorical | pl.Enum)):
        return False
    cells = column.unique().cast(pl.String).str.strip_chars()
    numeric = cells.cast(pl.Float64, strict=False).is_not_null()
    missing = cells.is_null() | cells.str.to_lowercase().is_in(["", *sorted(MISSING)])
    return not (numeric | missing).any()


def _measured(name: str, numbers: NDArray[np.float64]) -> Labels:
    values = np.unique(numbers)
    _check_varied(name, [f"{value:g}" for value in values])
    if len(values) > MANY_CLASSES or not (values == np.round(values)).all():
        return Labels(numbers)
    text = (
        f"the label {name!r} holds only {len(values)} whole numbers, {_listed([f'{value:g}' for value in values])}: "
        "the task regression takes them for amounts. If they are classes, the task is binary or multiclass"
    )
    return Labels(numbers, notices=(Notice("warning", "label_looks_like_classes", text),))


def _agreed(job: Job, name: str, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Classes that several parties number alike: nobody may number them anew."""
    classes = 2 if job.task == "binary" else job.classes
    wrong = numbers[~np.isin(numbers, np.arange(classes))]
    if not len(wrong):
        return numbers
    others = f"{len(wrong)} rows hold {_listed([f'{value:g}' for value in np.unique(wrong)])}"
    if job.task == "binary":
        raise LabelsNotBinary(
            f"the label {name!r} of a binary job of rounds must be 0 or 1 at every party; {others}",
            fix='Recode the label, or set job.task to "multiclass" or "regression".',
        )
    raise LabelsNotClasses(
        f"the label {name!r} must be an integer from 0 to {classes - 1}, as job.classes says; {others}",
        fix="Recode the label, or correct job.classes.",
    )


def _two(
    use: TableUse, party: str, values: tuple[str, ...], codes: NDArray[np.int64], *, words: bool
) -> tuple[tuple[str, ...], NDArray[np.int64], tuple[Notice, ...]]:
    """The negative value and the positive one, each row's class, and what was guessed."""
    name, positive = use.label, str(use.positive)
    if len(values) > 2:
        raise LabelsNotBinary(
            f"the label {name!r} of a binary job must have two values; it holds {len(values)}: {_listed(values)}",
            fix='Recode the label, or set job.task to "multiclass" or "regression".',
        )
    if positive:
        at = next((at for at, value in enumerate(values) if _same(value, positive)), None)
        if at is None:
            near = difflib.get_close_matches(positive, values, n=1, cutoff=0.0)
            raise LabelsNotBinary(
                f"the positive value is {positive!r}, and the label {name!r} holds {_quoted(values)}",
                fix=f"Did you mean {near[0]!r}?" if near else f"Name one of {_quoted(values)}.",
            )
        return (values[1 - at], values[at]), (codes == at).astype(np.int64), ()
    if words:
        unnamed = LabelsNotBinary(
            f"the label {name!r} holds the words {_quoted(values)}, and nothing says which of them is positive",
            fix=f"Name it under [data.{party}] of the specification: positive = {json.dumps(values[1])}.",
        )
        unnamed.positive = values[1]
        raise unnamed
    if values == ("0", "1"):
        return values, codes, ()
    text = (
        f"the label {name!r} holds {values[0]} and {values[1]}: {values[1]}, the greater, is taken for positive. "
        f"data.{party}.positive names another, as --positive does with vfl demo"
    )
    return values, codes, (Notice("guess", "positive_value", text),)


def _check_weighted(job: Job, use: TableUse, values: tuple[str, ...]) -> None:
    """Raises LabelsNotBinary, LabelsNotClasses for a weight of a value that the label does not hold."""
    for named in use.class_values:
        if named not in values:
            near = difflib.get_close_matches(named, values, n=1, cutoff=0.0)
            error = LabelsNotBinary if job.task == "binary" else LabelsNotClasses
            raise error(
                f"train.class_weights names {named!r}, and the label {use.label!r} holds {_listed(values)}",
                fix=f"Did you mean {near[0]!r}?" if near else "",
            )


def _several(job: Job, name: str, values: tuple[str, ...]) -> tuple[Notice, ...]:
    if len(values) < FEWEST_CLASSES:
        raise LabelsNotClasses(
            f"the label {name!r} of a multiclass job holds {len(values)} values: {_listed(values)}",
            fix="Two classes are a binary job.",
        )
    if job.classes not in {0, len(values)}:
        raise LabelsNotClasses(
            f"the label {name!r} holds {len(values)} classes, job.classes says {job.classes}",
            fix="Leave job.classes out: the label party fills it in.",
        )
    broken = [value for value in values if _number(value) % 1 > 0]
    if broken:
        raise LabelsNotClasses(
            f"the label {name!r} of a multiclass job holds {len(values)} values with fractions among them: "
            f"{_listed(broken)}",
            fix='Recode the label as whole numbers or words, or set job.task to "regression".',
        )
    if values == tuple(map(str, range(len(values)))):
        return ()
    text = f"the label {name!r} holds {len(values)} values; they are the classes 0 to {len(values) - 1} in this order: "
    return (Notice("guess", "class_values", text + ", ".join(values[:MOST_CLASSES])),)


def _rare(name: str, values: tuple[str, ...], codes: NDArray[np.int64]) -> tuple[Notice, ...]:
    counts = np.bincount(codes, minlength=len(values))
    rare = [f"{count} of {values[at]}" for at, count in enumerate(counts) if count < FEWEST_OF_A_CLASS]
    if not rare:
        return ()
    text = (
        f"the label {name!r} has fewer than {FEWEST_OF_A_CLASS} rows of a class, among {len(codes):,}: "
        f"{', '.join(rare)}. The model can hardly learn it, and a metric over the few that are held out says little"
    )
    return (Notice("warning", "rare_class", text),)


def _check_varied(name: str, values: Sequence[str]) -> None:
    if len(values) == 1:
        raise ConstantLabel(f"the label {name!r} is {values[0]} in every row: there is nothing to learn")


def _same(value: str, named: str) -> bool:
    """1, 1.0 and +1 are one value."""
    number = _number(named)
    return value == named.strip() or (np.isfinite(number) and number == _number(value))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _quoted(values: Sequence[str]) -> str:
    return " and ".join(map(repr, values))


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values[:EXAMPLES]) + (", ..." if len(values) > EXAMPLES else "")
