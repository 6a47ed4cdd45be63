"""The rules of a training that an operator pauses: who may, what the peer hears, and when it goes on."""

from dataclasses import replace

import pytest
from one_side import ATTEMPT, COORDINATOR_SHARE, NEEDING, OWN_SHARE, TRAINING, coordinator, participant, peer, signed

from parties.jobs.actions import BeginRun, EndAttempt, LeaveRun, LoadTables, Record, Send, SendUntilAcknowledged
from parties.jobs.pausing import pause_of, resumed
from parties.jobs.standing import Standing
from parties.jobs.state_table import State
from parties.pause_errors import AlreadyPaused, CannotPause, NotPaused, PausedByPeer
from parties.wire.control import CheckpointName, Detach, Join
from parties.wire.peer_state import PeerState

BEGUN = {"bank": COORDINATOR_SHARE, "telco": OWN_SHARE}
BANK, TELCO = frozenset({"bank"}), frozenset({"telco"})


def at_bank(state: State, paused: frozenset[str] = frozenset()) -> Standing:
    """At the coordinator."""
    standing = Standing({"telco": peer("telco", state)}, begun=BEGUN, runs=state is State.LIVE, paused=paused)
    return replace(standing, checkpoints={20: {"telco": CheckpointName(20, 1, b"t" * 32)}})


def at_telco(state: State, paused: frozenset[str] = frozenset()) -> Standing:
    return Standing({"bank": peer("bank", state)}, begun=BEGUN, runs=state is State.LIVE, paused=paused)


def join() -> Join:
    return Join(OWN_SHARE, signed("telco", TRAINING), (CheckpointName(20, 1, b"t" * 32),))


def test_a_pause_of_the_coordinator_ends_both_runs_and_no_join_begins_another_until_it_is_over() -> None:
    side = coordinator(TRAINING)
    actions = side.pause(at_bank(State.LIVE))
    assert [action.waits_for for action in actions if isinstance(action, Record)] == [
        "bank, whose operator paused the job, to resume it"
    ]
    assert SendUntilAcknowledged("telco", Detach.of(pause_of("bank")), ATTEMPT) in actions
    assert LeaveRun(pause_of("bank"), ATTEMPT) in actions
    back = side.hear(at_bank(State.AWAY, BANK), "telco", join(), ATTEMPT)
    assert not any(isinstance(action, BeginRun) for action in back)
    assert any(isinstance(action, Send) and action.word == Detach.of(pause_of("bank")) for action in back)
    joined = replace(at_bank(State.AGREED, BANK), offered={"telco": join().checkpoints})
    assert isinstance(last := side.end_pause(joined)[-1], BeginRun)
    assert last.step == 20


def test_a_party_that_hears_of_a_pause_joins_at_once_and_one_that_has_joined_stays_so() -> None:
    side, said = participant(TRAINING, "telco"), Detach.of(pause_of("bank"))
    running = side.hear(at_telco(State.LIVE), "bank", said, ATTEMPT)
    assert EndAttempt("bank", PeerState.AWAY) in running
    joined = at_telco(State.AGREED)
    (noted,) = side.hear(joined, "bank", said, joined.peers["bank"].attempt)
    assert isinstance(noted, Record)
    assert noted.waits_for == "bank, whose operator paused the job, to resume it"
    assert side.hear(replace(joined, paused=BANK), "bank", said, joined.peers["bank"].attempt) == []


def test_a_party_that_has_paused_the_job_does_not_come_back_by_itself_nor_after_a_restart() -> None:
    side = participant(TRAINING, "telco")
    actions = side.pause(at_telco(State.LIVE))
    assert any(isinstance(action, LeaveRun) for action in actions)
    assert isinstance(actions[-1], SendUntilAcknowledged)
    away = at_telco(State.AWAY, TELCO)
    assert side.join(away) == []
    assert LoadTables() not in side.resume(away, pause_of("telco"))
    assert side.end_pause(away)[-1] == LoadTables()


def test_a_pause_of_another_party_is_over_at_the_coordinator_when_that_party_joins() -> None:
    side = coordinator(TRAINING)
    heard = side.hear(at_bank(State.LIVE), "telco", Detach.of(pause_of("telco")), ATTEMPT)
    assert isinstance(heard[0], Record)
    assert (heard[0].kind, heard[0].data) == ("paused", {"peer": "telco"})
    assert side.hear(at_bank(State.AWAY, TELCO), "telco", Detach.of(pause_of("telco")), ATTEMPT) == []
    back = side.hear(at_bank(State.AWAY, TELCO), "telco", join(), ATTEMPT)
    assert back[0] == resumed(at_bank(State.AWAY, TELCO), "telco", "")
    assert isinstance(back[-1], BeginRun)


def test_a_pause_that_crosses_another_keeps_both() -> None:
    side = coordinator(TRAINING)
    (noted,) = side.hear(at_bank(State.AWAY, BANK), "telco", Detach.of(pause_of("telco")), ATTEMPT)
    assert isinstance(noted, Record)
    assert noted.waits_for == "bank and telco, whose operator paused the job, to resume it"
    back = side.hear(at_bank(State.AWAY, BANK | TELCO), "telco", join(), ATTEMPT)
    assert not any(isinstance(action, BeginRun) for action in back)


def test_a_run_that_a_pause_ends_is_not_fruitless() -> None:
    running = at_bank(State.LIVE).beginning_after(0)
    assert running.left(is_paused=True).beginning_after(0).fruitless == running.fruitless
    assert running.left(is_paused=False).beginning_after(0).fruitless == running.fruitless + 1


def test_who_may_not_pause_or_resume_reads_why() -> None:
    side, live = coordinator(TRAINING), at_bank(State.LIVE)
    with pytest.raises(CannotPause, match="has not begun"):
        side.pause(replace(live, begun={}))
    with pytest.raises(CannotPause, match="has done its part"):
        side.pause(replace(live, returned=True))
    with pytest.raises(CannotPause, match="no checkpoints"):
        coordinator(NEEDING).pause(live)  # Paillier
    with pytest.raises(AlreadyPaused):
        side.pause(replace(live, paused=BANK))
    for asked in (side.pause, side.end_pause):
        with pytest.raises(PausedByPeer, match="the operator of telco"):
            asked(replace(live, paused=TELCO))
    with pytest.raises(NotPaused):
        side.end_pause(live)
