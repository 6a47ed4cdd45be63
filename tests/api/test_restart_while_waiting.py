"""A job that waits for an operator's approval outlives the servers of both sides: it goes on where it was."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from faulty_line import FEATURE, LABEL

TIMEOUT_SECONDS = 2
"""For so long a peer may be out of reach while a job runs."""
RESTARTS = {
    "the side that approves is stopped": ([FEATURE], signal.SIGTERM),
    "the side that proposes is stopped": ([LABEL], signal.SIGTERM),
    "both are killed": ([LABEL, FEATURE], signal.SIGKILL),
}

Json = dict[str, Any]
Two = dict[str, Any]


@pytest.fixture
def two(
    tmp_path: Path, new_party: Callable[..., Any], some_ports: Callable[[int], list[int]], files: tuple[Path, Path]
) -> Iterator[Two]:
    """No grant covers any job."""
    ports = some_ports(4)
    urls = {LABEL: f"https://127.0.0.1:{ports[1]}", FEATURE: f"https://127.0.0.1:{ports[3]}"}
    with ExitStack() as stack:
        label = new_party(tmp_path / LABEL, LABEL, {FEATURE: urls[FEATURE]}, {"patients": "patients.csv"}, ports[:2])
        feature = new_party(tmp_path / FEATURE, FEATURE, {LABEL: urls[LABEL]}, {"clinic": "clinic.csv"}, ports[2:])
        for party, file, own in ((label, files[0], "patients.csv"), (feature, files[1], "clinic.csv")):
            (party.folder / own).write_bytes(file.read_bytes())
            settings = party.folder / "party.toml"
            text = settings.read_text()
            settings.write_text(text.replace("peer_timeout_seconds = 8", f"peer_timeout_seconds = {TIMEOUT_SECONDS}"))
            stack.callback(party.close)
            party.start()
        yield {LABEL: label, FEATURE: feature}


def waits(found: Json) -> bool:
    return bool(found["waits_for"])


@pytest.fixture
def job(two: Two, job_spec: Callable[..., str]) -> str:
    """Proposed at both sides, and neither holds it up but for the feature party's operator."""
    job: str = two[LABEL].submit(job_spec(epochs="1"))["id"]
    for party in two.values():
        party.wait(job, waits)
    return job


def both_wait(two: Two, job: str) -> None:
    assert [party.job(job)["state"] for party in two.values()] == ["proposed", "proposed"]
    assert two[FEATURE].job(job)["waits_for"] == "approval"
    assert two[LABEL].job(job)["waits_for"] == f"the approval of {FEATURE}'s operator"


def decide(two: Two, job: str, decision: str, status: int = 200) -> Json:
    answer = two[FEATURE].call("POST", f"/v1/jobs/{job}/{decision}", json={"reason": "as we said"})
    assert answer.status_code == status, answer.text
    found: Json = answer.json()
    return found


def states(two: Two, job: str) -> list[str]:
    return [party.over(job)["state"] for party in two.values()]


@pytest.mark.parametrize(("who", "number"), RESTARTS.values(), ids=RESTARTS)
def test_it_waits_on_and_is_done_once_it_is_approved(
    two: Two, job: str, who: list[str], number: signal.Signals
) -> None:
    for party in who:
        two[party].stop(number)
    time.sleep(TIMEOUT_SECONDS + 1)  # longer than a peer may be out of reach while a job runs
    for party in who:
        two[party].start()
    both_wait(two, job)
    decide(two, job, "approve")
    assert states(two, job) == ["done", "done"]
    words = [line for line in two[LABEL].job(job)["traffic"] if line["kind"] in {"Proposal", "Waiting", "Acceptance"}]
    assert {line["kind"]: line["messages"] for line in words} == {"Proposal": 1, "Waiting": 1, "Acceptance": 1}


def test_it_may_be_approved_while_the_other_side_is_away(two: Two, job: str) -> None:
    two[LABEL].stop(signal.SIGKILL)
    assert decide(two, job, "approve")["approval"]["decision"] == "approved"
    time.sleep(TIMEOUT_SECONDS + 1)
    two[FEATURE].stop(signal.SIGKILL)
    with (
        ThreadPoolExecutor() as both
    ):  # at once: the side that is there first waits for the other no longer than agreed
        list(both.map(lambda party: party.start(), two.values()))
    assert states(two, job) == ["done", "done"]


def test_it_may_be_rejected_after_a_restart(two: Two, job: str) -> None:
    for party in two.values():
        party.stop()
        party.start()
    decide(two, job, "reject")
    assert states(two, job) == ["failed", "failed"]
    assert two[LABEL].job(job)["error"]["code"] == "job_rejected"
    assert "as we said" in two[LABEL].job(job)["error"]["message"]


def test_a_side_that_was_away_hears_that_the_other_one_cancelled_it(two: Two, job: str) -> None:
    two[FEATURE].stop()
    assert two[LABEL].call("POST", f"/v1/jobs/{job}/cancel").json()["state"] == "cancelled"
    two[FEATURE].start()
    assert states(two, job) == ["cancelled", "cancelled"]
    decide(two, job, "approve", status=409)


def test_its_deadline_goes_on_while_a_server_is_away(two: Two, job_spec: Callable[..., str]) -> None:
    spec = job_spec(epochs="1").replace("[job]", "[job]\ndeadline_seconds = 4")
    job = two[LABEL].submit(spec)["id"]
    two[FEATURE].wait(job, waits)
    two[FEATURE].stop()
    time.sleep(4)
    two[FEATURE].start()
    assert states(two, job) == ["failed", "failed"]
    assert two[FEATURE].job(job)["error"]["code"] == "deadline_passed"


@pytest.mark.parametrize("party", [LABEL, FEATURE])
def test_a_file_that_was_replaced_meanwhile_is_not_used(two: Two, job: str, party: str) -> None:
    """Of the side that approves the operator reads what is new; the side that proposed had approved the old file."""
    two[party].stop()
    path = two[party].folder / ("clinic.csv" if party == FEATURE else "patients.csv")
    header, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([header, first.replace(".", ".1", 1), *rest]) + "\n")
    two[party].start()
    if party == FEATURE:
        assert decide(two, job, "approve", status=409)["code"] == "request_changed"
        both_wait(two, job)
        decide(two, job, "approve")
        assert states(two, job) == ["done", "done"]
    else:
        decide(two, job, "approve")
        assert states(two, job) == ["failed", "failed"]
        assert two[LABEL].job(job)["error"]["code"] == "request_changed"


def test_a_job_whose_run_has_begun_goes_on_in_another_attempt(two: Two, job_spec: Callable[..., str]) -> None:
    job = two[LABEL].submit(job_spec(epochs="3000"))["id"]
    two[FEATURE].wait(job, waits)
    decide(two, job, "approve")
    for party in two.values():
        party.wait(job, lambda found: bool(found["step"]))
    two[FEATURE].stop()
    two[FEATURE].start()
    for party in two.values():
        party.wait(job, lambda found: found["attempt"] > 1 and found["worker_pid"] and not found["waits_for"])
    two[LABEL].call("POST", f"/v1/jobs/{job}/cancel")
    assert states(two, job) == ["cancelled", "cancelled"]
