"""Checkpoints on disk: whole or not there, the newest two, and what two roles have said as one digest."""

from pathlib import Path

import pytest

from parties.storage.checkpoints import Checkpoint, CheckpointStore
from parties.wire.control import CheckpointName
from parties.worker.transcripts import Transcripts


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step, 1, {"telco": CheckpointName(step, 1, b"t" * 32)}, b"state")


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path)


def test_the_newest_two_are_kept_for_their_owner_alone_until_the_job_is_over(
    store: CheckpointStore, tmp_path: Path
) -> None:
    for step in (10, 20, 30):
        store.keep("job", checkpoint(step))
    assert list(store.held("job")) == [20, 30]
    assert store.checkpoint("job", 20) == checkpoint(20)
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "checkpoints").rglob("*")} == {0}
    store.drop("job")
    assert store.held("job") == {}


def test_what_came_after_the_step_from_which_a_run_goes_on_is_dropped(store: CheckpointStore) -> None:
    for step in (10, 20):
        store.keep("job", checkpoint(step))
    store.drop_after("job", 10)
    assert list(store.held("job")) == [10]
    store.drop_after("job", 0)
    assert store.held("job") == {}


def test_a_damaged_or_half_written_one_does_not_count(store: CheckpointStore, tmp_path: Path) -> None:
    for step in (10, 20):
        store.keep("job", checkpoint(step))
    path = tmp_path / "checkpoints" / "job" / f"{20:012}"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    path.with_name(".000000000030.12ab").write_bytes(b"half")
    assert list(store.held("job")) == [10]


def test_two_roles_that_have_said_the_same_have_one_transcript_whatever_crossed_on_the_way() -> None:
    bank, telco = Transcripts("bank", ["telco"], {}), Transcripts("telco", ["bank"], {})
    bank.sent("telco", "Question", b"1")
    bank.taken("telco", "Answer", b"2")
    telco.sent("bank", "Answer", b"2")
    telco.taken("bank", "Question", b"1")
    first = bank.cut()["telco"]
    assert telco.cut()["bank"] == first
    assert bank.cut()["telco"] != first  # what came before stays in it
    telco.sent("bank", "Answer", b"3")
    assert telco.cut()["bank"] != bank.cut()["telco"]


def test_a_transcript_goes_on_from_that_of_its_checkpoint() -> None:
    whole = Transcripts("bank", ["telco"], {})
    again = Transcripts("bank", ["telco"], whole.cut())
    for each in (whole, again):
        each.sent("telco", "Question", b"1")
    assert whole.cut() == again.cut() != Transcripts("bank", ["telco"], {}).cut()
