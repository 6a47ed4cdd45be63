"""A job is decided about once; its terms and its contract stay, and the next job is compared with the last one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sql
from identities import signed_by
from proposed_jobs import BANK, TELCO, specification
from proposed_jobs import request as proposed

from parties.storage import approvals
from parties.storage.approvals import Approval, Asked
from parties.storage.database import Store
from parties.trust.contract import Contract
from parties.trust.request import Request
from parties.trust.summary import Terms, summarise
from vfl.spec.prediction import PredictionSpec
from vfl.spec.training import TrainingSpec

PARTIES = (BANK, TELCO)


@pytest.fixture
def store(tmp_path: Path, database_url: str) -> Iterator[Store]:
    opened = Store(tmp_path, url=database_url)
    yield opened
    opened.close()


def approval(time: str = "2026-01-01", **changes: object) -> Approval:
    fields = {"decision": "approved", "by": "operator", "time": time} | changes
    return Approval(**fields)  # type: ignore[arg-type]


def asked(request: Request) -> Asked:
    summary = summarise(request, None, {}, 0.05)
    return Asked(terms=Terms.of(request), budget=request.budget, summary=summary)


def decide(store: Store, job: str, decided: Approval, request: Request, parties: tuple[str, ...] = PARTIES) -> None:
    with store.database.writing() as connection:
        approvals.ask(connection, job, parties, asked(request))
        approvals.decide(connection, job, decided)


def test_what_a_job_asks_is_read_as_it_was_shown_and_replaced_when_a_file_changes(store: Store) -> None:
    for request in (proposed(), proposed(digest="cd" * 32)):
        with store.database.writing() as connection:
            approvals.ask(connection, "job", PARTIES, asked(request))
        with store.database.reading() as connection:
            assert approvals.asked_by(connection, "job") == asked(request)
            assert approvals.asked_by(connection, "another") is None


def test_a_decision_is_read_as_it_was_taken_and_is_taken_once(store: Store) -> None:
    decided = approval(by="grant", grants=("0123456789abcdef",), reason="as every month")
    with store.database.reading() as connection:
        assert approvals.decision(connection, "job") is None
    decide(store, "job", decided, proposed())
    with store.database.reading() as connection:
        assert approvals.decision(connection, "job") == decided
    with pytest.raises(sql.exc.IntegrityError):
        decide(store, "job", approval(decision="rejected"), proposed())


def test_the_last_approved_job_with_the_same_parties_is_found_whatever_their_order(store: Store) -> None:
    old, new = proposed(), proposed(specification(epochs=20))
    decide(store, "first", approval("2026-01-01"), old)
    decide(store, "second", approval("2026-01-02"), new)
    decide(store, "third", approval("2026-01-03", decision="rejected"), old)
    decide(store, "fourth", approval("2026-01-04"), old, (*PARTIES, "shop"))
    with store.database.reading() as connection:
        assert approvals.last_terms(connection, (TELCO, BANK), TrainingSpec) == Terms.of(new)
        assert approvals.last_terms(connection, ("shop", *PARTIES), TrainingSpec) == Terms.of(old)
        assert approvals.last_terms(connection, (BANK, "shop"), TrainingSpec) is None
        assert approvals.last_terms(connection, PARTIES, PredictionSpec) is None  # a training is no model for it


def test_a_contract_is_the_specification_and_all_signatures(store: Store) -> None:
    spec = proposed().spec
    signed = {name: signed_by(name, "job", spec.digest()) for name in PARTIES}
    decide(store, "job", approval(), proposed())
    with store.database.reading() as connection:
        assert approvals.contract(connection, "job") is None
    for some in ({BANK: signed[BANK]}, signed, {BANK: signed[TELCO]}):  # what is stored does not change
        with store.database.writing() as connection:
            approvals.keep_contract(connection, "job", some)
    with store.database.reading() as connection:
        assert approvals.contract(connection, "job") == Contract(spec.encoded(), signed)
    assert all(each.holds("job", spec.digest()) for each in signed.values())
