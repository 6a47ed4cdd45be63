"""What is counted of a prediction, and what a session costs that stays open."""

import time
from typing import Any

import pytest

from api.demo.training.agreement import agree
from api.demo.training.tables import DATASET, FEATURE_PARTY, LABEL_PARTY, breast_cancer
from vfl.counting.scoring import REQUEST
from vfl.kinds import kind_of, read_spec_as
from vfl.planning.work import Turn, bytes_sent
from vfl.spec.prediction import PredictionSpec

ROWS = 6000
PREDICTION = f"""
[job]
name = "scores"
protocol = "prediction"
[roster]
label = "{LABEL_PARTY}"
features = ["{FEATURE_PARTY}"]
[data.{LABEL_PARTY}]
dataset = "{DATASET}"
[data.{FEATURE_PARTY}]
dataset = "{DATASET}"
[model]
training = "{"0" * 32}"
"""
SESSION = "[session]\nminutes = 10\n"


def work(text: str, **how: Any) -> tuple[PredictionSpec, list[Turn]]:
    trained = agree(breast_cancer(), epochs=1, seed=0, **how).spec
    spec = read_spec_as(PredictionSpec, text).with_training(trained)
    return spec, list(kind_of(spec).work(spec, {party: {"rows": ROWS} for party in spec.parties}, time.process_time))


@pytest.mark.parametrize("how", [{"scheme": "none"}, {"scheme": "ckks"}, {"scheme": "ckks", "top": "mlp"}], ids=str)
def test_the_bytes_of_a_prediction_are_those_that_its_plan_foresees(how: dict[str, Any]) -> None:
    spec, turns = work(PREDICTION, **how)
    foreseen = sum(kind_of(spec).plan(spec, LABEL_PARTY, ROWS).payload_bytes.values())
    assert sum(bytes_sent(turns).values()) == pytest.approx(foreseen, rel=0.01)
    assert REQUEST not in {turn.phase for turn in turns}


@pytest.mark.parametrize("how", [{"scheme": "none"}, {"scheme": "ckks"}, {"scheme": "ckks", "top": "mlp"}], ids=str)
def test_a_session_counts_its_opening_and_one_request_of_one_row(how: dict[str, Any]) -> None:
    _, turns = work(PREDICTION + SESSION, **how)
    _, whole = work(PREDICTION, **how)
    assert {turn.phase for turn in turns} == {"start", REQUEST}
    one_row = [turn for turn in turns if turn.phase == REQUEST]
    assert 0 < bytes_sent(one_row)[FEATURE_PARTY] < bytes_sent(whole)[FEATURE_PARTY]
