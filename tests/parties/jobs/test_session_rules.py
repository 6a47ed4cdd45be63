"""A job that stays open ends by its coordinator's time, and does not hold the other side for ever."""

import pytest
from one_side import coordinator, participant, peer

from parties.jobs.actions import End, StartTimer, TellWorker, Timer
from parties.jobs.participant import SESSION_END_SECONDS
from parties.jobs.standing import Standing
from parties.jobs.state_table import State
from parties.worker.frames import NoMoreRequests
from vfl.kinds import read_spec

PREDICTION = """
job = { name = "scores", protocol = "prediction" }
roster = { label = "bank", features = ["telco"] }
model = { training = "0123" }
data = { bank = { dataset = "new" }, telco = { dataset = "new" } }
"""
SESSION = read_spec(PREDICTION + "session = { minutes = 2 }")


def timers(actions):
    return [(action.timer, action.seconds) for action in actions if isinstance(action, StartTimer)]


def test_the_time_begins_when_the_run_does_and_the_other_side_has_a_little_more():
    bank, telco = coordinator(SESSION), participant(SESSION, "telco")
    assert timers(bank.begin(Standing({"telco": peer("telco", State.AGREED)}))) == [(Timer.SESSION, 120.0)]
    late = (Timer.SESSION, 120.0 + SESSION_END_SECONDS)
    assert timers(telco.begin(Standing({"bank": peer("bank", State.AGREED)}))) == [late]


@pytest.mark.parametrize("side", [coordinator(read_spec(PREDICTION)), participant(read_spec(PREDICTION), "telco")])
def test_a_prediction_of_all_rows_has_no_such_time(side):
    peers = {name: peer(name, State.AGREED) for name in ("bank", "telco")}
    own = Standing({name: peers[name] for name in read_spec(PREDICTION).peers_of(side._me)})
    assert timers(side.begin(own)) == []


def test_the_coordinators_worker_is_told_that_nothing_more_is_asked_and_the_other_side_gives_up():
    running = Standing({"telco": peer("telco", State.LIVE)})
    assert coordinator(SESSION).time_is_up(running, Timer.SESSION) == [TellWorker(NoMoreRequests())]
    telco = participant(SESSION, "telco")
    held = Standing({"bank": peer("bank", State.LIVE)})
    (end,) = (action for action in telco.time_is_up(held, Timer.SESSION) if isinstance(action, End))
    assert end.failure.code == "deadline_passed"
    assert telco.time_is_up(Standing(held.peers, returned=True), Timer.SESSION) == []
