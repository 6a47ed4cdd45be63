"""The end of a job reaches the database, also when there is no room for it at first."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from parties.errors import StorageFailed
from parties.journal import Journal
from parties.registry import Registry
from parties.store import DATABASE_FILE, Job, Store, now

BOUND_SECONDS = 20.0


def change(folder: Path, statement: str) -> None:
    """Behind the store's back."""
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as connection:
        connection.execute(statement)


def test_an_end_that_cannot_be_stored_is_tried_again_until_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = Job(id="job", name="n", state="running", role="label", party="a", peers=[], spec_digest="", created_at=now())
    store.add(job, b"spec")
    change(tmp_path, "ALTER TABLE events RENAME TO elsewhere")
    with pytest.raises(StorageFailed, match="cannot be written"):
        store.record("job", "progress", "news")
    Journal(job, store, Registry(tmp_path)).close("failed", "no room", None, {"state": "failed"})
    found = store.job("job")
    assert found is not None
    assert found.state == "running"
    change(tmp_path, "ALTER TABLE elsewhere RENAME TO events")
    reader = threading.Thread(target=lambda: store.events("job", 0, BOUND_SECONDS), daemon=True)
    reader.start()
    reader.join(BOUND_SECONDS)
    found = store.job("job")
    assert found is not None
    assert found.state == "failed"
    store.close()


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / DATABASE_FILE).write_bytes(b"something else" * 100)
    with pytest.raises(StorageFailed, match="not a database"):
        Store(tmp_path)
