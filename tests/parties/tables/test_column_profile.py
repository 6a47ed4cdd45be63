"""Columns that train badly without an error are named to their owner, and ordinary ones are left in peace."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine

from parties.tables.column_profile import column_notices

ROWS = 400
Floats = NDArray[np.float64]
RANDOM = np.random.default_rng(0)
NORMAL = RANDOM.normal(size=ROWS)
AGE = RANDOM.integers(18, 90, ROWS).astype(float)
LABEL = (RANDOM.normal(size=ROWS) > 0).astype(float)


def some(values: Floats, place: float | list[float], every: int) -> Floats:
    """A copy with other values in some rows."""
    changed = values.copy()
    for first, value in enumerate(place if isinstance(place, list) else [place]):
        changed[first::every] = value
    return changed


@pytest.mark.parametrize(
    ("name", "values", "code", "told"),
    [
        ("b0", np.full(ROWS, 7.0), "constant_column", "'b0' (7)"),
        ("b0", np.zeros(ROWS), "constant_column", "'b0' (0)"),
        ("b0", some(NORMAL, -999, 20), "suspicious_value", "-999 in 20 of 400 rows, 5.0%; the others from"),
        ("b0", some(NORMAL, -999, 3), "suspicious_value", "-999 in 134 of 400 rows"),
        ("b0", some(NORMAL, [-999, -888], 9), "suspicious_value", "-999 in 45 of 400 rows, 11.2%, -888 in 45 of 400"),
        (
            "age",
            some(AGE, 999, 40),
            "suspicious_value",
            "'age' (999 in 10 of 400 rows, 2.5%; the others from 18 to 89)",
        ),
        ("b0", some(NORMAL, 99999999, 50), "suspicious_value", "1e+08 in 8 of 400 rows"),
        ("income", some(50_000 + 20_000 * np.abs(NORMAL), -1, 50), "suspicious_value", "-1 in 8 of 400 rows"),
        ("income", some(200 * AGE, -999, 50), "suspicious_value", "-999 in 8 of 400 rows"),
        ("pressure", some(120 + 10 * NORMAL, 0, 10), "suspicious_value", "0 in 40 of 400 rows"),
        ("b0", some(NORMAL, 1e12, ROWS), "flattened_column", "1 of 400 values, 0.25%, beyond 3 standard deviations"),
        ("b0", some(NORMAL, -1e6, ROWS), "flattened_column", "'b0'"),
        ("b0", NORMAL * 1e-300, "column_of_tiny_values", "e-300"),
        ("Unnamed: 0", np.arange(ROWS) * 1.0, "row_number_column", "'Unnamed: 0' (from 0 to 399)"),
        ("", np.arange(ROWS) * 1.0, "row_number_column", "'' (from 0 to 399)"),
        ("", RANDOM.permutation(5 * ROWS)[:ROWS] * 1.0, "row_number_column", "''"),
        ("line", RANDOM.permutation(ROWS) + 1.0, "row_number_column", "'line' (from 1 to 400)"),
        ("customer_id", RANDOM.permutation(9 * ROWS)[:ROWS] * 1.0, "id_like_column", "'customer_id'"),
        ("accountNo", RANDOM.permutation(9 * ROWS)[:ROWS] * 1.0, "id_like_column", "'accountNo'"),
        ("b0", AGE, "repeated_column", "'b0' is the same as 'first'"),
        ("b0", -AGE, "repeated_column", "'b0' is the negative of 'first'"),
        ("b0", AGE * 1.8 + 32, "repeated_column", "'b0' is 1.8 times 'first' plus 32"),
        ("b0", AGE * 0.3, "repeated_column", "'b0' is 0.3 times 'first'"),
        ("b0", LABEL, "label_among_columns", "'b0' is the same as the label 'y'"),
        ("b0", 1 - LABEL, "label_among_columns", "'b0' is -1 times the label 'y' plus 1"),
    ],
)
def test_a_column_worth_a_look_is_named_with_what_was_found(name: str, values: Floats, code: str, told: str) -> None:
    (notice,) = column_notices("telco.csv", ("first", name), np.column_stack([AGE, values]), ("y", LABEL))
    assert (notice.kind, notice.code) == ("warning", code)
    assert notice.text.startswith("telco.csv: ")
    assert told in notice.text


@pytest.mark.parametrize(
    "values",
    [
        NORMAL,
        AGE,
        np.exp(2 * NORMAL),
        (AGE > 80) * 1.0,
        some(np.zeros(ROWS), 1, 200),
        RANDOM.poisson(0.05, ROWS) * 1.0,
        np.sign(AGE - 40),
        RANDOM.integers(0, 5, ROWS) * 1.0,
        np.minimum(AGE, 70),
        some(AGE, 99, 40),
        some(500 * AGE, 9999, 40),
        np.where(AGE > 60, AGE**2, 0),
        NORMAL * 1e-90,
        NORMAL + 1e6,
        RANDOM.permutation(9 * ROWS)[:ROWS] * 1.0,
    ],
)
def test_an_ordinary_column_is_left_in_peace(values: Floats) -> None:
    assert column_notices("telco.csv", ("first", "b0"), np.column_stack([AGE + NORMAL, values]), ("y", LABEL)) == ()


@pytest.mark.parametrize("load", [load_breast_cancer, load_diabetes, load_iris, load_wine])
def test_well_known_tables_are_left_in_peace(load: Callable[..., Any]) -> None:
    data = load()
    label = ("target", data.target.astype(float))
    assert column_notices("table", list(map(str, data.feature_names)), data.data.astype(float), label) == ()


def test_one_notice_for_each_kind_names_a_few_columns_and_counts_the_others() -> None:
    names = [f"pixel_{number}" for number in range(40)]
    (notice,) = column_notices("images.parquet", names, np.zeros((9, 40)))
    assert "'pixel_4' (0); and 35 more columns" in notice.text
    assert "pixel_5" not in notice.text


def test_a_name_is_shown_as_it_is_and_no_longer_than_needed() -> None:
    (notice,) = column_notices("telco.csv", ["{}" + "x" * 5000], np.zeros((9, 1)))
    assert "'{}xxx" in notice.text
    assert len(notice.text) < 200
