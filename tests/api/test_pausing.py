"""An operator of either side pauses a training and resumes it, by the command line, between two real servers."""

import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from api.cli.main import main

LABEL, FEATURE = "label-party", "feature-party"
Json = dict[str, Any]
Pair = dict[str, Any]
Vfl = Callable[..., tuple[int, Json]]


@pytest.fixture
def vfl(pair: Pair, capfd: pytest.CaptureFixture[str]) -> Vfl:
    """(exit code, what is printed as JSON) of `vfl job VERB JOB` at a party."""

    def vfl(verb: str, job: str, side: str) -> tuple[int, Json]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main(["job", verb, job, "--party", str(pair[side].folder), "--format", "json"])
        out, err = capfd.readouterr()
        return int(end.value.code or 0), json.loads(out or err)

    return vfl


def refused(answer: tuple[int, Json]) -> str:
    code, problem = answer
    assert code != 0
    return str(problem["error_code"])


def paused_by(side: str) -> Callable[[Json], bool]:
    """Nobody works at the job, and whoever looks reads whose operator has paused it."""
    words = f"{side}, whose operator paused the job, to resume it"
    return lambda found: (found["state"], found["waits_for"], found["worker_pid"]) == ("running", words, None)


def works(found: Json) -> bool:
    return found["state"] == "running" and found["worker_pid"] is not None and not found["waits_for"]


def test_either_operator_pauses_a_training_and_alone_resumes_it_also_after_both_servers_were_away(
    pair: Pair, vfl: Vfl, job_spec: Callable[..., str]
) -> None:
    text = job_spec(epochs="20\ncheckpoint_steps = 5")
    whole = pair[LABEL].over(pair[LABEL].submit(text)["id"])
    assert whole["state"] == "done", whole["error"]
    job = pair[LABEL].submit(text)["id"]
    for side, other in ((LABEL, FEATURE), (FEATURE, LABEL)):
        for party in pair.values():
            party.wait(job, lambda found: works(found) and found["step"] > 5)
        assert vfl("pause", job, side)[0] == 0
        for party in pair.values():
            party.wait(job, paused_by(side))
        assert refused(vfl("pause", job, side)) == "already_paused"
        assert refused(vfl("pause", job, other)) == "paused_by_peer"
        assert refused(vfl("resume", job, other)) == "paused_by_peer"
        for party in (pair[side], pair[other]):
            party.stop(signal.SIGKILL)
            party.start()
        for party in pair.values():
            party.wait(job, paused_by(side))
        assert vfl("resume", job, side)[0] == 0
        for party in pair.values():
            party.wait(job, lambda found: not found["waits_for"])
    for party in pair.values():
        ended = party.over(job)
        assert ended["state"] == "done", ended["error"]
    assert pair[LABEL].job(job)["model_digest"] == whole["model_digest"]
    assert refused(vfl("pause", job, LABEL)) == "cannot_pause"
    assert refused(vfl("resume", job, LABEL)) == "cannot_pause"


def test_what_is_not_paused_cannot_be_resumed_and_a_paused_job_can_be_cancelled(
    pair: Pair, vfl: Vfl, job_spec: Callable[..., str]
) -> None:
    job = pair[LABEL].submit(job_spec(epochs="200"))["id"]
    for party in pair.values():
        party.wait(job, works)
    assert refused(vfl("resume", job, FEATURE)) == "not_paused"
    assert vfl("pause", job, FEATURE)[0] == 0
    pair[LABEL].wait(job, paused_by(FEATURE))
    assert vfl("cancel", job, LABEL)[0] == 0
    assert {party.over(job)["state"] for party in pair.values()} == {"cancelled"}
