"""A job begins only once every operator or a grant has approved it, and every party in it has signed."""

from dataclasses import replace

import pytest
from one_side import OWN_SHARE, TRAINING, Heard, coordinator, participant, peer, signed, word
from played_peers import spec as rounds_spec

from parties.jobs.actions import (
    AwaitOperator,
    AwaitOthers,
    BeginRun,
    End,
    EndGathering,
    Record,
    Retransmit,
    Send,
    SendUntilAcknowledged,
    Timer,
)
from parties.jobs.standing import Standing
from parties.jobs.state_table import COORDINATOR, OTHER, Bond, State
from parties.trust.contract import Signed
from parties.wire.control import NEGOTIATION, Acceptance, Begin, Refusal, Waiting
from parties.wire.peer_state import PeerState
from vfl.errors import PeerTimeout, RemoteProtocolError

SPEC = rounds_spec()


def gathering(**states: State) -> Standing:
    return Standing({name: peer(name, states.get(name, State.ASKED)) for name in SPEC.peers_of("hub")})


def acceptance(name: str) -> Acceptance:
    return Acceptance(OWN_SHARE, signed(name, SPEC))


def test_a_party_whose_operator_must_approve_says_so_once() -> None:
    side, standing = participant(TRAINING, "telco"), Standing({"bank": peer("bank", State.ASKED)})
    record, state, said = side.wait(standing, "no grant names the column 'a'")
    assert isinstance(record, Record)
    assert (record.kind, record.waits_for) == ("waiting", "approval")
    assert record.text == "waiting for the approval of telco's operator: no grant names the column 'a'"
    assert (state, said) == (AwaitOperator("bank"), SendUntilAcknowledged("bank", Waiting()))
    assert side.wait(Standing({"bank": peer("bank", State.AGREED)}), "") == []


def test_the_coordinator_tells_its_operator_whom_it_waits_for_and_who_has_agreed_already() -> None:
    actions = coordinator(SPEC).hear(gathering(bob=State.AGREED), "ada", Waiting(), NEGOTIATION)
    assert actions[0] == AwaitOperator("ada")
    (record,) = (action for action in actions if isinstance(action, Record))
    assert record.text == "waiting for the approval of ada's operator: no grant of ada covers the job"
    assert record.waits_for == "the approval of ada's operator"
    assert actions[-1] == Send("bob", Waiting())


def test_who_agrees_while_another_waits_hears_that_too() -> None:
    actions = coordinator(SPEC).hear(gathering(ada=State.WAITING), "bob", acceptance("bob"), NEGOTIATION)
    assert Send("bob", Waiting()) in actions
    (record,) = (action for action in actions if isinstance(action, Record))
    assert record.waits_for == "the approval of ada's operator"


def test_an_operator_is_waited_for_beyond_the_time_in_which_others_answer() -> None:
    side = coordinator(SPEC)
    waiting = gathering(ada=State.WAITING, bob=State.GONE, cyd=State.AGREED)
    assert side.time_is_up(waiting, Timer.GATHERING) == [EndGathering()]
    late = replace(waiting, gathering_is_over=True, shares={"cyd": OWN_SHARE}, signed={"cyd": signed("cyd", SPEC)})
    (begun,) = (a for a in side.hear(late, "ada", acceptance("ada"), NEGOTIATION) if isinstance(a, BeginRun))
    assert set(begun.shares) == set(begun.signed) == {"hub", "ada", "cyd"}
    ended = side.hear(late, "ada", Refusal("job_rejected", "no", ""), NEGOTIATION)
    assert isinstance(ended[-1], End)


def test_where_enough_have_agreed_in_time_the_run_begins_without_who_still_waits() -> None:
    agreed = gathering(ada=State.WAITING, bob=State.AGREED, cyd=State.AGREED)
    shares = {"bob": OWN_SHARE, "cyd": OWN_SHARE}
    actions = coordinator(SPEC).time_is_up(replace(agreed, shares=shares), Timer.GATHERING)
    assert [set(action.shares) for action in actions if isinstance(action, BeginRun)] == [{"hub", "bob", "cyd"}]


def test_a_party_that_has_agreed_waits_for_the_operator_of_another() -> None:
    heard = Heard(COORDINATOR, State.AGREED, Bond.REPLACEABLE)
    assert heard.hear("Waiting") == [AwaitOthers()]
    held_up = replace(heard.standing, others_wait=True)
    assert heard.side.time_is_up(held_up, Timer.BEGINNING) == []
    assert isinstance(heard.side.time_is_up(heard.standing, Timer.BEGINNING)[-1], End)
    assert isinstance(heard.side.time_is_up(held_up, Timer.DEADLINE)[-1], End)


@pytest.mark.parametrize("speaker", [COORDINATOR, OTHER])
def test_while_an_operator_decides_a_silent_peer_is_told_again(speaker: object) -> None:
    heard = Heard(COORDINATOR if speaker is COORDINATOR else OTHER, State.WAITING, Bond.REPLACEABLE)
    silent = PeerTimeout("it stopped answering")
    assert heard.side.on_peer_lost(heard.standing, heard.sender, silent) == [Retransmit(heard.sender)]


@pytest.mark.parametrize(
    "forged",
    [
        signed("ada", TRAINING),
        signed("bob", SPEC),
        Signed(signed("ada", SPEC).key, bytes(64)),
        Signed(signed("bob", SPEC).key, signed("ada", SPEC).signature),
    ],
    ids=["another specification", "another party", "no signature", "another key"],
)
def test_who_has_not_signed_the_specification_has_not_agreed(forged: Signed) -> None:
    with pytest.raises(RemoteProtocolError, match="not signed by ada"):
        coordinator(SPEC).hear(gathering(), "ada", Acceptance(OWN_SHARE, forged), NEGOTIATION)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"bank": signed("telco", TRAINING)}, "not signed by bank"),
        ({"telco": signed("bank", TRAINING)}, "another signature of telco than it has given"),
        ({"bank": None}, "without the signature of every party"),
        ({"telco": None}, "without the signature of every party"),
        ({"shop": signed("shop", TRAINING)}, "without the signature of every party"),
    ],
)
def test_nothing_begins_without_the_right_signatures_of_all(change: dict[str, Signed | None], text: str) -> None:
    heard = Heard(COORDINATOR, State.AGREED, Bond.NEEDED)
    begin = word("Begin", heard.spec)
    assert isinstance(begin, Begin)
    changed = {name: each for name, each in {**begin.signed, **change}.items() if each is not None}
    attempt = heard.standing.peers["bank"].next_run
    with pytest.raises(RemoteProtocolError, match=text):
        heard.side.hear(heard.standing, "bank", Begin(begin.shares, changed), attempt)
    assert heard.side.hear(heard.standing, "bank", begin, attempt) == [BeginRun(begin.shares, begin.signed)]


def test_a_party_that_waits_is_in_a_state_of_its_own() -> None:
    heard = Heard(OTHER, State.ASKED, Bond.NEEDED)
    assert heard.state_after(heard.hear("Waiting")) is State.WAITING
    assert PeerState.WAITING.value == State.WAITING.value
