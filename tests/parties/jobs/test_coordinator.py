"""An aggregator's party whose clients the test plays: who is waited for, let go, taken back, and kept out."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from identities import identity_of
from played_peers import AGGREGATOR, CLIENTS, PlayedPeer, ended, happened, party, spec, text

from parties.errors import PeerUnreachable
from parties.party import Party
from parties.storage.database import Store
from parties.storage.ledger import Ledger
from parties.wire.control import (
    Abort,
    Acceptance,
    Begin,
    Detach,
    Finish,
    Join,
    Proposal,
    Refusal,
    check_shares,
    encode_control,
)
from parties.wire.envelopes import LAST_NUMBER, check_body
from parties.wire.link import JOINS, SKIPPED_ATTEMPTS, Link
from parties.wire.outbox import Outbox
from vfl.message import encode
from vfl.messages import ClientReady, RoundReply, RoundTask

TIMEOUT_SECONDS = 2.0
Clients = tuple[PlayedPeer, PlayedPeer, PlayedPeer]


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[Clients]:
    ada, bob, cyd = (PlayedPeer(name) for name in CLIENTS)
    aggregator = party(tmp_path / AGGREGATOR, AGGREGATOR, (ada, bob, cyd), TIMEOUT_SECONDS)
    yield ada, bob, cyd
    for job in aggregator.jobs():
        aggregator.cancel(job.id)
    aggregator.close()


@pytest.fixture
def aggregator(clients: Clients) -> Party:
    return clients[0].party


@pytest.fixture
def running(aggregator: Party, clients: Clients) -> str:
    """A job all three clients have begun."""
    job = aggregator.submit(text()).id
    for client in clients:
        client.hear(job, Proposal)
        assert client.say(job, Acceptance(client.share, client.signed(job))) == ""
    for client in clients:
        client.hear(job, Begin)
    happened(aggregator, job, "started")
    return job


def leave(client: PlayedPeer, job: str) -> None:
    assert client.say(job, Detach("worker_vanished", "its worker died"), 2) == ""


def test_it_begins_with_everybody_who_agreed(aggregator: Party, clients: Clients) -> None:
    ada, bob, cyd = clients
    job = aggregator.submit(text()).id
    assert cyd.say(job, Refusal("policy_refused", "no", "")) == ""
    for client in (ada, bob):
        client.say(job, Acceptance(client.share, client.signed(job)))
    for client in (ada, bob):
        begin, attempt = client.hear(job, Begin)
        assert set(begin.shares) == {AGGREGATOR, "ada", "bob"}
        assert begin.shares[client.name] == client.share
        assert attempt == 1
    assert happened(aggregator, job, "left")[0].data == {"peer": "cyd", "code": "policy_refused"}
    assert happened(aggregator, job, "started")


def test_it_does_not_begin_with_fewer_than_it_needs(aggregator: Party, clients: Clients) -> None:
    ada, bob, cyd = clients
    job = aggregator.submit(text()).id
    ada.say(job, Acceptance(ada.share, ada.signed(job)))
    for client in (bob, cyd):
        client.say(job, Refusal("policy_refused", "no", ""))
    error = ended(aggregator, job).error
    assert error is not None
    assert (error["code"], error["side"]) == ("too_few_parties", AGGREGATOR)
    assert "2 of 4 parties agreed" in error["message"]
    assert ada.hear(job, Abort)[0].code == "too_few_parties"


def test_it_does_not_wait_for_the_silent_and_takes_them_later(aggregator: Party, clients: Clients) -> None:
    ada, bob, cyd = clients
    job = aggregator.submit(text(gathering=0.3)).id
    proposal, _ = cyd.hear(job, Proposal)
    for client in (ada, bob):
        client.say(job, Acceptance(client.share, client.signed(job)))
    shares = ada.hear(job, Begin)[0].shares
    assert "cyd" not in shares
    assert cyd.say(job, Acceptance(cyd.share, cyd.signed(job))) == ""
    late, attempt = cyd.hear(job, Begin)
    assert (late.shares, attempt) == (shares, 1)
    check_shares(late.shares, spec(), proposal.commitment, "cyd", cyd.share)


def test_when_too_few_answer_in_time_the_job_fails(aggregator: Party, clients: Clients) -> None:
    job = aggregator.submit(text(gathering=0.1)).id
    clients[0].say(job, Acceptance(clients[0].share, clients[0].signed(job)))
    error = ended(aggregator, job).error
    assert error is not None
    assert error["code"] == "too_few_parties"


def test_a_client_that_is_away_is_asked_when_it_is_back(aggregator: Party, clients: Clients) -> None:
    cyd = clients[2]
    cyd.out_of_reach = True
    job = aggregator.submit(text()).id
    silence = TIMEOUT_SECONDS * 3
    assert not aggregator.events(job, 0, silence)
    cyd.out_of_reach = False
    assert cyd.hear(job, Proposal)[1] == 0


def test_a_job_is_not_proposed_when_too_many_are_away(aggregator: Party, clients: Clients) -> None:
    clients[1].out_of_reach = clients[2].out_of_reach = True
    with pytest.raises(PeerUnreachable):
        aggregator.submit(text())
    assert aggregator.jobs() == []


def test_a_client_that_aborts_is_out_and_the_job_goes_on(aggregator: Party, clients: Clients, running: str) -> None:
    ada = clients[0]
    assert ada.say(running, Abort("diverged", "too large"), 2) == ""
    assert happened(aggregator, running, "left")[0].data == {"peer": "ada", "code": "diverged"}
    assert ada.say(running, Join(ada.share, ada.signed(running)), 3) == "job_over"
    assert aggregator.job(running).state == "running"


def test_an_aborts_number_is_nothing_to_count_on_from(aggregator: Party, clients: Clients, running: str) -> None:
    ada, bob, _ = clients
    assert ada.say(running, Abort("diverged", "too large"), LAST_NUMBER - 1) == ""
    assert bob.say(running, Join(bob.share, bob.signed(running)), 2) == ""
    bob.hear(running, Begin, attempt=2)
    assert (aggregator.job(running).state, aggregator.job(running).attempt) == ("running", 2)


def test_a_client_that_contradicts_itself_is_out_and_told(aggregator: Party, clients: Clients, running: str) -> None:
    ada = clients[0]
    assert ada.say(running, Acceptance(b"another".ljust(32), ada.signed(running))) == "equivocation"
    assert ada.hear(running, Abort)[0].code == "equivocation"
    assert aggregator.job(running).state == "running"


def test_a_client_that_speaks_out_of_turn_is_out(aggregator: Party, clients: Clients, running: str) -> None:
    ada = clients[0]
    assert ada.say(running, Join(b"short", ada.signed(running)), 2) == ""
    assert ada.hear(running, Abort)[0].code == "remote_protocol_error"
    assert aggregator.job(running).state == "running"


def test_a_client_that_leaves_and_joins_starts_afresh(aggregator: Party, clients: Clients, running: str) -> None:
    ada, bob, _ = clients
    shares = ada.hear(running, Begin)[0].shares
    leave(ada, running)
    assert happened(aggregator, running, "left")[0].data == {"peer": "ada", "code": "worker_vanished"}
    assert ada.say(running, Join(ada.share, ada.signed(running)), 3) == ""
    assert ada.hear(running, Begin, attempt=3)[0].shares == shares
    assert happened(aggregator, running, "joined")[0].data == {"peer": "ada"}
    assert aggregator.job(running).attempt == 3
    old = ada.lane(running, 1).seal("ClientReady", encode(ClientReady()))
    assert ada.send(old) == "stale_attempt"
    assert ("Begin", 2) not in bob.heard(running)


def test_a_client_that_leaves_before_the_beginning_may_still_come(aggregator: Party, clients: Clients) -> None:
    ada, bob, cyd = clients
    job = aggregator.submit(text()).id
    ada.say(job, Acceptance(ada.share, ada.signed(job)))
    assert ada.say(job, Detach("server_restarted", "its server was stopped"), 1) == ""
    for client in (bob, cyd):
        client.say(job, Acceptance(client.share, client.signed(job)))
    assert set(bob.hear(job, Begin)[0].shares) == {AGGREGATOR, "bob", "cyd"}
    assert ada.say(job, Join(ada.share, ada.signed(job)), 2) == ""
    assert set(ada.hear(job, Begin, attempt=2)[0].shares) == {AGGREGATOR, "bob", "cyd"}


def test_a_client_may_join_without_a_farewell(clients: Clients, running: str) -> None:
    ada = clients[0]
    assert ada.say(running, Join(ada.share, ada.signed(running)), 2) == ""
    ada.hear(running, Begin, attempt=2)


def test_a_client_out_of_reach_is_let_go_and_told_when_it_is_back(
    aggregator: Party, clients: Clients, running: str
) -> None:
    ada = clients[0]
    ada.out_of_reach = True
    assert happened(aggregator, running, "left")[0].data == {"peer": "ada", "code": "peer_timeout"}
    ada.out_of_reach = False
    assert ada.hear(running, Detach)[1] == 2
    assert ada.say(running, Join(ada.share, ada.signed(running)), 3) == ""
    ada.hear(running, Begin, attempt=3)


def test_a_lapse_and_a_join_may_cross(aggregator: Party, clients: Clients, running: str) -> None:
    """The client was away too, and counted to the same number."""
    ada = clients[0]
    ada.out_of_reach = True
    happened(aggregator, running, "left")
    assert ada.say(running, Join(ada.share, ada.signed(running)), 2) == ""
    ada.out_of_reach = False
    ada.hear(running, Begin, attempt=2)
    assert aggregator.job(running).state == "running"


@pytest.mark.parametrize("arrived", [False, True], ids=["lost", "arrived"])
@pytest.mark.parametrize("remembered", [False, True], ids=["forgotten", "remembered"])
def test_the_begin_is_taken_after_a_join_that_crossed_a_lapse(
    tmp_path: Path, aggregator: Party, clients: Clients, running: str, *, arrived: bool, remembered: bool
) -> None:
    """Its server may have died after it took the Detach, and be another one that knows of attempt 1 only."""
    ada = clients[0]
    ada.out_of_reach = True
    happened(aggregator, running, "left")
    if arrived:
        ada.out_of_reach = False
        ada.hear(running, Detach, attempt=2)
    before = ada.envelopes(running, 2)
    assert ada.say(running, Join(ada.share, ada.signed(running)), 2) == ""
    ada.out_of_reach = False
    ada.hear(running, Begin, attempt=2)
    after = ada.envelopes(running, 2)[len(before) :]
    outbox = Outbox(AGGREGATOR, PlayedPeer(AGGREGATOR), TIMEOUT_SECONDS, lambda *_: None)
    ledger = Ledger(Store(tmp_path))
    link = Link(running, after[0].header.job_digest, identity_of(ada.name), AGGREGATOR, outbox, ledger, attempt=1)
    sent = (before if remembered else []) + after
    taken = [kind for kind, body in ((e.header.kind, link.receive(e, check_body)[2]) for e in sent) if body is not None]
    outbox.close()
    ledger.close()
    assert taken == ["Detach", "Begin"]
    assert all(link.receive(e, check_body) == (2, sent[-1].digest, None) for e in sent)  # a replay has no effect


def test_a_client_that_had_not_answered_may_join_as_well(aggregator: Party, clients: Clients) -> None:
    ada, bob, cyd = clients
    job = aggregator.submit(text()).id
    assert cyd.say(job, Join(cyd.share, cyd.signed(job)), 4) == ""
    for client in (ada, bob):
        client.say(job, Acceptance(client.share, client.signed(job)))
    begin, attempt = cyd.hear(job, Begin)
    assert (begin.shares["cyd"], attempt) == (cyd.share, 4)


@pytest.mark.parametrize("attempt", [1, 3 + SKIPPED_ATTEMPTS])
def test_a_join_of_an_old_attempt_or_far_ahead_is_refused(
    aggregator: Party, clients: Clients, running: str, attempt: int
) -> None:
    ada = clients[0]
    leave(ada, running)
    assert ada.say(running, Join(ada.share, ada.signed(running)), attempt) == "stale_attempt"
    assert aggregator.job(running).state == "running"


def test_who_joins_too_often_has_to_wait(aggregator: Party, clients: Clients, running: str) -> None:
    ada = clients[0]
    codes = [ada.say(running, Join(ada.share, ada.signed(running)), attempt) for attempt in range(2, JOINS + 4)]
    assert codes == [""] * JOINS + ["too_many_joins"] * 2
    assert aggregator.job(running).state == "running"


def test_nobody_joins_in_anothers_name(aggregator: Party, clients: Clients, running: str) -> None:
    stranger = PlayedPeer("eve")
    stranger.party = aggregator
    assert stranger.say(running, Join(stranger.share, stranger.signed(running)), 2) == "unknown_sender"
    assert aggregator.job(running).state == "running"


def test_a_join_to_a_job_that_is_over_is_told_so(aggregator: Party, clients: Clients, running: str) -> None:
    leave(clients[0], running)
    aggregator.cancel(running)
    assert clients[0].say(running, Join(clients[0].share, clients[0].signed(running)), 3) == "job_over"


def test_the_job_is_done_without_who_is_away_and_they_are_told(aggregator: Party, clients: Clients) -> None:
    """Two clients send back what they get, the third has left: the one worker of this test is the aggregator's."""
    ada, bob, cyd = clients
    job = aggregator.submit(text(rounds=1)).id
    for client in clients:
        client.hear(job, Proposal)
        client.say(job, Acceptance(client.share, client.signed(job)))
    for client in clients:
        client.hear(job, Begin)
    leave(cyd, job)
    lanes = {client: client.lane(job, 1) for client in (ada, bob)}
    for client, lane in lanes.items():
        assert client.send(lane.seal("ClientReady", encode(ClientReady()))) == ""
    for client, lane in lanes.items():
        task = client.receive(job, RoundTask)
        reply = RoundReply(round=1, parameters=task.parameters, rows=10, loss=0.5)
        assert client.send(lane.seal("RoundReply", encode(reply))) == ""
    happened(aggregator, job, "trained")
    assert aggregator.job(job).state == "running"
    for client, lane in lanes.items():
        assert client.send(lane.seal("Finish", encode_control(Finish()))) == ""
    assert ended(aggregator, job).state == "done"
    for client in lanes:
        client.hear(job, Finish)
    assert cyd.hear(job, Abort)[0].code == "job_over"


def test_a_client_does_not_begin_the_job(aggregator: Party, clients: Clients, running: str) -> None:
    assert clients[0].say(running, Begin({}, {}), 2) == "illegal_route"
    assert aggregator.job(running).state == "running"
