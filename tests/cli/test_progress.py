"""What a terminal is told of how far a job is and how long it takes."""

from typing import Any

import pytest

from api.cli.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("api.cli.progress.time.monotonic", lambda: now[0])
    return now


def job(step: int, steps: int) -> dict[str, Any]:
    return {"step": step, "steps": steps, "epoch": 0, "epochs": 1, "specification": {"job": {"protocol": "rounds"}}}


def test_who_begins_to_watch_late_is_told_by_the_pace_since_then(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(quiet=False) as told:
        told.job(job(500, 1000))
        clock[0] += 50
        told.job(job(600, 1000))
    assert "round 600 of 1000, 200 s left" in capsys.readouterr().err


def test_a_job_of_few_rounds_is_estimated_after_a_tenth_of_them(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(quiet=False) as told:
        told.job(job(1, 30))
        clock[0] += 8
        told.job(job(3, 30))
        assert "left" not in capsys.readouterr().err
        clock[0] += 12
        told.job(job(6, 30))
    assert "round 6 of 30, 96 s left" in capsys.readouterr().err
