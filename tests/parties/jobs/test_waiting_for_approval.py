"""A client that no grant covers waits for its operator, and the aggregator with it; after that the job goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from identities import identity_of, signed_by
from played_peers import AGGREGATOR, CLIENTS, PlayedPeer, ended, happened, party, text, until

from parties.errors import UnknownJob
from parties.party import Party
from parties.storage.database import Job
from parties.trust.errors import NotWaiting
from parties.wire.control import (
    Acceptance,
    Begin,
    Proposal,
    Refusal,
    Waiting,
    commitment_to,
    encode_control,
    job_id,
)
from parties.wire.envelopes import Outgoing
from vfl.kinds import read_spec

ADA, BOB, CYD = CLIENTS
TIMEOUT_SECONDS = 0.4


@pytest.fixture
def aggregator() -> PlayedPeer:
    return PlayedPeer(AGGREGATOR)


@pytest.fixture
def ada(tmp_path: Path, aggregator: PlayedPeer) -> Iterator[Party]:
    """Its operator has revoked every grant."""
    made = party(tmp_path / ADA, ADA, [aggregator], TIMEOUT_SECONDS)
    made.consent.revoke_all_of(AGGREGATOR)
    yield made
    made.close()


def propose(aggregator: PlayedPeer, specification: str = "") -> str:
    offered, commitment = read_spec(specification or text()), commitment_to(aggregator.share)
    job = job_id(offered.digest(), commitment)
    proposal = Proposal(offered.encoded(), commitment, signed_by(AGGREGATOR, job, offered.digest()))
    lane = Outgoing(job, offered.digest(), 0, identity_of(AGGREGATOR), ADA)
    assert aggregator.send(lane.seal("Proposal", encode_control(proposal))) == ""
    return job


def waits(job: Job) -> bool:
    return bool(job.waits_for)


@pytest.fixture
def waiting(ada: Party, aggregator: PlayedPeer) -> str:
    job = propose(aggregator)
    aggregator.hear(job, Waiting)
    assert until(ada, job, waits).waits_for == "approval"
    return job


def test_a_client_says_that_its_operator_must_decide_and_tells_the_operator_why(ada: Party, waiting: str) -> None:
    (event,) = happened(ada, waiting, "waiting")
    assert event.text == "waiting for the approval of ada's operator: no grant lets hub use the data set 'table'"
    assert "hub proposes the job 'played'." in ada.consent.summary(waiting).text()
    assert ada.job(waiting).approval is None


def test_once_approved_it_accepts_begins_and_holds_the_contract(
    ada: Party, aggregator: PlayedPeer, waiting: str
) -> None:
    approved = ada.approve(waiting, "looks right")
    assert (approved.waits_for, approved.approval and approved.approval.by) == ("", "operator")
    acceptance, _ = aggregator.hear(waiting, Acceptance)
    assert acceptance.signed == aggregator.signed(waiting, ADA)
    shares = {AGGREGATOR: aggregator.share, ADA: acceptance.share, BOB: bytes(32)}
    signed = {name: aggregator.signed(waiting, name) for name in shares}
    assert aggregator.say(waiting, Begin(shares, signed), 1) == ""
    happened(ada, waiting, "started")
    contract = ada.consent.contract(waiting)
    assert contract is not None
    assert (contract.spec, contract.signed) == (read_spec(text()).encoded(), signed)
    ada.cancel(waiting)


def test_once_rejected_the_aggregator_reads_the_reason(ada: Party, aggregator: PlayedPeer, waiting: str) -> None:
    ada.reject(waiting, "not before the audit")
    refusal, _ = aggregator.hear(waiting, Refusal)
    assert refusal.code == "job_rejected"
    assert refusal.message == "the operator of ada rejected the job: not before the audit"
    assert ended(ada, waiting).state == "failed"
    for decide in (ada.approve, ada.reject):
        with pytest.raises(NotWaiting):
            decide(waiting)
        with pytest.raises(UnknownJob):
            decide("nothing")


@pytest.mark.parametrize(
    "forged",
    [{BOB: ADA}, {AGGREGATOR: CYD}, {BOB: None}],
    ids=["a key that another party has", "another key than is pinned", "no signature"],
)
def test_without_the_signatures_of_all_nothing_runs_and_nothing_is_stored(
    ada: Party, aggregator: PlayedPeer, waiting: str, forged: dict[str, str | None]
) -> None:
    ada.approve(waiting)
    acceptance, _ = aggregator.hear(waiting, Acceptance)
    shares = {AGGREGATOR: aggregator.share, ADA: acceptance.share, BOB: bytes(32)}
    signed = {name: aggregator.signed(waiting, name) for name in shares}
    for name, other in forged.items():
        if other is None:
            del signed[name]
        elif name == BOB:  # ada does not know bob's key; that of another party in this job it may not be
            signed[name] = signed_by("somebody-else", f"{waiting}x", b"")
        else:
            signed[name] = aggregator.signed(waiting, other)
    aggregator.say(waiting, Begin(shares, signed), 1)
    failed = ended(ada, waiting)
    assert failed.error is not None
    assert (failed.state, failed.error["code"]) == ("failed", "remote_protocol_error")
    assert ada.consent.contract(waiting) is None
    assert failed.started_at is None


def test_a_server_that_restarts_while_a_job_waits_says_its_next_word_as_if_it_had_never_been_away(
    tmp_path: Path, ada: Party, aggregator: PlayedPeer, waiting: str
) -> None:
    ada.close()
    again = party(tmp_path / ADA, ADA, [aggregator], TIMEOUT_SECONDS)
    try:
        assert (again.job(waiting).state, again.job(waiting).waits_for) == ("proposed", "approval")
        again.approve(waiting)
        acceptance, attempt = aggregator.hear(waiting, Acceptance)
        assert (acceptance.signed, attempt) == (aggregator.signed(waiting, ADA), 0)
        said = {e.header.sequence: e for e in aggregator.envelopes(waiting, 0) if e.header.kind != "Ask"}
        assert [said[number].header.kind for number in sorted(said)] == ["Waiting", "Acceptance"]
        assert said[1].header.previous == said[0].digest
    finally:
        again.cancel(waiting)
        again.close()


def test_the_aggregator_waits_with_a_client_and_begins_when_enough_have_agreed(tmp_path: Path) -> None:
    clients = [PlayedPeer(name) for name in CLIENTS]
    hub = party(tmp_path / AGGREGATOR, AGGREGATOR, clients, TIMEOUT_SECONDS)
    try:
        job = hub.submit(text(gathering=0.5)).id
        submitted = hub.job(job).approval
        assert submitted is not None
        assert (submitted.decision, submitted.by) == ("approved", "submit")
        ada, bob, cyd = clients
        bob.say(job, Acceptance(bob.share, bob.signed(job)))
        lane = ada.lane(job, 0)
        assert ada.send(lane.seal("Waiting", encode_control(Waiting()))) == ""
        assert until(hub, job, waits).waits_for == f"the approval of {ADA}'s operator"
        cyd.say(job, Refusal("policy_refused", "no", ""))
        bob.hear(job, Waiting)
        happened(hub, job, "left")
        agreed = Acceptance(ada.share, ada.signed(job))
        assert ada.send(lane.seal("Acceptance", encode_control(agreed))) == ""
        begin, _ = ada.hear(job, Begin)
        assert set(begin.shares) == set(begin.signed) == {AGGREGATOR, ADA, BOB}
        contract = hub.consent.contract(job)
        assert contract is not None
        assert contract.signed == begin.signed
        assert hub.job(job).waits_for == ""
    finally:
        for each in hub.jobs():
            hub.cancel(each.id)
        hub.close()
