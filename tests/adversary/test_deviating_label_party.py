"""A label party whose worker breaks the protocol, between two real servers.

The key owner cannot tell a masked sum over a batch from one row, or from a sum that it has opened before
(docs/threat_model.md): what bounds such a label party is how many values are opened, and that is what was approved.
What it asks for outside of its step, or in another shape, is not opened at all.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import deviating_roles
import numpy as np
import polars as pl
import pytest
from evading_label import COLUMNS, Two, serving, spec, until, write_folders

from api.demo.training.tables import FEATURE_PARTY, LABEL_PARTY

STEPS, VALUES, STEPS_AGAIN = 8, 4, 5
"""Of the job; each step opens a sum for each column and one for the bias. After crashes five may be taken again."""
CLIP = 3.0
OPENED = "OpenedGradient"


@pytest.fixture
def attacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[tuple[Two, Path]]:
    """Both operators, and the file into which the label party's worker writes what it has read."""
    attack: Callable[[ModuleType, Path], None] = request.param
    python = deviating_roles.python_with(attack, tmp_path / "python")
    monkeypatch.setattr(sys, "executable", python)
    write_folders(tmp_path)
    with serving(tmp_path) as servers:
        two = Two(servers)
        two.feature.grant({"spec": spec()})
        yield two, tmp_path / "python" / "read"


def opened(two: Two, job: str) -> int:
    """How many messages with opened sums have left the feature party."""
    lines = until(two.feature, job, lambda found: found["state"] in {"done", "failed"})["traffic"]
    return sum(line["messages"] for line in lines if (line["direction"], line["kind"]) == ("sent", OPENED))


def approved(two: Two, job: str) -> dict[str, str]:
    """Messages by kind, as the feature party's log tells of its approval."""
    (detail,) = two.audited("job_approved", job)
    return dict(line.split(":") for line in str(detail["budget"]).split())


def cells(folder: Path) -> Any:
    return pl.read_csv(folder / FEATURE_PARTY / "rows.csv").select(COLUMNS).to_numpy()


@pytest.mark.parametrize("attacked", [deviating_roles.single_rows], indirect=True)
def test_a_label_party_that_opens_single_rows_reads_as_many_values_as_were_planned_and_not_one_more(
    attacked: tuple[Two, Path], tmp_path: Path
) -> None:
    two, read = attacked
    job = two.outcome(spec())
    assert job["state"] == "done", job["error"]
    rows, values = zip(*json.loads(read.read_text()), strict=True)
    assert len(values) == STEPS
    table = cells(tmp_path)
    truth = np.clip((table - table.mean(axis=0)) / table.std(axis=0), -CLIP, CLIP)[list(rows)]
    # The attack works: these are single cells of the other side's table, whose deviation is 1 here, up to the noise.
    assert np.abs(truth - np.array(values)).max() < 0.15
    assert opened(two, job["id"]) == STEPS
    assert int(approved(two, job["id"])[OPENED]) == STEPS + STEPS_AGAIN
    (line,) = (line for line in job["reveals"] if line["message"] == OPENED)
    assert line["values"] == STEPS * VALUES >= np.size(values)
    assert all(account["values"] >= line["values"] for account in two.feature.ledger()["lines"])
    assert all(account["open_values"] == 0 for account in two.feature.ledger()["lines"])


@pytest.mark.parametrize("attacked", [deviating_roles.the_same_batch], indirect=True)
def test_the_same_rows_opened_again_in_every_step_count_again_in_every_step(attacked: tuple[Two, Path]) -> None:
    two, read = attacked
    job = two.outcome(spec())
    assert job["state"] == "done", job["error"]
    sums = np.array(json.loads(read.read_text()))
    assert len(sums) == STEPS
    assert (sums.std(axis=0) < 0.05 * np.abs(sums.mean(axis=0))).all()  # the same rows each time, but for the noise
    assert opened(two, job["id"]) == STEPS
    again = two.refused(spec("again", epochs="12"))
    assert f"{LABEL_PARTY} has used rho" in again or "rho is" in again


@pytest.mark.parametrize(
    ("attacked", "steps", "reason"),
    [
        (deviating_roles.second_opening, 1, "sent MaskedGradient of step 1 where step 2 was due"),
        (deviating_roles.opening_of_the_next_step, 0, "sent MaskedGradient of step 2 where step 1 was due"),
        (deviating_roles.weights_before_the_end, 0, "sent EncryptedWeights where MaskedGradient was due"),
        (deviating_roles.opening_of_nothing_encrypted, 0, "sent what no honest party sends"),
        (deviating_roles.opening_of_more, 0, "sent what no honest party sends"),
    ],
    indirect=["attacked"],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_asked_outside_of_its_step_or_in_another_shape_is_not_opened(
    attacked: tuple[Two, Path], steps: int, reason: str
) -> None:
    two, _ = attacked
    job = two.outcome(spec())["id"]
    assert opened(two, job) == steps
    error = two.feature.job(job)["error"]
    assert (error["code"], error["side"]) == ("remote_protocol_error", LABEL_PARTY)
    assert f"{LABEL_PARTY} {reason}" in error["message"]
    assert two.audited("job_ended", job) == [{"state": "failed", "code": "remote_protocol_error"}]
