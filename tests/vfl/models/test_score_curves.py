"""What a label party keeps of its held-out scores: few points, true to the scores, and none where there is no curve."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from vfl.models.score_curves import BINS, ROC_POINTS, score_curves

DRAWS = np.random.default_rng(0)
SCORES = DRAWS.normal(size=(5000, 1)) * 2
LABELS = (DRAWS.random(5000) < 1 / (1 + np.exp(-SCORES[:, 0]))).astype(float)


def test_the_kept_points_of_a_roc_enclose_its_area() -> None:
    curves = score_curves("binary", LABELS, SCORES, "cubic")
    assert len(curves["roc_true_positives"]) <= ROC_POINTS
    area = np.trapezoid(curves["roc_true_positives"], curves["roc_false_positives"])
    assert area == pytest.approx(roc_auc_score(LABELS, SCORES[:, 0]), abs=0.002)


def test_predictions_that_are_right_lie_on_the_diagonal() -> None:
    curves = score_curves("binary", LABELS, SCORES, "cubic")
    assert curves["calibration_found"] == pytest.approx(curves["calibration_predicted"], abs=0.06)
    assert sum(curves["calibration_rows"]) == len(LABELS)
    assert len(curves["calibration_rows"]) == BINS
    line = score_curves("binary", LABELS, SCORES, "linear")["calibration_predicted"]
    assert (min(line), max(line)) == (0.0, 1.0)
    regression = score_curves("regression", 3 * SCORES[:, 0], 3 * SCORES, "squared")
    assert regression["calibration_found"] == regression["calibration_predicted"]
    assert "roc_true_positives" not in regression


def test_rows_of_one_class_have_no_roc_and_few_rows_few_bins() -> None:
    curves = score_curves("binary", np.zeros(7), SCORES[:7], "cubic")
    assert curves.keys() == {"calibration_predicted", "calibration_found", "calibration_rows"}
    assert curves["calibration_rows"] == [7.0]


def test_of_several_classes_each_is_counted_and_one_without_rows_has_no_share() -> None:
    curves = score_curves("multiclass", np.array([0.0, 0.0, 1.0]), np.eye(3)[[0, 1, 1]], "cubic")
    assert curves["class_rows"] == [2.0, 1.0, 0.0]
    assert curves["class_recall"][:2] == [0.5, 1.0]
    assert np.isnan(curves["class_recall"][2])
