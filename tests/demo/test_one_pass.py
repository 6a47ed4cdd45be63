"""`vfl demo --method one-pass`: the same two parties, whose linear model is solved from sums over all rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Demo = Callable[..., Any]


@pytest.fixture(scope="module")
def solved(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return demo(tmp_path_factory.mktemp("one_pass") / "first", "--method", "one-pass", "--seed", "3")


def test_the_model_is_as_good_as_the_same_model_from_clear_sums(solved: Any) -> None:
    data = solved.data
    assert (data["scheme"], data["top"], data["epochs"], data["curves"]) == ("one_pass", "linear", 1, [])
    assert data["auc"]["federated"] == pytest.approx(data["auc"]["same_model_in_clear"], abs=1e-3)
    assert data["auc"]["federated"] >= 0.95
    assert data["auc"]["label_party_alone"] < data["auc"]["federated"]
    assert data["new_rows"]["largest_difference"] < 1e-3
    assert data["audit"]["verified"]


def test_the_report_shows_what_was_read_and_draws_no_curve_of_epochs(solved: Any) -> None:
    assert solved.code == 0
    text = (solved.folder / "report.html").read_text("utf-8")
    assert "two parties, on ciphertexts" in text
    assert "SumsOverRows" in text
    assert "How it learned" not in text


@pytest.mark.parametrize(
    "options", [("--top", "mlp"), ("--scheme", "none"), ("--layout", "embeddings"), ("--epochs", "3")]
)
def test_what_is_of_training_in_steps_is_refused(demo: Demo, tmp_path: Path, options: tuple[str, str]) -> None:
    ended = demo(tmp_path / "refused", "--method", "one-pass", *options)
    assert (ended.code, ended.answer["error_code"]) == (4, "invalid_arguments")
    assert f"{options[0]} does not go with --method one-pass" in str(ended.answer)
    assert not (tmp_path / "refused").exists()
