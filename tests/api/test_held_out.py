"""Two servers hold out the newest rows, and nothing of a held-out row reaches the weights."""

from collections.abc import Callable
from typing import Any

import pytest
import safetensors.numpy

Spec = Callable[..., str]
Parties = tuple[Any, Any]
BY_TIME = '[split]\nby = "time"\ntime = "day"\n'


def trained(parties: Parties, text: str) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The job as each side shows it, and the weights that each side keeps."""
    job = parties[0].submit(text)["id"]
    shown = [party.over(job) for party in parties]
    assert [side["state"] for side in shown] == ["done", "done"], [side["error"] for side in shown]
    return shown, [(party.folder / "models" / job / "model.safetensors").read_bytes() for party in parties]


def test_other_values_of_the_newest_rows_give_the_same_weights(parties: Parties, job_spec: Spec) -> None:
    text = job_spec(epochs="2") + BY_TIME
    first, weights = trained(parties, text.replace('"patients"', '"dated"'))
    other = text.replace('"patients"', '"redated"').replace('"clinic"', '"reclinic"')
    second, others = trained(parties, other)
    assert weights == others
    assert "top.weights" in safetensors.numpy.load(weights[0])
    assert first[0]["metrics"]["auc"] > 0.9
    assert second[0]["metrics"]["auc"] < 0.6
    assert [side["plan"]["test_rows"] for side in first] == [114, 114]
    told = {line["message"]: line["values"] for line in first[1]["reveals"]}
    assert told["HeldOut"] == 569


@pytest.mark.parametrize(
    ("column", "code", "told"),
    [("e2", "invalid_spec", "split.time names 'e2', which is among the inputs"), ("dai", "unknown_column", "'dai'")],
)
def test_a_wrong_column_is_refused_where_it_is_submitted(
    parties: Parties, job_spec: Spec, column: str, code: str, told: str
) -> None:
    text = job_spec().replace('"patients"', '"dated"') + BY_TIME.replace('"day"', f'"{column}"')
    refused = parties[0].call("POST", "/v1/jobs", json={"spec": text})
    assert refused.status_code >= 400
    assert refused.json()["code"] == code
    assert told in refused.json()["detail"]
