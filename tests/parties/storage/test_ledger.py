"""What has left a party and entered it is recorded once, and stored though the database is busy or the server ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from identities import identity_of

from parties.errors import StorageFailed
from parties.storage.database import Job, Store, now
from parties.storage.ledger import REFUSALS, Ledger
from parties.storage.passed import AUDIT_LOG, receipts
from parties.storage.traffic import Traffic
from parties.trust.bundle import SignedReceipt
from parties.trust.leaves import LATE, Event, Leaf, decode
from parties.wire.envelopes import PART_LIMIT, Envelope, Outgoing


@pytest.fixture
def store(tmp_path: Path, database_url: str) -> Iterator[Store]:
    opened = Store(tmp_path, url=database_url)
    job = Job(
        id="job", name="n", state="running", role="label", party="a", peers=["b"], spec_digest="", created_at=now()
    )
    opened.add(job, b"\x80")
    yield opened
    opened.close()


def traffic(store: Store) -> list[Traffic]:
    job = store.job("job")
    assert job is not None
    return job.traffic


def envelopes(kind: str, *bodies: bytes, job: str = "job") -> list[Envelope]:
    lane = Outgoing(job, bytes(32), 1, identity_of("b"), "a")
    return [envelope for body in bodies for envelope in lane.seal(kind, body)]


def test_what_is_recorded_is_stored_when_the_server_ends(store: Store) -> None:
    ledger = Ledger(store)
    for envelope in envelopes("Embedding", b"1", b"22"):
        ledger.received(envelope)
    for envelope in envelopes("Embedding", b"333", job="another"):
        ledger.received(envelope)  # which the database does not know
    ledger.close()
    assert traffic(store) == [Traffic("received", "b", "Embedding", 2, 3)]


def test_a_message_in_parts_is_one_message_of_all_their_bytes(store: Store) -> None:
    ledger = Ledger(store)
    parts = envelopes("Embedding", bytes(2 * PART_LIMIT + 1))
    assert len(parts) == 3
    for part in parts:
        ledger.received(part)
    ledger.close()
    assert traffic(store) == [Traffic("received", "b", "Embedding", 1, 2 * PART_LIMIT + 1)]


def test_the_last_of_a_kind_is_known_again_also_after_a_restart(store: Store) -> None:
    first, second = envelopes("Abort", b"1", b"2")
    ledger = Ledger(store)
    for envelope in (first, second):
        assert not ledger.is_repeated(envelope)
        ledger.received(envelope)
        assert ledger.is_repeated(envelope)
    ledger.close()
    again = Ledger(store)
    assert again.is_repeated(second)
    assert not again.is_repeated(envelopes("Abort", b"3")[0])
    again.close()


def test_what_could_not_be_stored_is_stored_with_what_comes_next(store: Store) -> None:
    ledger = Ledger(store)
    first, second = envelopes("Embedding", b"1", b"2")
    ledger.received(first)

    def fail_to_store() -> None:
        with ledger.storing():
            assert ledger.is_repeated(first)
            ledger.received(second)
            raise StorageFailed("the disk is full")

    with pytest.raises(StorageFailed):
        fail_to_store()
    assert ledger.is_repeated(second)
    ledger.close()
    assert traffic(store) == [Traffic("received", "b", "Embedding", 2, 2)]


def leaves(store: Store) -> list[Leaf]:
    with store.database.reading() as connection:
        return list(map(decode, AUDIT_LOG.leaves(connection)))


def test_a_flush_stores_leaves_and_counters_together_and_in_order(store: Store) -> None:
    ledger = Ledger(store)
    first, second = envelopes("Embedding", b"1", b"22")
    ledger.received(first)
    ledger.received_uncounted(second, is_late=True)
    ledger.tell(Event.JOB_ENDED, "job", state="done")
    ledger.flush()
    assert [(leaf.event, leaf.header, leaf.detail) for leaf in leaves(store)] == [
        ("received", first.encoded, {}),
        ("received", second.encoded, {LATE: 1}),
        ("job_ended", b"", {"state": "done"}),
    ]
    assert traffic(store) == [Traffic("received", "b", "Embedding", 2, 3)]
    ledger.close()


def test_leaves_that_could_not_be_stored_are_stored_once_before_those_that_come_next(store: Store) -> None:
    ledger = Ledger(store)
    first, second = envelopes("Embedding", b"1", b"2")
    ledger.received(first)

    def fail_to_store() -> None:
        with ledger.storing():
            raise StorageFailed("the disk is full")

    with pytest.raises(StorageFailed):
        fail_to_store()
    ledger.received(second)
    ledger.flush()
    ledger.flush()
    assert [leaf.header for leaf in leaves(store)] == [first.encoded, second.encoded]
    ledger.close()


def test_of_very_many_refused_envelopes_not_all_become_leaves(store: Store) -> None:
    ledger = Ledger(store)
    for envelope in envelopes("Embedding", *[b"1"] * (3 * REFUSALS)):
        ledger.refused_envelope(envelope, "illegal_route")
    ledger.close()
    found = leaves(store)
    assert REFUSALS <= len(found) < 2 * REFUSALS
    assert (found[0].event, found[0].peer, found[0].detail) == ("refused", "b", {"code": "illegal_route"})


def test_of_an_attempt_the_receipt_that_goes_furthest_is_kept(store: Store) -> None:
    ledger = Ledger(store)
    for number in (2, 1):
        receipt = SignedReceipt(receiver="b", job="job", attempt=1, next=number, last=bytes(32), signature=bytes(64))
        ledger.acknowledged(receipt)
        with ledger.storing() as passed:
            store.add_passed(passed)
    with store.database.reading() as connection:
        assert [kept.next for kept in receipts(connection)] == [2]
    ledger.close()
