"""`vfl demo --scheme paillier`: two servers train, predict and report on Paillier ciphertexts."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def ended(demo: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return demo(tmp_path_factory.mktemp("paillier") / "demo", "--scheme", "paillier")


def test_the_model_is_as_good_as_in_clear_and_scores_new_rows(ended: Any) -> None:
    data = ended.data
    assert data["scheme"] == "paillier"
    # Which rows are held out differs with each run, as the alignment orders them anew.
    assert data["auc"]["federated"] >= 0.96
    assert abs(data["auc"]["federated"] - data["auc"]["same_model_in_clear"]) <= 0.002
    assert data["new_rows"]["largest_difference"] <= 0.005


def test_the_result_and_the_report_say_that_sums_are_exact(ended: Any) -> None:
    assert any("exact: no noise is on them" in line for line in ended.data["not_protected"])
    revealed = {line["message"]: line["receiver"] for line in ended.data["reveals"] if line["values"]}
    assert revealed["OpenedSums"] == revealed["BlurredScores"] == "label-party"
    page = Path(ended.folder, "report.html").read_text("utf-8")
    for text in ("OpenedSums", "exact: no noise is on them", "exact sums over the batch"):
        assert text in page
