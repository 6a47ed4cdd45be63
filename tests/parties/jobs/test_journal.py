"""What a role reports reaches the database; the end of a job also when there is no room for it at first."""

import math
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from identities import identity_of

from parties.errors import StorageFailed
from parties.jobs.journal import Journal, StoredEnd, result_of
from parties.storage.database import Job, Store, now
from parties.storage.engine import DATABASE_FILE
from parties.storage.ledger import Ledger
from parties.storage.models import ModelStore
from parties.storage.traffic import Traffic
from parties.wire.envelopes import Outgoing
from vfl.errors import LocalProtocolError
from vfl.notices import Notice
from vfl.reports import Outcome, Refused, RoundDone, Warned

BOUND_SECONDS = 20.0


def change(folder: Path, statement: str) -> None:
    """Behind the store's back."""
    with closing(sqlite3.connect(folder / DATABASE_FILE)) as connection:
        connection.execute(statement)


def a_job(**values: Any) -> Job:
    return Job(
        id="job",
        name="n",
        state="running",
        role="client",
        party="a",
        peers=["b"],
        spec_digest="",
        created_at=now(),
        **values,
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    opened.add(a_job(), b"\x80")
    yield opened
    opened.close()


@pytest.fixture
def ledger(store: Store) -> Iterator[Ledger]:
    opened = Ledger(store)
    yield opened
    opened.close()


def stored(store: Store) -> Job:
    found = store.job("job")
    assert found is not None
    return found


def test_a_round_is_an_event_with_its_measures(tmp_path: Path, store: Store, ledger: Ledger) -> None:
    journal = Journal(a_job(), store, ModelStore(tmp_path), ledger)
    journal.note(RoundDone(3, 10, b"state", {"accuracy": 0.5, "norm": math.inf}))
    (event,) = store.events("job", 0, 0)
    assert (event.kind, event.text) == ("round", "round 3 of 10 done")
    assert event.data == {"round": 3, "rounds": 10, "measures": {"accuracy": 0.5, "norm": None}}
    assert (stored(store).epoch, stored(store).step) == (3, 3)
    assert (tmp_path / "models" / "job" / "rounds" / "round-000003").read_bytes() == b"state"


def test_a_round_may_be_left_out_or_repeated_but_not_undone(tmp_path: Path, store: Store, ledger: Ledger) -> None:
    journal = Journal(a_job(), store, ModelStore(tmp_path), ledger)
    for number in (2, 5, 5):
        journal.note(RoundDone(number, 10, b""))
    with pytest.raises(LocalProtocolError, match="reports round 4 after round 5"):
        journal.note(RoundDone(4, 10, b""))


def test_who_was_refused_is_an_event_a_terminal_can_show(tmp_path: Path, store: Store, ledger: Ledger) -> None:
    Journal(a_job(), store, ModelStore(tmp_path), ledger).note(Refused("b", "weights \x1b[31m are not finite"))
    (event,) = store.events("job", 0, 0)
    assert (event.kind, event.data) == ("refused", {"peer": "b"})
    assert event.text == "b was left out: weights  [31m are not finite"


def test_a_job_that_is_taken_up_again_goes_on_from_its_round(tmp_path: Path, store: Store, ledger: Ledger) -> None:
    Journal(a_job(), store, ModelStore(tmp_path), ledger).note(RoundDone(4, 10, b""))
    with pytest.raises(LocalProtocolError):
        Journal(stored(store), store, ModelStore(tmp_path), ledger).note(RoundDone(3, 10, b""))


def test_an_event_is_stored_with_what_has_travelled_before_it(tmp_path: Path, store: Store, ledger: Ledger) -> None:
    ledger.sent(Outgoing("job", bytes(32), 1, identity_of("a"), "b").seal("ClientReady", b"x" * 11))
    Journal(a_job(), store, ModelStore(tmp_path), ledger).record("left", "a is away")
    assert stored(store).traffic == [Traffic("sent", "b", "ClientReady", 1, 11)]


def test_a_result_shows_numbers_that_json_can_hold() -> None:
    outcome = Outcome(b"", {"auc": math.nan, "r2": 0.5}, {}, {"loss": [1.0, math.inf]})
    assert result_of(outcome) == {
        "metrics": {"r2": 0.5},
        "operations": {},
        "series": {"loss": [1.0, None]},
        "result_digest": "",
    }


def test_a_warning_of_the_role_is_seen_as_it_comes_and_stored_with_the_job_once(
    tmp_path: Path, store: Store, ledger: Ledger
) -> None:
    journal = Journal(a_job(), store, ModelStore(tmp_path), ledger)
    for _ in range(2):
        journal.note(Warned(Notice("warning", "loss_has_not_moved", "the loss has\x07 not moved")))
    (told,) = stored(store).notices
    assert told == Notice("warning", "loss_has_not_moved", "the loss has  not moved")
    assert journal.tell([told, Notice("note", "ended_early", "ended")]) == stored(store).notices
    assert store.events("job", 0, 0)[0].text == "warning: the loss has  not moved"


def test_an_end_that_cannot_be_stored_is_tried_again_until_it_is(tmp_path: Path, store: Store, ledger: Ledger) -> None:
    journal = Journal(a_job(), store, ModelStore(tmp_path), ledger)
    change(tmp_path, "ALTER TABLE events RENAME COLUMN data TO elsewhere")
    with pytest.raises(StorageFailed, match="cannot be written"):
        store.record("job", "progress", "news")
    closed = threading.Event()
    ending = StoredEnd("failed", "no room", None, {}, {})
    journal.close_in_time(ending, closed.set)
    assert stored(store).state == "running"
    assert not closed.is_set()
    change(tmp_path, "ALTER TABLE events RENAME COLUMN elsewhere TO data")
    reader = threading.Thread(target=lambda: store.events("job", 0, BOUND_SECONDS), daemon=True)
    reader.start()
    reader.join(BOUND_SECONDS)
    assert closed.wait(BOUND_SECONDS)
    assert stored(store).state == "failed"


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    (tmp_path / DATABASE_FILE).write_bytes(b"something else" * 100)
    with pytest.raises(StorageFailed, match="not a database"):
        Store(tmp_path)
