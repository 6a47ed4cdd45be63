"""Two servers hold out the newest rows, which leave the weights alone, and end a training by its validation rows."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from api.cli.main import main

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


def test_on_ciphertexts_classes_are_weighted_and_the_next_newest_rows_measure_each_epoch(
    parties: Parties, job_spec: Spec
) -> None:
    text = job_spec(epochs="2", scheme='"ckks"', batch_rows='170\nclass_weights = "balanced"')
    text = re.sub(r'("[ex]4"), .*\]', r"\1]", text).replace('"patients"', '"dated"')
    (label, feature), _ = trained(parties, text + BY_TIME + "validation = 0.2\n")
    for side in (label, feature):
        assert (side["plan"]["test_rows"], side["plan"]["validation_rows"], side["plan"]["training_rows"]) == (
            114,
            114,
            341,
        )
    assert label["specification"]["split"]["validation_rows"] == 114
    told = {line["message"]: line["values"] for line in feature["reveals"]}
    assert (told["HeldOut"], told["OpenedLoss"]) == (2 * 569, 2)
    losses = [
        [event["data"]["measures"].get("validation_loss") for event in events if event["kind"] == "epoch"]
        for events in (party.call("GET", f"/v1/jobs/{label['id']}/events").json()["events"] for party in parties)
    ]
    assert [len(side) for side in losses] == [2, 2]
    assert None not in losses[0]
    assert set(losses[1]) == {None}
    assert "class_weights" in {notice["code"] for notice in label["notices"]}
    assert "class_weights" not in {notice["code"] for notice in feature["notices"]}


def test_a_training_ends_early_on_both_sides_with_the_weights_of_the_best_epoch(
    parties: Parties, job_spec: Spec, tmp_path: Path
) -> None:
    text = job_spec(epochs="40", batch_rows="64\nstop_early = { patience = 1, gain = 0.005 }")
    (label, feature), weights = trained(parties, text + "[split]\nvalidation = 0.2\n")
    events = parties[0].call("GET", f"/v1/jobs/{label['id']}/events").json()["events"]
    losses = [event["data"]["measures"]["validation_loss"] for event in events if event["kind"] == "epoch"]
    assert 1 < len(losses) == label["epoch"] == feature["epoch"] < 40
    assert label["step"] == feature["step"] < label["steps"] == label["plan"]["steps"]
    best = min(range(len(losses)), key=losses.__getitem__) + 1
    for side in (label, feature):
        notices = {notice["code"]: notice["text"] for notice in side["notices"]}
        assert (
            f"training ended after epoch {len(losses)} of 40; the weights are those of epoch {best}"
            in (notices["stopped_early"])
        )
        assert "early_end_tells" in notices
    kept = parties[0].folder / "models" / label["id"] / "epochs" / f"epoch-{best:04}.safetensors"
    of_best, of_job = safetensors.numpy.load_file(kept), safetensors.numpy.load(weights[0])
    assert (of_job["top.weights"] == of_best["top.weights"]).all()
    told = {line["message"]: line["values"] for line in feature["reveals"]}
    assert told["EpochJudged"] == 40
    page = tmp_path / "report.html"
    with pytest.raises(SystemExit) as end:
        main(["job", "report", label["id"], "--party", str(parties[0].folder), "--output", str(page)])
    assert end.value.code == 0
    shown = page.read_text("utf-8")
    assert "mean squared error on validation rows" in shown
    assert "569, 114 held out, 114 for validation" in shown
