"""A job that asks is approved by a grant or waits for the operator; what is decided is stored and logged."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sql
from identities import identity_of
from proposed_jobs import BANK, TELCO, request, specification

from parties.consent import Consent
from parties.errors import PolicyRefused, StorageFailed
from parties.storage.database import Job, Store, now
from parties.storage.ledger import Ledger
from parties.storage.passed import AUDIT_LOG
from parties.storage.pruning import MOST_PROPOSALS
from parties.trust.errors import BudgetSpent, GrantInvalid, NotWaiting, RequestChanged, UnknownGrant
from parties.trust.leaves import Leaf, decode
from parties.trust.predictions import DAY_SECONDS, marks_of, row_digests
from parties.trust.request import Request
from parties.trust.summary import FIRST_JOB
from parties.wire.envelopes import Outgoing

CAP = 0.06


class Asking:
    """A telco, and jobs that ask it."""

    def __init__(self, folder: Path, owner: str = TELCO) -> None:
        self.store = Store(folder)
        self.ledger = Ledger(self.store)
        self.consent = Consent(identity_of(owner), self.store.database, CAP)

    def job(self, job: str) -> str:
        self.store.add(proposal(job), b"")
        return job

    def ask(self, job: str, asked: Request | None = None) -> str:
        return self.consent.ask(self.job(job), asked or present(), ["a warning"])

    def send(self, job: str, kind: str, payload_bytes: int = 100) -> None:
        """Such a message leaves for the bank."""
        self.ledger.sent(Outgoing(job, bytes(32), 1, identity_of(TELCO), BANK).seal(kind, bytes(payload_bytes)))
        self.ledger.flush()

    def leaves(self) -> list[Leaf]:
        self.ledger.flush()
        with self.store.database.reading() as connection:
            return list(map(decode, AUDIT_LOG.leaves(connection)))

    def close(self) -> None:
        self.ledger.close()
        self.store.close()


def proposal(job: str, state: str = "proposed") -> Job:
    return Job(
        id=job,
        name="scores",
        state=state,
        role="feature",
        party=TELCO,
        peers=[BANK],
        spec_digest="00",
        created_at=now(),
    )


def present(**changes: object) -> Request:
    return replace(request(specification(**changes)), now=int(time.time()))


@pytest.fixture
def telco(tmp_path: Path) -> Iterator[Asking]:
    made = Asking(tmp_path)
    yield made
    made.close()


def test_a_grant_approves_a_job_at_once_and_is_used_up_by_it(telco: Asking) -> None:
    (granted,) = telco.consent.grant(present())
    assert telco.ask("first") == ""
    decision = telco.consent.decision("first")
    assert decision is not None
    assert (decision.decision, decision.by, decision.grants) == ("approved", "grant", (granted.grant.id,))
    assert "by its rule uses: 1 jobs have used it, and 1 is the most" in telco.ask("second")
    assert telco.consent.decision("second") is None


def test_without_a_grant_a_job_reveals_nothing_until_its_operator_approves_it(telco: Asking) -> None:
    assert telco.ask("job") == "no grant lets bank use the data set 'calls'"
    with pytest.raises(BudgetSpent, match="may reveal nothing"):
        telco.send("job", "OpenedGradient")
    telco.consent.approve("job", present(), [], "as agreed by telephone")
    decision = telco.consent.decision("job")
    assert decision is not None
    assert (decision.decision, decision.by, decision.reason) == ("approved", "operator", "as agreed by telephone")
    telco.send("job", "OpenedGradient")
    telco.send("job", "PublicKeys", 10**6)  # it reveals nothing, so nothing is spent
    assert {line.column: line.values for line in telco.consent.accounts()} == {"a": 4, "b": 4}


def test_a_job_is_decided_about_once(telco: Asking) -> None:
    telco.ask("job")
    telco.consent.reject("job", "not before the audit")
    for decide in (lambda: telco.consent.approve("job", present(), [], ""), lambda: telco.consent.reject("job", "")):
        with pytest.raises(NotWaiting, match="does not wait"):
            decide()
    with pytest.raises(NotWaiting):
        telco.consent.reject("a job that never asked", "")
    decision = telco.consent.decision("job")
    assert decision is not None
    assert (decision.decision, decision.reason) == ("rejected", "not before the audit")


def test_an_operator_approves_only_what_was_shown(telco: Asking) -> None:
    telco.ask("job")
    changed = replace(present(), data=tuple(msgspec.structs.replace(use, digest="cd" * 32) for use in present().data))
    with pytest.raises(RequestChanged, match="has changed since"):
        telco.consent.approve("job", changed, [], "")
    assert telco.consent.decision("job") is None
    assert "cdcdcd" in telco.consent.summary("job").text()  # it is shown what would be used now
    telco.consent.approve("job", changed, [], "")
    assert telco.consent.decision("job") is not None


def test_the_summary_compares_a_job_with_the_last_one_that_was_approved(telco: Asking) -> None:
    telco.ask("first")
    assert FIRST_JOB in telco.consent.summary("first").text()
    telco.consent.approve("first", present(), [], "")
    telco.ask("second", present(epochs=12))
    text = telco.consent.summary("second").text()
    assert "train.epochs was 10, and is now 12." in text
    assert "a warning" in text
    with pytest.raises(NotWaiting, match="refused before"):
        telco.consent.summary("a job that never asked")


def test_the_cap_of_a_column_refuses_a_job_whatever_grants_say_also_while_it_waits(telco: Asking) -> None:
    telco.consent.grant(present(), uses="standing")
    assert [telco.ask(job) for job in ("first", "second")] == ["", ""]
    with pytest.raises(PolicyRefused, match=r"acceptance\.maximum_rho: on the column 'a'"):
        telco.ask("third")
    telco.store.update("second", state="cancelled")  # nothing of it has left
    assert telco.ask("fourth") == ""
    telco.store.update("fourth", state="cancelled")
    assert telco.ask("waiting", present(purpose="something else")) != ""
    assert telco.ask("fifth") == ""
    with pytest.raises(PolicyRefused):
        telco.consent.approve("waiting", present(purpose="something else"), [], "")


def test_a_grant_that_another_key_has_signed_covers_nothing(telco: Asking) -> None:
    forger = Consent(identity_of("somebody-else"), telco.store.database, CAP)
    forger.grant(present(), uses="standing")
    assert telco.ask("job") == "no grant lets bank use the data set 'calls'"


def test_the_grants_of_a_removed_peer_are_revoked(telco: Asking) -> None:
    of_bank = telco.consent.grant(present(), uses="standing")[0].grant.id
    with_bank = telco.consent.grant(present(), changes={"peer": "shop", "others": (BANK,)})[0].grant.id
    of_shop = telco.consent.grant(present(), changes={"peer": "shop"})[0].grant.id
    telco.consent.revoke_all_of(BANK)
    assert {each.grant.id for each in telco.consent.grants() if each.revoked is not None} == {of_bank, with_bank}
    assert {each.grant.id for each in telco.consent.grants() if each.revoked is None} == {of_shop}
    with pytest.raises(UnknownGrant):
        telco.consent.revoke("0000000000000000")


def test_a_grant_that_contradicts_itself_is_not_stored(telco: Asking) -> None:
    with pytest.raises(GrantInvalid, match="a limit is negative"):
        telco.consent.grant(present(), changes={"maximum_epochs": -1})
    with pytest.raises(GrantInvalid, match="nothing to grant"):
        telco.consent.grant(replace(present(), data=()))
    assert telco.consent.grants() == []


def test_the_audit_log_is_told_of_every_grant_and_decision(telco: Asking) -> None:
    (granted,) = telco.consent.grant(present())
    telco.ask("granted")
    telco.ask("rejected")
    telco.consent.reject("rejected", "")
    telco.consent.revoke(granted.grant.id)
    found = [(leaf.event.value, leaf.job, leaf.peer, leaf.detail) for leaf in telco.leaves()]
    digest, specified = found[0][3].pop("digest"), present().spec.digest().hex()
    assert len(str(digest)) == 64
    assert found == [
        ("grant_created", "", BANK, {"grant": granted.grant.id, "dataset": "calls"}),
        (
            "job_approved",
            "granted",
            "",
            {
                "by": "grant",
                "specification": specified,
                "grants": granted.grant.id,
                "budget": "EncryptedEmbedding:- EncryptedScores:6 OpenedGradient:45 PublicKeys:- RowsDigest:21",
            },
        ),
        ("job_rejected", "rejected", "", {"by": "operator", "specification": specified}),
        ("grant_revoked", "", BANK, {"grant": granted.grant.id}),
    ]


def test_a_decision_that_cannot_be_logged_is_not_taken(telco: Asking) -> None:
    telco.ask("job")
    with telco.store.database.writing() as connection:
        connection.exec_driver_sql("CREATE TRIGGER full BEFORE INSERT ON audit_leaves BEGIN SELECT refused(); END")
    with pytest.raises(StorageFailed):
        telco.consent.approve("job", present(), [], "")
    assert telco.consent.decision("job") is None
    with pytest.raises(BudgetSpent):
        telco.send("job", "OpenedGradient")


def test_of_deleted_jobs_only_those_stay_that_have_revealed_something(telco: Asking) -> None:
    telco.consent.grant(present(), uses="standing")
    for job, asked in (("revealing", None), ("silent", None), ("waiting", present(purpose="something else"))):
        telco.ask(job, asked)
        if job == "revealing":
            telco.send(job, "RowsDigest")
        telco.store.update(job, state="failed")
    for number in range(MOST_PROPOSALS + 1):
        telco.store.add(proposal(f"job {number}", "failed"), b"", from_peer=True)
    assert telco.store.job("revealing") is None
    kept = {job: telco.consent.decision(job) is not None for job in ("revealing", "silent")}
    assert kept == {"revealing": True, "silent": False}
    with pytest.raises(NotWaiting):
        telco.consent.summary("waiting")
    telco.send("revealing", "OpenedGradient")  # its budget is still there, and counts
    assert {line.column for line in telco.consent.accounts()} == {"a", "b"}


def scored(*ids: str, at: int = 0, **changes: object) -> Request:
    """A job in which the bank has these rows scored, so many seconds from now."""
    asked = present(**changes)
    return replace(asked, row_digests=row_digests(("customer",), ids), now=asked.now + at)


def test_a_row_is_scored_for_a_peer_so_often_a_day_in_whichever_data_set_it_stands(telco: Asking) -> None:
    consent = Consent(identity_of(TELCO), telco.store.database, CAP * 100, predictions_per_day=2)

    def score(job: str, asked: Request) -> None:
        consent.ask(telco.job(job), asked, [])
        consent.approve(job, asked, [], "")
        telco.send(job, "OpenedGradient")

    score("first", scored("c-1", "c-2"))
    score("second", scored("c-2", "c-3"))
    score("third", scored("c-1", "c-3"))
    with pytest.raises(PolicyRefused, match="has had 1 of these 2 rows scored 2 times within a day") as refused:
        consent.ask(telco.job("fourth"), scored("c-2", "c-4"), [])
    assert "acceptance.predictions_per_day" in refused.value.fix
    with pytest.raises(PolicyRefused):
        consent.missing(scored("c-3"))
    consent.missing(scored("c-4"))
    consent.missing(scored("c-2", at=DAY_SECONDS + 60))


def test_what_is_kept_of_scored_rows_shows_no_id_and_goes_after_a_day(telco: Asking) -> None:
    for job, asked in (("first", scored("c-1")), ("second", scored("c-2", at=DAY_SECONDS + 60))):
        telco.ask(job, asked)
        telco.consent.approve(job, asked, [], "")
    with telco.store.database.reading() as connection:
        kept = connection.execute(sql.text("select job, marks from scored_rows")).all()
    ((job, marks),) = kept
    assert (job, len(marks)) == ("second", 8)
    unkeyed = marks_of(row_digests(("customer",), ["c-2"]), b"")
    assert marks != unkeyed.tobytes()


def test_a_prediction_that_ended_before_anything_left_does_not_count(telco: Asking) -> None:
    consent = Consent(identity_of(TELCO), telco.store.database, CAP * 100, predictions_per_day=1)
    consent.ask(telco.job("first"), scored("c-1"), [])
    consent.approve("first", scored("c-1"), [], "")
    with pytest.raises(PolicyRefused):
        consent.missing(scored("c-1"))
    telco.store.update("first", state="failed")
    consent.missing(scored("c-1"))
