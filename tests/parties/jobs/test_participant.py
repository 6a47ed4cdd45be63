"""A client's party whose aggregator the test plays: it answers, begins when told, leaves and comes back."""

import gc
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from identities import identity_of, signed_by
from played_peers import AGGREGATOR, BOUND_SECONDS, CLIENTS, PlayedPeer, ended, happened, party, spec, text, until

from parties.jobs.supervisor import Supervisor
from parties.party import Party
from parties.storage.database import Job
from parties.storage.engine import DATABASE_FILE
from parties.wire.control import (
    Abort,
    Acceptance,
    Begin,
    Detach,
    Join,
    Proposal,
    commitment_to,
    encode_control,
    job_id,
)
from parties.wire.envelopes import WIRE_VERSION, Outgoing
from parties.wire.receipts import Reply
from vfl.kinds import read_spec

ADA = CLIENTS[0]
TIMEOUT_SECONDS = 0.4
Reopen = Callable[[], Party]


@pytest.fixture
def aggregator() -> PlayedPeer:
    return PlayedPeer(AGGREGATOR)


@pytest.fixture
def reopen(tmp_path: Path, aggregator: PlayedPeer) -> Iterator[Reopen]:
    """Start the client's party; once more, and it is another server process on the same folder."""
    started: list[Party] = []

    def start() -> Party:
        for earlier in started:
            earlier.close()
        started.append(party(tmp_path / ADA, ADA, [aggregator], TIMEOUT_SECONDS))
        return started[-1]

    yield start
    for job in started[-1].jobs():
        started[-1].cancel(job.id)
    started[-1].close()


@pytest.fixture
def ada(reopen: Reopen) -> Party:
    return reopen()


def propose(aggregator: PlayedPeer, specification: str = "") -> str:
    """Answers the job's id, once the client has accepted it."""
    offered = read_spec(specification or text())
    commitment = commitment_to(aggregator.share)
    job = job_id(offered.digest(), commitment)
    proposal = encode_control(Proposal(offered.encoded(), commitment, signed_by(AGGREGATOR, job, offered.digest())))
    assert (
        aggregator.send(Outgoing(job, offered.digest(), 0, identity_of(AGGREGATOR), ADA).seal("Proposal", proposal))
        == ""
    )
    aggregator.hear(job, Acceptance)
    return job


def shares(aggregator: PlayedPeer, job: str) -> dict[str, bytes]:
    return {AGGREGATOR: aggregator.share, ADA: aggregator.hear(job, Acceptance)[0].share, "bob": bytes(32)}


def begin(aggregator: PlayedPeer, job: str, shared: dict[str, bytes]) -> Begin:
    """With the signatures of those whose shares it has, and of the client."""
    return Begin(shared, {name: aggregator.signed(job, name) for name in {*shared, ADA}})


@pytest.fixture
def running(ada: Party, aggregator: PlayedPeer) -> str:
    job = propose(aggregator)
    assert aggregator.say(job, begin(aggregator, job, shares(aggregator, job)), 1) == ""
    happened(ada, job, "started")
    return job


def works(job: Job) -> bool:
    return job.worker_pid is not None


