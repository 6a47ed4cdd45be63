"""What leaves is spent with its leaf, never beyond its job's budget; over all jobs accounts grow, and a cap holds."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sql
from identities import identity_of
from proposed_jobs import BANK, DIGEST, TELCO, request, specification

from parties.errors import PolicyRefused, StorageFailed
from parties.storage import lifetime
from parties.storage.database import Job, Store, now
from parties.storage.ledger import Ledger
from parties.storage.lifetime import LedgerLine
from parties.storage.passed import AUDIT_LOG
from parties.trust.budget import Charge, with_steps_again
from parties.trust.errors import BudgetSpent
from parties.trust.leaves import Event, decode
from parties.trust.request import Request
from parties.wire.envelopes import Envelope, Outgoing

CAP = 0.06
SUMS = "OpenedGradient"


@pytest.fixture
def store(tmp_path: Path, database_url: str) -> Iterator[Store]:
    opened = Store(tmp_path, url=database_url)
    yield opened
    opened.close()


def approve(store: Store, job: str, asked: Request | None = None, cap: float = CAP) -> None:
    asked = asked or request()
    stored = Job(
        id=job,
        name="scores",
        state="running",
        role="feature",
        party=TELCO,
        peers=[BANK],
        spec_digest="00",
        created_at=now(),
    )
    store.add(stored, asked.spec.encoded())
    with store.database.writing() as connection:
        lifetime.open_budget(connection, job, TELCO, asked.budget, cap)


@contextmanager
def ledger_of(store: Store) -> Iterator[Ledger]:
    ledger = Ledger(store)
    try:
        yield ledger
    finally:
        ledger.close()


STEPS_AGAIN = 5
"""After crashes: five intervals, each of one step in so short a training."""


def message(job: str = "job", kind: str = SUMS, peer: str = BANK, payload_bytes: int = 100) -> list[Envelope]:
    return Outgoing(job, bytes(32), 1, identity_of(TELCO), peer).seal(kind, bytes(payload_bytes))


def spend(store: Store, job: str, messages: int = 1, kind: str = SUMS, peer: str = BANK) -> None:
    """So many messages leave."""
    with ledger_of(store) as ledger:
        for _ in range(messages):
            ledger.sent(message(job, kind, peer))


def sent_leaves(store: Store) -> int:
    with store.database.reading() as connection:
        return sum(decode(leaf).event is Event.SENT for leaf in AUDIT_LOG.leaves(connection))


def accounts(store: Store) -> dict[str, LedgerLine]:
    with store.database.reading() as connection:
        return {line.column: line for line in lifetime.accounts(connection)}


def test_every_step_is_spent_and_not_one_message_more_than_agreed(store: Store) -> None:
    approve(store, "job")
    spend(store, "job", request().plan.steps + STEPS_AGAIN)
    with pytest.raises(BudgetSpent) as refused:
        spend(store, "job")
    assert str(refused.value) == (
        "OpenedGradient may reveal 180 values to bank in this job, in 45 messages; all have left, and one more would "
        "have"
    )
    assert accounts(store)["a"].values == 180


def test_no_more_steps_are_taken_again_than_the_cap_of_a_column_leaves(store: Store) -> None:
    approve(store, "first")
    spend(store, "first", 40)
    store.update("first", state="done")
    approve(store, "second")
    assert accounts(store)["a"].open_rho == pytest.approx(0.025 * (40 + STEPS_AGAIN) / 40)
    (line,) = (line for line in request().budget if line.rho)
    used = dict.fromkeys(line.accounts, Charge(0, 0.06 - 0.025 * 43.5 / 40))
    (left,) = with_steps_again([line], used, 0.06)
    assert left.messages == 43
    (none_left,) = with_steps_again([line], dict.fromkeys(line.accounts, Charge(0, 0.06 - 0.025)), 0.06)
    assert none_left.messages == 40


def test_a_message_cannot_hold_more_values_than_agreed(store: Store) -> None:
    approve(store, "job")
    with ledger_of(store) as ledger, pytest.raises(BudgetSpent, match="has 5000 bytes; 1056 are the most"):
        ledger.sent(message(payload_bytes=5000))
    assert accounts(store)["a"].values == sent_leaves(store) == 0


def test_what_a_job_has_no_budget_for_does_not_leave(store: Store) -> None:
    approve(store, "job")
    for job, kind, peer in (("job", "Embedding", BANK), ("job", SUMS, "shop"), ("another", SUMS, BANK)):
        with pytest.raises(BudgetSpent, match="may reveal nothing to"):
            spend(store, job, kind=kind, peer=peer)


def test_the_accounts_show_what_has_left_and_what_open_jobs_may_still_reveal(store: Store) -> None:
    approve(store, "job")
    spend(store, "job", 10)
    line = accounts(store)["b"]
    assert (line.peer, line.dataset, line.digest, line.counted) == (BANK, "calls", DIGEST, "values")
    assert (line.values, line.open_values) == (40, 520 + 4 * STEPS_AGAIN + 5 * 400)  # with scores, five times again
    assert [line.rho, line.open_rho] == pytest.approx([0.025 / 4, 0.025 * (30 + STEPS_AGAIN) / 40])


def test_a_job_that_ended_early_has_used_only_what_has_left(store: Store) -> None:
    approve(store, "job")
    spend(store, "job", 10)
    store.update("job", state="failed")
    line = accounts(store)["a"]
    assert (line.values, line.open_values, line.open_rho) == (40, 0, 0)
    approve(store, "never begun")
    store.update("never begun", state="cancelled")
    assert accounts(store)["a"] == line


def test_a_job_that_would_pass_the_cap_is_refused_with_what_is_left_of_the_column(store: Store) -> None:
    approve(store, "first")
    spend(store, "first", 40)
    store.update("first", state="done")
    approve(store, "second")  # open: what it may still reveal counts as well
    with pytest.raises(PolicyRefused) as refused:
        approve(store, "third")
    assert "on the column 'a' of 'calls' bank has used rho 0.0531 of 0.06" in str(refused.value)
    assert "this job asks for 0.025, and 0.00687 is left" in str(refused.value)
    assert accounts(store)["a"].values == 160


def test_ten_jobs_on_the_same_rows_stop_where_one_job_of_their_size_would(store: Store) -> None:
    approved = 0
    for number in range(10):
        try:
            approve(store, str(number), request(specification(epochs=4)), cap=0.05)
        except PolicyRefused:
            break
        spend(store, str(number), 16)
        store.update(str(number), state="done")
        approved += 1
    assert approved == 5
    assert accounts(store)["a"].rho == pytest.approx(0.05)


def test_another_column_and_another_version_of_the_file_have_accounts_of_their_own(store: Store) -> None:
    for number, asked in enumerate((request(), request(specification(columns=["c"])), request(digest="cd" * 32))):
        approve(store, str(number), asked, cap=0.03)
    with store.database.reading() as connection:
        lines = lifetime.accounts(connection)
    assert {(line.column, line.digest[:2]) for line in lines} == {
        ("a", "ab"),
        ("b", "ab"),
        ("c", "ab"),
        ("a", "cd"),
        ("b", "cd"),
    }


def test_accounts_never_go_back_also_in_the_next_server(store: Store, tmp_path: Path, database_url: str) -> None:
    approve(store, "job")
    seen = []
    for _ in range(4):
        spend(store, "job", 10)
        again = Store(tmp_path, url=database_url)
        seen.append(accounts(again)["a"].values)
        again.close()
    assert seen == [40, 80, 120, 160]


def test_what_is_spent_at_once_is_counted_once_each(store: Store) -> None:
    approve(store, "job")
    with ledger_of(store) as ledger:

        def send() -> None:
            ledger.sent(message())
            ledger.flush()

        threads = [threading.Thread(target=send) for _ in range(40 + STEPS_AGAIN)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert accounts(store)["a"].values == 180
        with pytest.raises(BudgetSpent):
            ledger.sent(message())


def test_what_is_not_stored_yet_counts_against_the_budget_too(store: Store) -> None:
    approve(store, "job")
    with ledger_of(store) as ledger, ledger.storing() as passed:  # nothing else is stored meanwhile
        for _ in range(40 + STEPS_AGAIN):
            ledger.sent(message())
        with pytest.raises(BudgetSpent):
            ledger.sent(message())
        assert passed.spent.total() == 0
    assert accounts(store)["a"].values == 180


def on_table(connection: sql.Connection, table: str) -> str:
    return f" ON {table}" if connection.dialect.name == "postgresql" else ""


def refuse_changes(connection: sql.Connection, table: str) -> None:
    what = "BEGIN SELECT refused(); END"
    if connection.dialect.name == "postgresql":
        body = "BEGIN RAISE EXCEPTION ''refused''; END"
        connection.exec_driver_sql(f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS '{body}'")
        what = "EXECUTE FUNCTION refuse()"
    for event in ("INSERT", "UPDATE"):
        connection.exec_driver_sql(f"CREATE TRIGGER no_{event} BEFORE {event} ON {table} {what}")


@pytest.mark.parametrize("table", ["audit_leaves", "budgets", "traffic"])
def test_leaf_count_and_spending_are_stored_together_or_not_at_all(store: Store, table: str) -> None:
    """The database refuses one of them, and later takes all."""
    approve(store, "job")
    spend(store, "job")
    with ledger_of(store) as ledger:
        with store.database.writing() as connection:
            refuse_changes(connection, table)
        ledger.sent(message())
        for _ in range(2):
            with pytest.raises(StorageFailed, match="refused"):
                ledger.flush()
            assert (accounts(store)["a"].values, sent_leaves(store)) == (4, 1)
        with store.database.writing() as connection:
            for event in ("INSERT", "UPDATE"):
                connection.exec_driver_sql(f"DROP TRIGGER no_{event}{on_table(connection, table)}")
        ledger.flush()
        ledger.flush()
    assert (accounts(store)["a"].values, sent_leaves(store)) == (8, 2)
