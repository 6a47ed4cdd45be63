"""A party whose database is PostgreSQL works with one whose database is a file, and outlives a restart of it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from debian_postgresql import DebianPostgresql
from faulty_line import FEATURE, LABEL
from forked_servers import ServerProcess
from logs_of_servers import Two, export, problems, settle, trained

LONG = {"epochs": "20000"}
END_SECONDS = 30.0


@pytest.fixture(scope="module")
def two(
    tmp_path_factory: pytest.TempPathFactory,
    new_party: Callable[..., Any],
    some_ports: Callable[[int], list[int]],
    files: tuple[Path, Path],
    postgresql: DebianPostgresql,
) -> Iterator[Two]:
    """The label party keeps all it knows in PostgreSQL."""
    root, ports = tmp_path_factory.mktemp("postgresql"), some_ports(4)
    urls = [f"https://127.0.0.1:{port}" for port in ports]
    url = postgresql.new_schema()
    label = new_party(root / LABEL, LABEL, {FEATURE: urls[3]}, {"patients": str(files[0])}, ports[:2], url)
    feature = new_party(root / FEATURE, FEATURE, {LABEL: urls[1]}, {"clinic": str(files[1])}, ports[2:])
    label.granting = [feature]
    try:
        yield {LABEL: label.start(), FEATURE: feature.start()}
    finally:
        for party in (label, feature):
            party.close()


def test_a_job_ends_well_and_both_logs_verify(two: Two, job_spec: Callable[..., str], tmp_path: Path) -> None:
    job = trained(two, job_spec(epochs="2"))
    settle(two)
    assert not problems(export(two, tmp_path))
    own, other = (party.job(job) for party in two.values())
    assert own["metrics"]
    assert own["result_digest"] == other["result_digest"]
    assert [each["training"] for each in two[LABEL].call("GET", "/v1/models").json()["models"]] == [job]
    assert not list(two[LABEL].folder.glob("party.db*"))


def test_what_it_knows_is_there_after_its_server_was_killed(two: Two, job_spec: Callable[..., str]) -> None:
    job = trained(two, job_spec(epochs="1"))
    before = two[LABEL].job(job)
    two[LABEL].stop(9)
    two[LABEL].start()
    assert two[LABEL].job(job) == before
    trained(two, job_spec(epochs="1"))


def test_a_second_server_on_the_same_database_does_not_start(
    two: Two, new_party: Callable[..., Any], tmp_path: Path
) -> None:
    settings = (two[LABEL].folder / "party.toml").read_text()
    (url,) = re.findall(r'^url = "(.*)"$', settings, re.MULTILINE)
    copy = new_party(tmp_path / LABEL, LABEL, {}, {}, None, url)
    process = ServerProcess(copy.folder)
    assert process.first_line == ""
    process.wait(END_SECONDS)
    log = (copy.folder / "server.log").read_text()
    assert "PartyInUse: another server uses the database postgres of 127.0.0.1" in log
    assert "secret" not in log


def test_the_doctor_says_that_the_database_can_be_written(two: Two) -> None:
    findings = {each["check"]: each for each in two[LABEL].call("GET", "/v1/doctor").json()["findings"]}
    assert findings["database"]["result"] == "ok"
    assert findings["database"]["text"] == "The database postgres of 127.0.0.1 can be written."


def test_a_running_job_goes_on_or_ends_alike_at_both_sides_when_its_database_server_is_started_again(
    two: Two, job_spec: Callable[..., str], postgresql: DebianPostgresql
) -> None:
    job = two[LABEL].submit(job_spec(**LONG))["id"]
    for party in two.values():
        party.wait(job, lambda found: found["state"] == "running" and found["epoch"] > 0)
    before = two[LABEL].job(job)["epoch"]
    postgresql.stop()
    postgresql.start()
    found = two[LABEL].wait(job, lambda found: found["epoch"] > before + 1 or found["state"] != "running")
    if found["state"] == "running":
        two[LABEL].call("POST", f"/v1/jobs/{job}/cancel")
        assert [party.over(job)["state"] for party in two.values()] == ["cancelled", "cancelled"]
    else:  # the server went away in the middle of a change
        codes = [party.over(job)["error"]["code"] for party in two.values()]
        assert codes == ["storage_failed", "storage_failed"]
    settle(two)
