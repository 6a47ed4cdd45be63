"""A party that is put back on another machine goes on; what its peer has signed meanwhile is never lowered."""

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import run
from faulty_line import FEATURE, LABEL
from logs_of_servers import Two, entries, export, problems, settle, trained


@pytest.fixture
def two(
    tmp_path: Path,
    new_party: Callable[..., Any],
    some_ports: Callable[[int], list[int]],
    files: tuple[Path, Path],
) -> Iterator[Two]:
    ports = some_ports(4)
    urls = {LABEL: f"https://127.0.0.1:{ports[1]}", FEATURE: f"https://127.0.0.1:{ports[3]}"}
    label = new_party(tmp_path / LABEL, LABEL, {FEATURE: urls[FEATURE]}, {"patients": str(files[0])}, ports[:2])
    feature = new_party(tmp_path / FEATURE, FEATURE, {LABEL: urls[LABEL]}, {"clinic": str(files[1])}, ports[2:])
    label.granting = [feature]
    servers: Two = {LABEL: label.start(), FEATURE: feature.start()}
    try:
        yield servers
    finally:
        for party in servers.values():
            party.close()


def move(two: Two, name: str, folder: Path, backup: Path) -> None:
    """The party's machine is lost; its operator has the backup, and the passphrase from another place."""
    old = two[name]
    if old.process is not None and old.process.runs:
        old.stop()
    restored = run(backup.parent, "db", "restore", str(backup), str(folder))
    assert restored["missing"] == [str(folder / "identity.passphrase")]
    shutil.copy(old.folder / "identity.passphrase", folder)
    two[name] = dataclasses.replace(old, folder=folder, process=None)


def test_a_party_that_was_moved_to_another_machine_goes_on(
    two: Two, job_spec: Callable[..., str], tmp_path: Path
) -> None:
    first = trained(two, job_spec(epochs="1"))
    settle(two)
    backup = tmp_path / "backup"
    made = run(tmp_path, "db", "backup", LABEL, "--output", str(backup))  # while the server runs
    move(two, LABEL, tmp_path / "elsewhere" / LABEL, backup)
    two[LABEL].start()
    assert [each["training"] for each in two[LABEL].call("GET", "/v1/models").json()["models"]] == [first]
    trained(two, job_spec(epochs="1"))
    settle(two)
    assert not problems(export(two, tmp_path / "bundles"))
    (told,) = (entry for entry in entries(two[LABEL]) if entry["event"] == "restored")
    assert told["detail"] == {"leaves": made["leaves"]}


def test_a_party_that_moves_in_the_middle_of_a_training_goes_on_with_it(
    two: Two, job_spec: Callable[..., str], tmp_path: Path
) -> None:
    text = job_spec(epochs="20\ncheckpoint_steps = 5")
    whole = trained(two, text)
    job = two[LABEL].submit(text)["id"]
    two[FEATURE].wait(job, lambda found: found["step"] > 10)
    two[FEATURE].stop()
    run(tmp_path, "db", "backup", FEATURE, "--output", "backup")
    move(two, FEATURE, tmp_path / "elsewhere" / FEATURE, tmp_path / "backup")
    moved = two[FEATURE].start()
    for party in (two[LABEL], moved):
        ended, first = party.over(job), party.job(whole)
        assert ended["state"] == "done", ended["error"]
        assert ended["model_digest"] == first["model_digest"]
        assert ended["attempt"] > 1


def test_a_backup_that_is_older_than_what_the_peer_has_signed_lowers_nothing(
    two: Two, job_spec: Callable[..., str], tmp_path: Path
) -> None:
    """A job that waited for the feature party's operator when the backup was made is over in truth."""
    label, feature = two[LABEL], two[FEATURE]
    label.granting = []
    job = label.submit(job_spec(epochs="1"))["id"]
    feature.wait(job, lambda found: found["waits_for"] == "approval")
    run(tmp_path, "db", "backup", FEATURE, "--output", "backup")
    feature.call("POST", f"/v1/jobs/{job}/approve", json={})
    assert [party.over(job)["state"] for party in two.values()] == ["done", "done"]
    settle(two)

    move(two, FEATURE, tmp_path / "elsewhere" / FEATURE, tmp_path / "backup")
    restored = two[FEATURE].start()
    ended = restored.over(job)
    assert (ended["state"], ended["error"]["code"]) == ("failed", "audit_log_contradicted")
    assert "newest copy" in ended["error"]["fix"]
    label.granting = [restored]
    next_job = label.submit(job_spec(epochs="1"))["id"]
    assert label.over(next_job)["error"]["code"] == "audit_log_contradicted"
    assert label.job(job)["state"] == "done"


def test_a_job_that_was_open_does_not_go_on_before_its_peer_has_said_what_it_has_signed(
    two: Two, job_spec: Callable[..., str], tmp_path: Path
) -> None:
    label, feature = two[LABEL], two[FEATURE]
    label.granting = []
    job = label.submit(job_spec(epochs="1"))["id"]
    feature.wait(job, lambda found: found["waits_for"] == "approval")
    settle(two)
    run(tmp_path, "db", "backup", FEATURE, "--output", "backup")
    label.stop()
    move(two, FEATURE, tmp_path / "elsewhere" / FEATURE, tmp_path / "backup")
    restored = two[FEATURE].start()
    assert restored.over(job)["error"]["code"] == "audit_log_unconfirmed"
    label.granting = [restored]
    label.start()
    label.over(job)
    trained(two, job_spec(epochs="1"))
