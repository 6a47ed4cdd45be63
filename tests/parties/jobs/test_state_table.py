"""The rules of a job without a server: each row of the table, each word outside it, and what the page on jobs says.

docs/protocols/job.md also says how jobs end; tests/parties/jobs/test_endings_tables.py is about that.
"""

import itertools
import re
from pathlib import Path

import pytest
from one_side import ATTEMPT, COORDINATOR_SHARE, FAILURE, OWN_SHARE, STATES, Heard, coordinator, peer, signed, word
from played_peers import spec as rounds_spec

from parties.errors import Failure
from parties.jobs.actions import (
    Agree,
    AwaitOthers,
    BeginPeer,
    BeginRun,
    Done,
    End,
    EndAttempt,
    Exclude,
    LeaveRun,
    MarkFinished,
    Record,
    RequestEnd,
    Send,
    SendUntilAcknowledged,
    StartTimer,
    TellWorker,
    Timer,
)
from parties.jobs.coordinator import Coordinator
from parties.jobs.participant import FIRST_PAUSE_SECONDS
from parties.jobs.standing import Standing
from parties.jobs.state_table import COORDINATOR, LEGAL, OTHER, Bond, Row, Speaker, State
from parties.wire.control import (
    CONTROLS,
    NEGOTIATION,
    Abort,
    Acceptance,
    Begin,
    Detach,
    Finish,
    Refusal,
    Waiting,
)
from parties.wire.peer_state import PeerState
from parties.worker.frames import Left, Returned
from vfl.errors import PeerAborted, PeerTimeout, RemoteProtocolError

PAGE = Path(__file__).parents[3] / "docs" / "protocols" / "job.md"


def rows_of(speaker: Speaker, kind: str, state: State, bond: Bond) -> list[Row]:
    return [
        row
        for row in LEGAL
        if (row.speaker, row.word.__name__) == (speaker, kind) and state in row.states and bond in row.bonds
    ]


CASES = [
    pytest.param(speaker, kind, state, bond, id=f"{speaker.value} {kind} {state.value} {bond.value}")
    for speaker, kind, state, bond in itertools.product(Speaker, CONTROLS, STATES, Bond)
]


@pytest.mark.parametrize(("speaker", "kind", "state", "bond"), CASES)
def test_a_word_leads_where_its_row_says_and_one_without_a_row_changes_nothing(
    speaker: Speaker, kind: str, state: State, bond: Bond
) -> None:
    heard = Heard(speaker, state, bond)
    before = repr((heard.standing, vars(heard.side)))
    found = rows_of(speaker, kind, state, bond)
    if found:
        (row,) = found
        assert heard.state_after(heard.hear(kind)) is (row.then or state)
    else:
        with pytest.raises(RemoteProtocolError, match=f"{heard.sender} sent {kind} out of turn"):
            heard.hear(kind)
    assert repr((heard.standing, vars(heard.side))) == before  # rules look and answer; they keep nothing


def test_a_word_that_changes_no_state_asks_for_nothing_but_patience() -> None:
    for row, bond in itertools.product(LEGAL, Bond):
        if row.then is None and bond in row.bonds:
            for state in row.states:
                wanted = [AwaitOthers()] if (row.speaker, row.word) == (COORDINATOR, Waiting) else []
                assert Heard(row.speaker, state, bond).hear(row.word.__name__) == wanted


def test_the_page_shows_the_table() -> None:
    attempts = {NEGOTIATION: "0", 1: "a run", None: "any"}
    wanted = [
        f"| {row.speaker.value} | {row.word.__name__} | {attempts[row.attempt]} "
        f"| {', '.join(state.value for state in row.states)} | {row.then.value if row.then else 'as before'} "
        f"| {'' if row.bonds == tuple(Bond) else ', '.join(bond.value for bond in row.bonds)} |".replace("|  |", "| |")
        for row in LEGAL
    ]
    shown = [
        line for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| (coordinator|other party) \|", line)
    ]
    assert shown == wanted


# What is done, in its order


def test_the_last_who_agrees_lets_the_run_begin() -> None:
    heard = Heard(OTHER, State.ASKED, Bond.NEEDED)
    assert heard.hear("Acceptance") == [
        Agree("telco", OWN_SHARE, signed("telco", heard.spec)),
        Record("accepted", "telco accepted the job", {"peer": "telco"}, attempt=0, waits_for=""),
        BeginRun(
            {"bank": OWN_SHARE, "telco": OWN_SHARE},
            {"bank": signed("bank", heard.spec), "telco": signed("telco", heard.spec)},
        ),
    ]


def test_who_agrees_late_is_begun_with_the_shares_of_the_others_after_its_attempt_is_stored() -> None:
    spec = rounds_spec()
    begun = {"hub": COORDINATOR_SHARE, "ada": OWN_SHARE, "bob": OWN_SHARE}
    standing = Standing({name: peer(name, State.LIVE) for name in spec.peers_of("hub")}, begun=begun)
    standing = standing.having("cyd", state=PeerState.ASKED)
    acceptance = Acceptance(OWN_SHARE, signed("cyd", spec))
    actions = coordinator(spec).hear(standing, "cyd", acceptance, NEGOTIATION)
    assert actions == [
        Agree("cyd", OWN_SHARE, acceptance.signed),
        Record("accepted", "cyd accepted the job", {"peer": "cyd"}, attempt=standing.newest, waits_for=""),
        BeginPeer("cyd", Begin(begun, {"hub": signed("hub", spec), "cyd": acceptance.signed})),
        TellWorker(Returned("cyd")),
    ]


