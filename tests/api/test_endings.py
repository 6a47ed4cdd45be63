"""However a last word is lost, both sides end a job alike: two real servers with a faulty line between them."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from faulty_line import FEATURE, LABEL, Fault, Line, line

WELL_SECONDS = 60.0
"""Within so long after the line is well both sides have ended alike."""
TRIP_SECONDS = 300.0
TIMEOUT_SECONDS = 1.5
PAIRS = 4
"""That run the many at once."""

Json = dict[str, Any]
Pair = Callable[[Path], Any]


@dataclass
class Two:
    """Two servers and the line between them."""

    parties: dict[str, Any]
    line: Line
    spec: Callable[..., str]

    def run(self, fault: Fault) -> Json:
        """One job with one fault; what came of it."""
        self.line.lose(fault, lambda: self._strike(fault))
        label, feature = self.parties[LABEL], self.parties[FEATURE]
        text = self.spec(epochs="3000" if fault.kind == "Abort" else "1")
        if fault.kind == "Refusal":
            text = text.replace('"x19"', '"x91"')
        job = label.submit(text)["id"]
        if fault.kind == "Abort":
            both_train = [party.wait(job, lambda found: found["worker_pid"] is not None) for party in (label, feature)]
            assert len(both_train) == 2
            self._cancel(fault.sender, job)
        assert self.line.tripped.wait(TRIP_SECONDS), fault
        if fault.cancelled_by:
            self._cancel(fault.cancelled_by, job)
        while not self.line.is_well:
            time.sleep(0.05)
        if fault.killed:
            self.parties[fault.killed].start()
        began = time.monotonic()
        while True:
            found = [party.job(job) for party in (label, feature)]
            states = [one["state"] for one in found]
            alike = states[0] == states[1] in {"done", "failed", "cancelled"}
            workers = [worker for party in (label, feature) for worker in children(party.process.pid)]
            seconds = time.monotonic() - began
            if (alike and not workers) or seconds > WELL_SECONDS:
                errors = [(one["error"] or {}).get("code") for one in found]
                return {"states": states, "workers": workers, "seconds": round(seconds, 1), "errors": errors}
            time.sleep(0.1)

    def _cancel(self, party: str, job: str) -> None:
        with suppress(httpx.HTTPError):  # the server may be killed before it has answered
            self.parties[party].call("POST", f"/v1/jobs/{job}/cancel")

    def _strike(self, fault: Fault) -> None:
        if fault.killed:
            self.parties[fault.killed].stop(signal.SIGKILL)


def children(pid: int) -> list[int]:
    """Worker processes of a server that run."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


@contextmanager
def two_parties(
    root: Path, new_party: Callable[..., Any], job_spec: Callable[..., str], ports: list[int], files: tuple[Path, Path]
) -> Iterator[Two]:
    urls = {party: f"https://127.0.0.1:{port}" for party, port in zip((LABEL, FEATURE), ports, strict=True)}
    with ExitStack() as stack:
        between = stack.enter_context(line(dict(zip((LABEL, FEATURE), ports, strict=True))))
        label = new_party(root / LABEL, LABEL, {FEATURE: urls[FEATURE]}, {"patients": str(files[0])})
        feature = new_party(root / FEATURE, FEATURE, {LABEL: urls[LABEL]}, {"clinic": str(files[1])})
        between.behind = {LABEL: label.peer, FEATURE: feature.peer}
        label.granting = [feature]
        for party in (label, feature):
            settings = party.folder / "party.toml"
            settings.write_text(settings.read_text().replace("seconds = 8", f"seconds = {TIMEOUT_SECONDS}"))
            stack.callback(party.close)
            party.start()
        yield Two({LABEL: label, FEATURE: feature}, between, job_spec)


@pytest.fixture(scope="module")
def two(
    tmp_path_factory: pytest.TempPathFactory,
    new_party: Callable[..., Any],
    job_spec: Callable[..., str],
    some_ports: Callable[[int], list[int]],
    files: tuple[Path, Path],
) -> Iterator[Two]:
    with two_parties(tmp_path_factory.mktemp("two"), new_party, job_spec, some_ports(2), files) as made:
        yield made


DARK = TIMEOUT_SECONDS * 1.5


@pytest.mark.parametrize(
    "fault",
    [
        Fault(LABEL, "Finish", receipt=False, both_ways=True, dark_seconds=DARK, killed="", cancelled_by=FEATURE),
        Fault(LABEL, "Finish", receipt=False, both_ways=False, dark_seconds=0.5, killed=LABEL, cancelled_by=""),
        Fault(FEATURE, "Finish", receipt=True, both_ways=True, dark_seconds=0.5, killed=FEATURE, cancelled_by=""),
        Fault(FEATURE, "Abort", receipt=False, both_ways=True, dark_seconds=DARK, killed="", cancelled_by=""),
    ],
    ids=lambda fault: f"{fault.kind} of {fault.sender}",
)
def test_both_sides_end_alike_when_a_last_word_is_lost(two: Two, fault: Fault) -> None:
    found = two.run(fault)
    assert len(set(found["states"])) == 1, found
    assert not found["workers"]
    if fault.kind == "Finish" and not fault.receipt:  # the coordinator had stored it as done before it said so
        assert found["states"] == ["done", "done"]


def test_many_seeded_faults(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    new_party: Callable[..., Any],
    job_spec: Callable[..., str],
    some_ports: Callable[[int], list[int]],
    files: tuple[Path, Path],
) -> None:
    """Several minutes, so only when asked for: CONTRIBUTING.md says how."""
    runs = request.config.getoption("--endings", default=0)
    if not runs:
        pytest.skip("give --endings 50 to run it")

    def some(seeds: range) -> list[tuple[int, Fault, Json]]:
        found = []
        folder = tmp_path / str(seeds.start)
        with two_parties(folder, new_party, job_spec, some_ports(2), files) as two:
            for seed in seeds:
                fault = Fault.of(seed, 60.0)
                found.append((seed, fault, two.run(fault)))
                sys.stderr.write(f"{found[-1]}\n")
        return found

    with ThreadPoolExecutor(PAIRS) as pool:
        batches = list(pool.map(some, [range(first, runs, PAIRS) for first in range(PAIRS)]))
    wrong = [one for batch in batches for one in batch if len(set(one[2]["states"])) > 1 or one[2]["workers"]]
    assert not wrong
