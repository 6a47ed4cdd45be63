"""Each envelope that leaves a server or enters one is recorded there once: whole jobs, counted on the wire between."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from counted_line import CountedLine
from faulty_line import FEATURE, LABEL

BOUND_SECONDS = 60.0
QUIET_SECONDS = 1.5
"""Longer than a server keeps its counters in memory only (`parties/storage/ledger.py`)."""

Json = dict[str, Any]


@dataclass
class Two:
    """Two servers, and the line on which everything between them is counted."""

    parties: dict[str, Any]
    line: CountedLine

    def recorded(self, job: str, party: str) -> dict[str, int]:
        lines = self.parties[party].job(job)["traffic"]
        return {f"{line['direction']} {line['kind']}": line["messages"] for line in lines}

    def go_dark(self) -> None:
        """From now on nothing arrives; wait until nothing new leaves."""
        self.line.is_dark = True
        time.sleep(QUIET_SECONDS)

    def check(self, job: str) -> dict[str, dict[str, int]]:
        """What left and entered each server, once both have recorded exactly that and nothing travels any more."""
        deadline = time.monotonic() + BOUND_SECONDS
        while True:
            posts = self.line.posts
            time.sleep(QUIET_SECONDS)
            found = {party: (self.recorded(job, party), self.line.seen(job, party)) for party in self.parties}
            if self.line.posts == posts and all(ours == wire for ours, wire in found.values()):
                return {party: wire for party, (_, wire) in found.items()}
            assert time.monotonic() < deadline, found


@pytest.fixture(scope="module")
def two(
    tmp_path_factory: pytest.TempPathFactory,
    new_party: Callable[..., Any],
    some_ports: Callable[[int], list[int]],
    files: tuple[Path, Path],
) -> Iterator[Two]:
    root, ports = tmp_path_factory.mktemp("counted"), dict(zip((LABEL, FEATURE), some_ports(2), strict=True))
    urls = {party: f"https://127.0.0.1:{port}" for party, port in ports.items()}
    line = CountedLine(ports)
    with ExitStack() as stack:
        stack.callback(line.close)
        label = new_party(root / LABEL, LABEL, {FEATURE: urls[FEATURE]}, {"patients": str(files[0])})
        feature = new_party(root / FEATURE, FEATURE, {LABEL: urls[LABEL]}, {"clinic": str(files[1])})
        line.behind = {LABEL: label.peer, FEATURE: feature.peer}
        label.granting = [feature]
        for party in (label, feature):
            settings = party.folder / "party.toml"  # in the dark nobody gives up: that would begin another attempt
            settings.write_text(settings.read_text().replace("seconds = 8", "seconds = 120"))
            stack.callback(party.close)
            party.start()
        yield Two({LABEL: label, FEATURE: feature}, line)


def trains(job: Json) -> bool:
    return bool(job["step"])


def test_of_a_job_that_is_done_everything_is_recorded_once_at_both_ends(two: Two, job_spec: Callable[..., str]) -> None:
    job = two.parties[LABEL].submit(job_spec(epochs="2"))["id"]
    assert [party.over(job)["state"] for party in two.parties.values()] == ["done", "done"]
    wire = two.check(job)
    for party, other in ((LABEL, FEATURE), (FEATURE, LABEL)):
        sent = {line.removeprefix("sent "): count for line, count in wire[party].items() if line.startswith("sent")}
        received = {
            line.removeprefix("received "): count for line, count in wire[other].items() if line.startswith("received")
        }
        assert sent == received  # what left one side has entered the other
    words = {"sent Proposal", "received Acceptance", "sent Begin", "received Finish"}
    assert [wire[LABEL][word] for word in sorted(words)] == [1, 1, 1, 1]  # however often they were repeated


@pytest.mark.parametrize("operator", [LABEL, FEATURE])
def test_of_a_job_that_is_cancelled_everything_is_recorded_once_at_both_ends(
    two: Two, job_spec: Callable[..., str], operator: str
) -> None:
    job = two.parties[LABEL].submit(job_spec(epochs="3000"))["id"]
    for party in two.parties.values():
        party.wait(job, trains)
    two.go_dark()
    two.parties[operator].call("POST", f"/v1/jobs/{job}/cancel")
    two.line.is_dark = False
    assert [party.over(job)["state"] for party in two.parties.values()] == ["cancelled", "cancelled"]
    assert two.check(job)[operator]["sent Abort"] >= 1  # a peer that speaks of the job afterwards is told with another


@pytest.mark.parametrize("killed", [LABEL, FEATURE])
def test_the_abort_of_a_server_that_was_killed_is_recorded_once_at_both_ends(
    two: Two, job_spec: Callable[..., str], killed: str
) -> None:
    """It is stored before it leaves. Each start of the server finds it in the database, and says the same bytes."""
    job = two.parties[LABEL].submit(job_spec(epochs="3000"))["id"]
    for party in two.parties.values():
        party.wait(job, trains)
    two.go_dark()
    two.parties[killed].call("POST", f"/v1/jobs/{job}/cancel")
    two.parties[killed].stop(signal.SIGKILL)
    two.parties[killed].start()
    time.sleep(QUIET_SECONDS)
    assert two.line.seen(job, killed)["sent Abort"] == 1  # it has left, and the dark line has not brought it
    two.parties[killed].stop(signal.SIGKILL)
    two.line.is_dark = False
    two.parties[killed].start()
    assert [party.over(job)["state"] for party in two.parties.values()] == ["cancelled", "cancelled"]
    other = FEATURE if killed == LABEL else LABEL
    wire = two.check(job)
    assert 1 <= wire[other]["received Abort"] <= wire[killed]["sent Abort"]
