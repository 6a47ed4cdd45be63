"""Two servers train on from both halves of the model of an earlier training, and from no other."""

from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors.numpy

Spec = Callable[..., str]
Parties = tuple[Any, Any]


def trained(parties: Parties, text: str) -> tuple[str, dict[str, Any]]:
    """The id of a job that is done, and the weights of the label party."""
    job: str = parties[0].submit(text)["id"]
    shown = [party.over(job) for party in parties]
    assert [side["state"] for side in shown] == ["done", "done"], [side["error"] for side in shown]
    return job, safetensors.numpy.load_file(parties[0].folder / "models" / job / "model.safetensors")


def test_a_training_goes_on_from_both_halves_and_another_model_is_refused_by_what_differs(
    parties: Parties, job_spec: Spec
) -> None:
    first, weights = trained(parties, job_spec(epochs="2"))
    start = f'[model]\nstart_from = "{first}"\n'
    slow = 'optimiser = { name = "sgd", rate = 1e-12 }\n'
    _, others = trained(parties, job_spec(epochs="1", batch_rows=f"64\n{slow}") + start)
    assert (weights["preparation"] == others["preparation"]).all()
    np.testing.assert_allclose(others["top.weights"], weights["top.weights"], atol=1e-9)

    def refusal(text: str) -> dict[str, Any]:
        answer = parties[0].call("POST", "/v1/jobs", json={"spec": text})
        assert answer.status_code >= 400
        refused: dict[str, Any] = answer.json()
        return refused

    other = refusal(job_spec(columns='["e0"]') + start)
    assert other["code"] == "impossible_job"
    assert "is of another model, by data.feature-party.columns, data.label-party.columns" in other["detail"]
    unknown = refusal(job_spec() + start.replace(first, "f" * len(first)))
    assert unknown["code"] == "unknown_model"
    assert "model.start_from: label-party holds no model" in unknown["detail"]
