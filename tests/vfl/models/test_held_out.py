"""What is said of held-out rows: how many of each class there are, and where they are too few to judge by."""

import numpy as np
import pytest

from vfl.models.held_out import few_rows, of_classes, of_test_rows


def told(positives: int, rows: int, held_out: int, held_positives: int) -> dict[str, str]:
    labels = np.zeros(rows)
    labels[: positives - held_positives] = 1
    labels[rows - held_positives :] = 1
    found = of_classes(labels, np.arange(rows - held_out, rows), ("no", "yes"), held_out / rows)
    return {notice.code: notice.text for notice in found}


def test_held_out_rows_are_counted_by_class() -> None:
    assert told(100, 1000, 200, 20) == {"held_out_classes": "held-out rows by class: 180 of no, 20 of yes"}


def test_a_class_of_few_held_out_rows_is_warned_of() -> None:
    assert "fewer than 5 rows are held out of class yes" in told(20, 1000, 200, 4)["few_held_out"]


@pytest.mark.parametrize(
    ("positives", "advice"),
    [(1, "About 13,972 more rows like these"), (30, "Another seed would very likely hold one out")],
)
def test_a_class_that_is_not_held_out_is_the_reason_why_there_is_no_auc(positives: int, advice: str) -> None:
    text = told(positives, 1000, 200, 0)["class_not_held_out"]
    assert "none of the 200 held-out rows is of class yes, so the AUC is not defined" in text
    assert f"{positives} of 1,000 rows are. {advice}" in text


def test_few_rows_are_to_be_read_with_their_interval() -> None:
    assert [notice.code for notice in few_rows(49)] == ["few_held_out"]
    assert not list(few_rows(50))


def test_classes_that_an_aggregators_test_rows_lack_are_named() -> None:
    (absent,) = of_test_rows(np.zeros(60, np.int64), 2)
    assert (absent.kind, absent.code) == ("warning", "class_not_held_out")
    assert absent.text == "none of the 60 test rows is of class 1, so the AUC is not defined. Bring test rows of it"
    few, absent = of_test_rows(np.array([0] * 60 + [2] * 4), 5)
    assert "fewer than 5 rows are held out of class 2" in few.text
    assert "is of class 1, 3, 4, so no metric says anything of it" in absent.text
    assert not list(of_test_rows(np.arange(60) % 3, 3))
