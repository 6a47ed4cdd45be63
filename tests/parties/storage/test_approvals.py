"""A job is decided about once; its terms and its contract stay, and the next job is compared with the last one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql
from proposed_jobs import BANK, TELCO, request, specification

from parties.storage import approvals
from parties.storage.approvals import Approval
from parties.storage.database import Store
from parties.trust.summary import Terms

PARTIES = (BANK, TELCO)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def approval(job: str, time: str = "2026-01-01", **changes: object) -> Approval:
    fields = {"job": job, "decision": "approved", "by": "operator", "time": time} | changes
    return Approval(**fields)  # type: ignore[arg-type]


def decide(store: Store, decided: Approval, terms: Terms, parties: tuple[str, ...] = PARTIES) -> None:
    with store.database.writing() as connection:
        approvals.decide(connection, decided, parties, terms)


def test_a_decision_is_read_as_it_was_taken_and_is_taken_once(store: Store) -> None:
    decided = approval("job", by="grant", grants=("0123456789abcdef",), reason="as every month")
    with store.database.reading() as connection:
        assert approvals.decision(connection, "job") is None
    decide(store, decided, Terms.of(request()))
    with store.database.reading() as connection:
        assert approvals.decision(connection, "job") == decided
    with pytest.raises(sql.exc.IntegrityError):
        decide(store, approval("job", decision="rejected"), Terms.of(request()))


def test_the_last_approved_job_with_the_same_parties_is_found_whatever_their_order(store: Store) -> None:
    old, new = Terms.of(request()), Terms.of(request(specification(epochs=20)))
    decide(store, approval("first", "2026-01-01"), old)
    decide(store, approval("second", "2026-01-02"), new)
    decide(store, approval("third", "2026-01-03", decision="rejected"), old)
    decide(store, approval("fourth", "2026-01-04"), old, (*PARTIES, "shop"))
    with store.database.reading() as connection:
        assert approvals.last_terms(connection, (TELCO, BANK)) == new
        assert approvals.last_terms(connection, ("shop", *PARTIES)) == old
        assert approvals.last_terms(connection, (BANK, "shop")) is None


def test_a_contract_is_the_specification_and_all_signatures(store: Store) -> None:
    signatures = {BANK: bytes(64), TELCO: bytes([1]) * 64}
    decide(store, approval("job"), Terms.of(request()))
    with store.database.reading() as connection:
        assert approvals.contract(connection, "job") is None
    with store.database.writing() as connection:
        approvals.keep_contract(connection, "job", signatures)
    with store.database.reading() as connection:
        assert approvals.contract(connection, "job") == (request().spec.encoded(), signatures)
