"""What a label column is taken for: classes by their values, a positive value, a task; and what is asked instead."""

from functools import partial
from typing import Any

import numpy as np
import polars as pl
import pytest

from parties.errors import ConstantLabel, LabelsNotBinary, LabelsNotClasses, NonNumericCell, TaskUnclear
from parties.tables.labels import guess_task, read_labels
from vfl.errors import InvalidData
from vfl.spec.sections import Job, TableUse


def numbers(column: pl.Series) -> np.ndarray:
    found = column.cast(pl.Float64, strict=False)
    if found.has_nulls():
        raise NonNumericCell("a cell is not a number")
    return found.to_numpy()


def labels(
    values: list[Any], task: Any = "binary", positive: str | int = "", times: int = 10, *, some_classes: bool = False
) -> Any:
    column = pl.Series("y", values * times)
    brought = TableUse(dataset="rows", label="y", positive=positive, some_classes=some_classes)
    return read_labels(Job(name="j", task=task), brought, "bank", column, partial(numbers, column))


@pytest.mark.parametrize(("task", "values"), [("binary", ["N", "Y"]), ("multiclass", ["N", "Y", "Z"])])
def test_a_class_weight_of_a_value_that_the_label_does_not_hold_is_refused(task, values):
    column = pl.Series("y", values * 10)
    positive = "Y" if task == "binary" else ""
    use = TableUse(dataset="rows", label="y", positive=positive, class_values=("y", "N"))
    with pytest.raises((LabelsNotBinary, LabelsNotClasses)) as refused:
        read_labels(Job(name="j", task=task), use, "bank", column, partial(numbers, column))
    assert str(refused.value).startswith(f"train.class_weights names 'y', and the label 'y' holds {', '.join(values)}")
    assert "Did you mean" in refused.value.fix


def task_of(values: list[Any], times: int = 10) -> str:
    column = pl.Series("y", values * times)
    task, notices = guess_task("y", column, partial(numbers, column))
    assert [notice.code for notice in notices] == ["task"]
    assert f"the task is {task}" in notices[0].text
    return task


@pytest.mark.parametrize("values", [["1", "2"], [1, 2], ["-1", "1"], [-1.0, 1.0], ["0.5", "3"]])
def test_of_two_numbers_the_greater_is_positive_and_that_is_told(values):
    found = labels(values)
    assert found.numbers.tolist()[:2] == [0.0, 1.0]
    assert found.classes == tuple(f"{float(value):g}" for value in values)
    (guess,) = found.notices
    assert (guess.kind, guess.code) == ("guess", "positive_value")
    assert f"{found.classes[1]}, the greater, is taken for positive" in guess.text
    assert "data.bank.positive" in guess.text


def test_zero_and_one_are_what_they_say():
    assert labels(["0", "1"])[1:] == (("0", "1"), ())
    assert labels([False, True])[1:] == (("0", "1"), ())


@pytest.mark.parametrize(
    ("values", "positive"), [(["N", "Y"], "Y"), (["true", "false"], "true"), (["1", "2"], 1), (["1.0", "2.0"], "1")]
)
def test_the_named_value_is_positive_and_nothing_is_guessed(values, positive):
    found = labels(values, positive=positive)
    assert found.classes[1] == str(positive)
    assert found.numbers.tolist()[:2] == [
        float(value == found.classes[1] or value == f"{positive}.0") for value in values
    ]
    assert found.notices == ()


def test_words_ask_which_is_positive_and_a_wrong_name_is_told_the_right_ones():
    with pytest.raises(LabelsNotBinary, match="words 'no' and 'yes', and nothing says which") as refused:
        labels(["yes", "no"])
    assert refused.value.fix == 'Name it under [data.bank] of the specification: positive = "yes".'
    with pytest.raises(LabelsNotBinary, match="is 'Yes', and the label 'y' holds 'no' and 'yes'") as refused:
        labels(["yes", "no"], positive="Yes")
    assert refused.value.fix == "Did you mean 'yes'?"


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([3, 1, 2], ("1", "2", "3")),
        (["5", "0", "2"], ("0", "2", "5")),
        (["mid", "low", "high"], ("high", "low", "mid")),
    ],
)
def test_classes_are_the_distinct_values_in_order(values, classes):
    found = labels(values, "multiclass")
    assert found.classes == classes
    assert [classes[int(code)] for code in found.numbers[:3]] == [str(value) for value in values]
    (guess,) = found.notices
    assert (guess.kind, guess.code) == ("guess", "class_values")
    assert guess.text.endswith(", ".join(classes))


def test_classes_that_count_from_zero_are_no_guess():
    assert labels([0, 1, 2], "multiclass").notices == ()


@pytest.mark.parametrize(
    ("values", "task", "error"),
    [
        ([1, 2, 3], "binary", LabelsNotBinary),
        ([1, 2], "multiclass", LabelsNotClasses),
        ([0.5, 1.0, 2.0], "multiclass", LabelsNotClasses),
        (["1", "2", "x"], "multiclass", NonNumericCell),
        (["a", "b", ""], "multiclass", NonNumericCell),
        (["a", "b", "NA"], "multiclass", NonNumericCell),
        ([7], "binary", ConstantLabel),
        (["x"], "multiclass", ConstantLabel),
        ([7], "regression", ConstantLabel),
    ],
)
def test_labels_that_do_not_fit_the_task_are_refused(values: list[Any], task: str, error: type[InvalidData]):
    with pytest.raises(error):
        labels(values, task)


def test_parties_of_rounds_number_their_classes_alike():
    assert labels([0, 0], some_classes=True).numbers.tolist() == [0.0] * 20
    with pytest.raises(LabelsNotBinary, match="must be 0 or 1 at every party; 10 rows hold 2"):
        labels([1, 2], some_classes=True)


def test_a_rare_class_is_warned_of():
    (warning,) = labels([0] * 1198 + [1] * 2, times=1).notices
    assert (warning.kind, warning.code) == ("warning", "rare_class")
    assert "among 1,200: 2 of 1." in warning.text
    assert labels([0] * 1190 + [1] * 10, times=1).notices == ()


def test_a_regression_on_a_few_whole_numbers_is_warned_of():
    (warning,) = labels([1, 2, 3], "regression").notices
    assert (warning.kind, warning.code) == ("warning", "label_looks_like_classes")
    assert labels([1.0, 2.0, 2.5], "regression").notices == ()


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([0, 1], "binary"),
        ([1, 2], "binary"),
        (["-1", "1"], "binary"),
        (["Y", "N"], "binary"),
        ([1, 2, 3], "multiclass"),
        ([0, 2, 5], "multiclass"),
        (["low", "mid", "high"], "multiclass"),
        (list(range(40)), "multiclass"),
        ([0.5, 1.0, 2.0], "regression"),
        (list(range(1, 60)), "regression"),
    ],
)
def test_the_task_is_guessed_from_the_values(values: list[Any], task: str):
    assert task_of(values) == task


@pytest.mark.parametrize(("values", "times"), [(list(range(18, 60)), 10), ([20, 31, 45, 7], 1), (["a", "b", "c"], 1)])
def test_whole_numbers_that_may_be_classes_or_amounts_ask_for_the_task(values: list[Any], times: int):
    with pytest.raises(TaskUnclear, match="may be classes or amounts") as refused:
        task_of(values, times)
    assert "--task" in refused.value.fix