def test_what_comes_while_its_worker_is_prepared_for_a_large_table_is_asked_to_come_again(
    ada: Party, aggregator: PlayedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = threading.Event()
    monkeypatch.setattr("parties.jobs.run.own_ids", lambda _ids: str(prepared.wait(BOUND_SECONDS)))
    job = propose(aggregator)
    lane = aggregator.lane(job, 1)
    begun = begin(aggregator, job, shares(aggregator, job))
    assert aggregator.send(lane.seal("Begin", encode_control(begun))) == ""
    task = lane.seal("RoundTask", b"")
    for _ in range(2):
        assert aggregator.send(task) == "mailbox_full"
    assert aggregator.send(aggregator.lane(job, 2).seal("RoundTask", b"")) == "stale_attempt"
    prepared.set()
    until(ada, job, works)
    assert aggregator.send(task) == ""


def test_it_comes_back_when_its_worker_dies(ada: Party, aggregator: PlayedPeer, running: str) -> None:
    first = until(ada, running, works).worker_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert aggregator.hear(running, Detach) == (
        Detach("worker_vanished", f"the worker process of {ADA} was ended by signal 9"),
        2,
    )
    joined, attempt = aggregator.hear(running, Join)
    assert (joined.share, attempt) == (shares(aggregator, running)[ADA], 3)
    assert ada.job(running).worker_pid is None
    assert aggregator.say(running, begin(aggregator, running, shares(aggregator, running)), 3) == ""
    found = until(ada, running, works)
    assert (found.state, found.attempt) == ("running", 3)
    assert found.worker_pid != first


def test_it_comes_back_after_its_server_was_stopped(aggregator: PlayedPeer, running: str, reopen: Reopen) -> None:
    again = reopen()
    assert aggregator.hear(running, Detach)[0].code == "server_restarted"
    joined, attempt = aggregator.hear(running, Join)
    assert (joined.share, attempt) == (shares(aggregator, running)[ADA], 3)
    assert aggregator.say(running, begin(aggregator, running, shares(aggregator, running)), 3) == ""
    happened(again, running, "joined")
    assert again.job(running).started_at is not None


def test_a_job_it_had_only_agreed_to_goes_on_as_if_it_had_never_been_away(
    ada: Party, aggregator: PlayedPeer, reopen: Reopen
) -> None:
    job = propose(aggregator)
    again = reopen()
    assert again.job(job).state == "proposed"
    assert aggregator.say(job, begin(aggregator, job, shares(aggregator, job)), 1) == ""
    happened(again, job, "started")
    assert {kind for kind, _ in aggregator.heard(job)} <= {"Acceptance", "Ask"}


def test_it_comes_back_when_it_was_let_go(ada: Party, aggregator: PlayedPeer, running: str) -> None:
    assert aggregator.say(running, Detach("peer_timeout", "ada stopped answering"), 2) == ""
    _, attempt = aggregator.hear(running, Join)
    assert attempt == 4
    assert "hub let go of the job: ada stopped answering" in happened(ada, running, "left")[0].text


def test_a_lapse_that_crosses_its_join_changes_nothing(ada: Party, aggregator: PlayedPeer, running: str) -> None:
    aggregator.say(running, Detach("peer_timeout", "ada stopped answering"), 2)
    _, attempt = aggregator.hear(running, Join)
    lane = aggregator.lane(running, attempt)
    late = lane.seal("Detach", encode_control(Detach("peer_timeout", "again")))
    again = lane.seal("Begin", encode_control(begin(aggregator, running, shares(aggregator, running))))
    assert aggregator.send(late + again) == ""
    happened(ada, running, "joined")
    assert len(happened(ada, running, "left")) == 1


def test_it_asks_until_it_is_heard(ada: Party, aggregator: PlayedPeer, running: str) -> None:
    """Silent for longer than its timeout: it leaves, and goes on asking."""
    aggregator.out_of_reach = True
    assert happened(ada, running, "left")[0].data["code"] == "peer_timeout"
    happened(ada, running, "joining")
    ada.events(running, 100, TIMEOUT_SECONDS * 3)
    aggregator.out_of_reach = False
    aggregator.hear(running, Join)


def test_it_ends_when_the_job_is_over_without_it(ada: Party, aggregator: PlayedPeer, running: str) -> None:
    aggregator.status, aggregator.answer = (
        422,
        Reply(AGGREGATOR, WIRE_VERSION, code="job_over", detail="the role of hub has returned"),
    )
    aggregator.say(running, Detach("peer_timeout", "ada stopped answering"), 2)
    error = ended(ada, running).error
    assert error is not None
    assert error["code"] == "job_over"
    assert "the role of hub has returned" in error["message"]


def test_it_ends_when_the_aggregator_aborts(ada: Party, aggregator: PlayedPeer, running: str) -> None:
    assert aggregator.say(running, Abort("cancelled", "never mind"), 2) == ""
    assert ended(ada, running).state == "cancelled"


def test_what_comes_after_the_end_is_recorded_once_and_must_be_of_the_job(
    ada: Party, aggregator: PlayedPeer, running: str, reopen: Reopen
) -> None:
    assert aggregator.say(running, Abort("cancelled", "never mind"), 2) == ""
    assert ended(ada, running).state == "cancelled"
    late = aggregator.lane(running, 3).seal("Abort", encode_control(Abort("cancelled", "once more")))
    assert [aggregator.send(late) for _ in range(3)] == ["", "", ""]
    reopen()
    assert aggregator.send(late) == ""
    assert aggregator.send(aggregator.lane(running, 3).seal("Unheard", b"")) == "illegal_route"
    lines = {(line.direction, line.kind): line.messages for line in reopen().job(running).traffic}
    assert lines["received", "Abort"] == 2
    assert ("received", "Unheard") not in lines


def test_what_its_worker_cannot_read_is_the_fault_of_who_sent_it(ada: Party, aggregator: PlayedPeer) -> None:
    job = propose(aggregator)
    lane = aggregator.lane(job, 1)
    assert aggregator.send(lane.seal("Begin", encode_control(begin(aggregator, job, shares(aggregator, job))))) == ""
    happened(ada, job, "started")
    assert aggregator.send(lane.seal("RoundTask", b"\xc1")) == ""
    error = ended(ada, job).error
    assert error is not None
    assert (error["code"], error["side"]) == ("remote_protocol_error", AGGREGATOR)
    assert "the RoundTask of hub cannot be read" in error["message"]


def test_it_takes_an_aborts_number_however_far_ahead(ada: Party, aggregator: PlayedPeer, running: str) -> None:
    """Of a restarted aggregator, which knows the highest attempt of all its links only."""
    assert aggregator.say(running, Abort("server_restarted", "restarted"), 40_000) == ""
    assert ended(ada, running).state == "failed"


def test_it_ends_at_its_deadline_while_it_waits_to_come_back(ada: Party, aggregator: PlayedPeer) -> None:
    job = propose(aggregator, text(deadline=2))
    assert aggregator.say(job, begin(aggregator, job, shares(aggregator, job)), 1) == ""
    aggregator.out_of_reach = True
    error = ended(ada, job).error
    assert error is not None
    assert error["code"] == "deadline_passed"


def test_it_ends_where_its_own_table_no_longer_fits(ada: Party, aggregator: PlayedPeer, running: str) -> None:
    (ada.folder / "table.csv").write_text("id,a,b,y\n0,secret,2,1\n1,3,4,0\n")
    aggregator.say(running, Detach("peer_timeout", "ada stopped answering"), 2)
    error = ended(ada, running).error
    assert error is not None
    assert error["code"] == "non_numeric_cell"
    told, _ = aggregator.hear(running, Abort)
    assert told.code == "invalid_data"
    assert "secret" not in told.message


def test_an_accepted_job_that_is_never_begun_ends_on_both_sides_and_holds_no_table(
    ada: Party, aggregator: PlayedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parties.jobs.participant.BEGIN_SECONDS", 0.1)
    job = propose(aggregator, text(gathering=0.1))
    error = ended(ada, job).error
    assert error is not None
    assert (error["code"], error["side"]) == ("never_begun", AGGREGATOR)
    assert aggregator.hear(job, Abort)[0].code == "never_begun"
    deadline = time.monotonic() + BOUND_SECONDS
    while any(type(thing) is Supervisor and thing.job == job for thing in gc.get_objects()):  # it holds the table
        assert time.monotonic() < deadline
        gc.collect()
        time.sleep(0.05)


def test_a_seed_may_lack_its_share_if_it_came_late(ada: Party, aggregator: PlayedPeer) -> None:
    job = propose(aggregator)
    assert (
        aggregator.say(
            job, begin(aggregator, job, {AGGREGATOR: aggregator.share, "bob": bytes(32), "cyd": bytes(32)}), 1
        )
        == ""
    )
    assert happened(ada, job, "started")


@pytest.mark.parametrize(
    "change",
    [
        {ADA: bytes(32)},
        {AGGREGATOR: bytes(32)},
        {"bob": b"short"},
        {"eve": bytes(32)},
    ],
    ids=str,
)
def test_it_does_not_begin_with_another_seed(ada: Party, aggregator: PlayedPeer, change: dict[str, bytes]) -> None:
    job = propose(aggregator)
    aggregator.say(job, begin(aggregator, job, shares(aggregator, job) | change), 1)
    error = ended(ada, job).error
    assert error is not None
    assert (error["code"], error["side"]) == ("remote_protocol_error", AGGREGATOR)


def test_it_does_not_begin_with_fewer_parties_than_the_job_needs(ada: Party, aggregator: PlayedPeer) -> None:
    job = propose(aggregator)
    assert spec().minimum_parties == 3
    aggregator.say(job, begin(aggregator, job, {AGGREGATOR: aggregator.share, ADA: shares(aggregator, job)[ADA]}), 1)
    error = ended(ada, job).error
    assert error is not None
    assert "without a share of the seed from every party it needs" in error["message"]


def test_the_aggregator_cannot_join(ada: Party, aggregator: PlayedPeer, running: str) -> None:
    assert aggregator.say(running, Join(aggregator.share, aggregator.signed(running)), 2) == "illegal_route"
    assert ada.job(running).state == "running"


def test_what_it_drew_for_a_job_is_not_shown_and_forgotten_in_the_end(
    ada: Party, aggregator: PlayedPeer, running: str
) -> None:
    shown = msgspec.json.encode(ada.job(running))
    assert b"agreement" not in shown
    assert b"private_seed" not in shown
    drawn = shares(aggregator, running)[ADA]
    assert drawn in kept(ada, running)
    ada.cancel(running)
    assert kept(ada, running) == b""


def kept(party: Party, job: str) -> bytes:
    """What lies in its database beside the specification."""
    with closing(sqlite3.connect(party.folder / DATABASE_FILE)) as connection:
        (found,) = connection.execute("SELECT agreement FROM jobs WHERE id = ?", (job,)).fetchone()
    return found or b""
