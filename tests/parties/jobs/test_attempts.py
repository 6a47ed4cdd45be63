"""The rules of a job that goes on from a checkpoint: who leaves, who is waited for, and from where all go on."""

from dataclasses import replace

import pytest
from one_side import (
    ATTEMPT,
    COORDINATOR_SHARE,
    FAILURE,
    OWN_SHARE,
    TRAINING,
    Heard,
    coordinator,
    participant,
    peer,
    signed,
    word,
)

from parties.errors import Failure
from parties.jobs.actions import BeginRun, End, EndAttempt, LeaveRun, Record, SendUntilAcknowledged
from parties.jobs.coordinator import FRUITLESS_ATTEMPTS
from parties.jobs.standing import Standing
from parties.jobs.state_table import COORDINATOR, OTHER, Bond, State
from parties.wire.control import Begin, CheckpointName, Detach, Finish, Join
from parties.wire.peer_state import PeerState
from vfl.errors import PeerTimeout, RemoteProtocolError

BEGUN = {"bank": COORDINATOR_SHARE, "telco": OWN_SHARE}


def name(step: int, attempt: int = 1, transcript: bytes = b"t" * 32) -> CheckpointName:
    return CheckpointName(step, attempt, transcript)


def running(state: State = State.LIVE) -> Standing:
    """At the coordinator, which holds checkpoints after steps 10 and 20."""
    held = {step: {"telco": name(step)} for step in (10, 20)}
    return Standing({"telco": peer("telco", state)}, begun=BEGUN, runs=state is State.LIVE, checkpoints=held)


def join(*checkpoints: CheckpointName) -> Join:
    return Join(OWN_SHARE, signed("telco", TRAINING), checkpoints)


def test_a_worker_that_dies_at_the_coordinator_ends_the_runs_of_all_and_the_job_waits_for_them() -> None:
    actions = coordinator(TRAINING).lose_worker(running(), FAILURE)
    assert EndAttempt("telco", PeerState.AWAY) in actions
    assert SendUntilAcknowledged("telco", Detach.of(FAILURE), ATTEMPT) in actions
    assert LeaveRun(FAILURE, ATTEMPT) in actions
    assert isinstance(actions[-1], Record)
    assert (actions[-1].kind, actions[-1].waits_for) == ("parked", "telco to be back")


def test_a_silent_peer_is_waited_for_once_the_job_has_begun_and_not_before() -> None:
    silent, side = PeerTimeout("telco stopped answering"), coordinator(TRAINING)
    assert LeaveRun(Failure.of(silent, "telco"), ATTEMPT) in side.on_peer_lost(running(), "telco", silent)
    assert isinstance(side.on_peer_lost(replace(running(), begun={}), "telco", silent)[-1], End)


def test_all_go_on_from_the_newest_checkpoint_that_is_equal_in_step_attempt_and_transcript() -> None:
    side, away = coordinator(TRAINING), running(State.AWAY)
    offers = {
        20: (name(10), name(20)),
        10: (name(10), name(20, attempt=2)),
        0: (name(10, transcript=b"u" * 32), name(30)),
    }
    for step, checkpoints in offers.items():
        begin = side.hear(away, "telco", join(*checkpoints), ATTEMPT)[-1]
        assert isinstance(begin, BeginRun)
        assert (begin.step, begin.shares) == (step, BEGUN)


def test_a_party_that_joins_while_the_others_are_at_work_ends_their_runs_first() -> None:
    features = ("telco", "shop")
    names = {feature: name(10) for feature in features}
    peers = {feature: peer(feature, State.LIVE) for feature in features}
    standing = Standing(peers, begun=BEGUN, runs=True, checkpoints={10: names})
    actions = coordinator(TRAINING).hear(standing, "telco", join(name(10)), ATTEMPT)
    assert EndAttempt("shop", PeerState.AWAY) in actions
    assert any(isinstance(action, LeaveRun) for action in actions)
    assert not any(isinstance(action, BeginRun) for action in actions)  # until the other one has joined too


def test_a_finish_of_a_run_that_is_over_does_not_count_in_the_next() -> None:
    side = coordinator(TRAINING)
    assert side.hear(running(), "telco", Finish(), ATTEMPT - 1) == []
    assert side.hear(running(), "telco", Finish(), ATTEMPT) != []


def test_a_party_that_has_said_finish_takes_part_again_when_the_coordinator_asks() -> None:
    heard = Heard(COORDINATOR, State.RETURNED, Bond.AWAITED)
    actions = heard.hear("Detach")
    assert EndAttempt("bank", PeerState.AWAY) in actions
    assert any(isinstance(action, LeaveRun) for action in actions)


def test_attempts_that_never_come_to_a_checkpoint_end_the_job_by_name() -> None:
    standing, begins = running(State.AWAY), 0
    while isinstance(last := coordinator(TRAINING).hear(standing, "telco", join(name(20)), ATTEMPT)[-1], BeginRun):
        standing, begins = standing.beginning_after(last.step), begins + 1
    assert begins == FRUITLESS_ATTEMPTS
    assert isinstance(last, End)
    assert last.failure.code == "no_progress"


@pytest.mark.parametrize(
    ("begin", "text"),
    [
        ({"checkpoint": name(20, transcript=b"u" * 32)}, "that telco does not hold"),
        ({"checkpoint": name(30)}, "a checkpoint after step 30"),
    ],
)
def test_a_coordinator_that_goes_on_from_elsewhere_or_with_another_seed_is_named(
    begin: dict[str, object], text: str
) -> None:
    side = participant(TRAINING, "telco")
    held = {20: {"bank": name(20)}}
    standing = Standing({"bank": peer("bank", State.AGREED)}, begun=BEGUN, checkpoints=held)
    usual = word("Begin", TRAINING)
    assert isinstance(usual, Begin)
    fields: dict[str, object] = {"shares": BEGUN, "signed": usual.signed, "checkpoint": name(20)}
    attempt = standing.peers["bank"].next_run
    assert side.hear(standing, "bank", Begin(**fields), attempt) == [BeginRun(BEGUN, usual.signed, 20)]  # type: ignore[arg-type]
    with pytest.raises(RemoteProtocolError, match=text) as broken:
        side.hear(standing, "bank", Begin(**(fields | begin)), attempt)  # type: ignore[arg-type]
    assert "bank" in str(broken.value)
    elsewhere = replace(standing, begun=BEGUN | {"shop": b"s" * 32})
    with pytest.raises(RemoteProtocolError, match="bank goes on with other shares of the seed"):
        side.hear(elsewhere, "bank", Begin(**fields), attempt)  # type: ignore[arg-type]


def test_a_word_that_a_party_of_such_a_job_may_not_say_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="out of turn"):
        Heard(OTHER, State.ASKED, Bond.AWAITED).hear("Finish")
