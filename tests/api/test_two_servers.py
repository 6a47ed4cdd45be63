"""Two server processes run jobs between them over HTTP on loopback."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Spec = Callable[..., str]


def test_a_clear_job_is_done_on_both_sides(parties: tuple[Any, Any], job_spec: Spec) -> None:
    label, feature = parties
    job = label.submit(job_spec())
    ended = [party.over(job["id"]) for party in parties]
    assert [found["state"] for found in ended] == ["done", "done"], [found["error"] for found in ended]
    assert ended[0]["spec_digest"] == ended[1]["spec_digest"]
    assert Path(ended[0]["model_path"]).is_file()