def test_a_refusal_that_leaves_too_few_ends_the_job_for_who_is_left() -> None:
    spec = rounds_spec()
    standing = Standing({name: peer(name, State.ASKED) for name in spec.peers_of("hub")})
    standing = standing.having("bob", state=PeerState.GONE)
    actions = coordinator(spec).hear(standing, "ada", Refusal("policy_refused", "no", ""), 0)
    assert actions[0] == EndAttempt("ada", PeerState.GONE)
    (end,) = (action for action in actions if isinstance(action, End))
    assert end.failure.code == "too_few_parties"
    assert set(end.words) == {"cyd"}


def test_the_coordinator_is_done_when_everybody_who_is_there_has_finished() -> None:
    spec = rounds_spec()
    here = {name: peer(name, State.LIVE) for name in ("ada", "bob")}
    standing = Standing(here | {"cyd": peer("cyd", State.AWAY)}, returned=True).having("ada", finished=True)
    side = coordinator(spec)
    assert side.conclude(standing) == []
    actions = side.hear(standing, "bob", Finish(), ATTEMPT)
    over = Abort("job_over", "the job is over at hub")
    assert actions == [
        MarkFinished("bob"),
        TellWorker(Left("bob")),
        Done({"ada": Finish(), "bob": Finish(), "cyd": over}),
    ]


@pytest.mark.parametrize("state", [State.LIVE, State.RETURNED])
def test_a_silent_client_is_let_go_unless_it_has_finished(state: State) -> None:
    heard = Heard(OTHER, state, Bond.REPLACEABLE)
    assert isinstance(heard.side, Coordinator)
    actions = heard.side.on_peer_lost(heard.standing, "ada", PeerTimeout("ada stopped answering"))
    if state is State.RETURNED:
        assert actions == []
    else:
        detach = SendUntilAcknowledged("ada", Detach("peer_timeout", "ada stopped answering"), ATTEMPT)
        assert actions[0] == EndAttempt("ada", PeerState.AWAY)
        assert detach in actions


def test_a_client_that_breaks_a_rule_is_out_and_told_and_the_job_goes_on() -> None:
    heard = Heard(OTHER, State.LIVE, Bond.REPLACEABLE)
    actions = heard.side.exclude(heard.standing, "ada", Failure("equivocation", "two envelopes", side="ada"))
    assert Exclude("ada", Abort("equivocation", "two envelopes")) in actions
    assert not [action for action in actions if isinstance(action, End)]


def test_a_party_that_has_said_finish_asks_the_coordinator_to_end_the_job() -> None:
    cancelled = Failure("cancelled", "the operator cancelled it", side="telco")
    waiting = Heard(COORDINATOR, State.RETURNED, Bond.NEEDED)
    (request,) = waiting.side.fail(waiting.standing, cancelled)
    assert isinstance(request, RequestEnd)
    assert request.words == {"bank": Abort("cancelled", "the operator cancelled it")}
    working = Heard(COORDINATOR, State.LIVE, Bond.NEEDED)
    assert working.side.fail(working.standing, cancelled)[-1] == End(cancelled, dict(request.words))


def test_a_party_that_has_said_finish_outlives_its_deadline_and_a_silent_coordinator() -> None:
    waiting = Heard(COORDINATOR, State.RETURNED, Bond.NEEDED)
    assert waiting.side.time_is_up(waiting.standing, Timer.DEADLINE) == []
    assert waiting.side.on_peer_lost(waiting.standing, "bank", PeerTimeout("silent")) == []
    unknown = waiting.side.on_peer_lost(waiting.standing, "bank", PeerAborted("bank does not run this job"))
    assert unknown[-1] == End(Failure.of(PeerAborted("bank does not run this job"), "bank"), {"bank": None})


def test_a_client_whose_worker_dies_says_so_and_pauses_longer_each_time() -> None:
    heard = Heard(COORDINATOR, State.LIVE, Bond.REPLACEABLE)
    pauses = []
    for departures in range(3):
        standing = Standing(heard.standing.peers, departures=departures)
        away, leave, detach, timer = heard.side.lose_worker(standing, FAILURE)
        assert away == EndAttempt("hub", PeerState.AWAY)
        assert leave == LeaveRun(FAILURE, ATTEMPT)
        assert detach == Send("hub", Detach("worker_vanished", "its worker died"), ATTEMPT)
        assert isinstance(timer, StartTimer)
        pauses.append(timer.seconds)
    assert pauses == [FIRST_PAUSE_SECONDS, 2 * FIRST_PAUSE_SECONDS, 4 * FIRST_PAUSE_SECONDS]


def test_a_party_the_job_needs_fails_it_when_its_worker_dies() -> None:
    heard = Heard(COORDINATOR, State.LIVE, Bond.NEEDED)
    abort = Abort("worker_vanished", "its worker died")
    assert heard.side.lose_worker(heard.standing, FAILURE)[-1] == End(FAILURE, {"bank": abort})


def test_a_begin_of_another_attempt_than_was_agreed_is_refused() -> None:
    heard = Heard(COORDINATOR, State.AGREED, Bond.NEEDED)
    with pytest.raises(RemoteProtocolError, match="in attempt 2, 1 was agreed"):
        heard.side.hear(heard.standing, "bank", word("Begin", heard.spec), 2)


def test_a_detach_that_crossed_its_own_leaving_changes_nothing() -> None:
    heard = Heard(COORDINATOR, State.LIVE, Bond.REPLACEABLE)
    assert heard.side.hear(heard.standing, "hub", word("Detach", heard.spec), ATTEMPT - 1) == []
