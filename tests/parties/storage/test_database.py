"""Jobs, events and traffic survive the process; a reader waits for an event and no longer."""

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from parties.database_errors import DatabaseBusy
from parties.storage.database import Event, Job, Store, now
from parties.storage.engine import DATABASE_FILE
from parties.storage.job_list import JobLine
from parties.storage.passed import Passed
from parties.storage.traffic import Count, TrafficKey

LONG_SECONDS = 20.0
SPECIFICATION = {"job": {"purpose": "research"}}
SPEC = msgspec.msgpack.encode(SPECIFICATION)


@pytest.fixture
def store(tmp_path: Path, database_url: str) -> Iterator[Store]:
    opened = Store(tmp_path, url=database_url)
    opened.add(a_job(), SPEC, None, "key", "digest")
    yield opened
    opened.close()


def a_job(job: str = "job", created_at: str = "") -> Job:
    return Job(
        id=job,
        name="n",
        state="running",
        role="label",
        party="a",
        peers=["b"],
        spec_digest="00",
        created_at=created_at or now(),
    )


def test_a_job_is_read_as_it_was_written(store: Store, tmp_path: Path, database_url: str) -> None:
    store.record("job", "step", "step 1", {"step": 1}, step=1, error={"code": "x"})
    sent, received = TrafficKey("job", "sent", "b", "Kind"), TrafficKey("job", "received", "b", "Kind")
    store.add_passed(Passed({sent: Count(1, 10, b"one")}))
    store.add_passed(Passed({sent: Count(1, 10, b"two"), received: Count(1, 5, b"three")}))
    store.add_passed(Passed({TrafficKey("dropped meanwhile", "sent", "b", "Kind"): Count(1, 10)}))
    again = Store(tmp_path, url=database_url)
    job = again.job("job")
    assert (again.last_received(received), again.last_received(received._replace(peer="c"))) == (b"three", b"")
    again.close()
    assert job is not None
    assert (job.step, job.error, job.over) == (1, {"code": "x"}, False)
    assert {(line.direction, line.payload_bytes) for line in job.traffic} == {("sent", 20), ("received", 5)}


def test_a_job_shows_what_was_agreed_and_a_list_does_not(store: Store) -> None:
    job = store.job("job")
    assert job is not None
    assert job.specification == SPECIFICATION
    assert not {"specification", "plan", "reveals", "peers"} & set(JobLine.__struct_fields__)


def test_lists_are_pages_newest_first_and_each_begins_after_the_last_job_of_the_one_before(store: Store) -> None:
    for number in range(5):
        store.add(a_job(f"job-{number}", created_at=f"2026-01-01T00:00:0{number // 2}+00:00"), SPEC)
    store.update("job-4", error={"code": "cancelled"})
    listed, after = [], ""
    while page := store.lines(2, after):
        listed += page
        after = page[-1].id
    assert [line.id for line in listed if line.id != "job"] == ["job-4", "job-2", "job-3", "job-0", "job-1"]
    assert {line.id: line.error_code for line in listed}["job-4"] == "cancelled"


def test_the_model_of_a_folder_that_was_copied_lies_in_the_copy(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add(a_job(), SPEC)
    store.update("job", model_digest="00")
    shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-copy")
    copied = Store(tmp_path.parent / f"{tmp_path.name}-copy")
    paths = [found.model_path for found in (store.job("job"), copied.job("job")) if found is not None]
    copied.close()
    store.close()
    assert paths == [
        str(folder / "models" / "job" / "model.safetensors")
        for folder in (tmp_path, tmp_path.parent / f"{tmp_path.name}-copy")
    ]


def test_a_job_tells_who_left_and_came_back(store: Store) -> None:
    for kind, text in (("left", "b stopped answering"), ("round", "round 1"), ("joined", "b is back")):
        store.record("job", kind, text)
    job = store.job("job")
    assert job is not None
    assert job.attendance == ["b stopped answering", "b is back"]


def test_a_key_leads_to_its_job(store: Store) -> None:
    assert store.job_of_key("key") == ("job", "digest")
    assert store.job_of_key("other") is None
    assert store.job("other") is None


def test_a_waiting_reader_is_woken_by_the_next_event(store: Store) -> None:
    found: list[Event] = []
    reader = threading.Thread(target=lambda: found.extend(store.events("job", 0, LONG_SECONDS)), daemon=True)
    reader.start()
    store.record("job", "progress", "news")
    reader.join(LONG_SECONDS / 2)
    assert [(event.number, event.text) for event in found] == [(1, "news")]


def test_a_reader_of_a_job_that_is_over_does_not_wait(store: Store) -> None:
    store.record("job", "done", "done", state="done")
    assert [event.kind for event in store.events("job", 0, LONG_SECONDS)] == ["done"]
    reader = threading.Thread(target=lambda: store.events("job", 1, LONG_SECONDS), daemon=True)
    reader.start()
    reader.join(LONG_SECONDS / 2)
    assert not reader.is_alive()


def test_the_database_is_private(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {DATABASE_FILE}
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}
    store.close()


def test_a_write_waits_for_another_program_and_then_names_it(tmp_path: Path) -> None:
    store = Store(tmp_path, busy_seconds=0.3)
    with closing(sqlite3.connect(tmp_path / DATABASE_FILE, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseBusy, match="another program kept"):
            store.keep_words("none", {"peer": None})
        assert store.open_jobs() == []  # whoever reads does not wait
        other.execute("COMMIT")
    store.keep_words("none", {"peer": None})
    store.close()


THREE = {"MOST_PROPOSALS": 3, "MOST_BYTES": 3 * len(SPEC) + 3 * len("{}[][]")}


@pytest.mark.parametrize("most", THREE)
def test_a_peers_proposals_that_came_to_nothing_are_bounded(
    store: Store, monkeypatch: pytest.MonkeyPatch, most: str
) -> None:
    monkeypatch.setattr(f"parties.storage.pruning.{most}", THREE[most])
    proposed = ["done", "other", "b0", "b1", "b2", "b3", "b4", "last"]
    for number, job in enumerate(proposed):
        made = a_job(job, created_at=f"2026-01-01T00:00:{number:02}")
        peer, state = ("c" if job == "other" else "b"), ("done" if job == "done" else "failed")
        store.add(msgspec.structs.replace(made, role="feature", peers=[peer]), SPEC, from_peer=True)
        store.record(job, state, "over", state=state, words={peer: b"word"})
    left = [job for job in proposed if store.job(job) is not None]
    assert left == ["done", "other", "b2", "b3", "b4", "last"]
    assert [word.job for word in store.words()] == left
    assert store.job("job") is not None
