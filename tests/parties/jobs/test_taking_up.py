"""What each side makes of a job that had not begun when its server went away, from the words that it had stored."""

import pytest
from one_side import OWN_SHARE, TRAINING, coordinator, participant, peer, signed, word
from played_peers import spec as rounds_spec

from parties.jobs.actions import (
    Agree,
    AwaitOperator,
    AwaitOthers,
    BeginRun,
    End,
    EndAttempt,
    Retransmit,
    SendUntilAcknowledged,
    StartTimer,
    Timer,
)
from parties.jobs.standing import Standing, Words
from parties.jobs.state_table import State
from parties.wire.control import Abort, Acceptance, Proposal, Refusal, Waiting
from parties.wire.peer_state import PeerState

SPEC = rounds_spec()
PROPOSAL = word("Proposal", SPEC)
REFUSED, ABORTED = Refusal("policy_refused", "no", ""), Abort("cancelled", "never mind")


def asked() -> Standing:
    return Standing({name: peer(name, State.ASKED) for name in SPEC.peers_of("hub")})


def agrees(name: str) -> Acceptance:
    return Acceptance(OWN_SHARE, signed(name, SPEC))


def test_each_peer_of_the_coordinator_stands_where_its_words_had_brought_it() -> None:
    words = {
        "ada": Words((PROPOSAL,), (Waiting(), agrees("ada"))),
        "bob": Words((PROPOSAL,), (Waiting(),)),
        "cyd": Words((PROPOSAL,), ()),
    }
    gathering, *actions = coordinator(SPEC).take_up(asked(), words)
    assert gathering == StartTimer(Timer.GATHERING, SPEC.join_timeout_seconds)
    assert actions == [
        Retransmit("ada"),
        Agree("ada", OWN_SHARE, signed("ada", SPEC)),
        Retransmit("bob"),
        AwaitOperator("bob"),
        Retransmit("cyd"),
    ]


def test_where_all_had_agreed_already_the_coordinator_begins() -> None:
    words = {name: Words((PROPOSAL,), (agrees(name),)) for name in SPEC.peers_of("hub")}
    last = coordinator(SPEC).take_up(asked(), words)[-1]
    assert isinstance(last, BeginRun)
    assert set(last.shares) == set(last.signed) == set(SPEC.parties)


def test_who_had_not_been_asked_yet_is_asked() -> None:
    actions = coordinator(SPEC).take_up(asked(), dict.fromkeys(SPEC.peers_of("hub"), Words()))
    proposed = [action.word for action in actions if isinstance(action, SendUntilAcknowledged)]
    assert proposed == [Proposal(SPEC.encoded(), proposed[0].commitment, signed("hub", SPEC))] * 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "words", [Words((PROPOSAL,), (REFUSED,)), Words((PROPOSAL,), (ABORTED,)), Words((PROPOSAL, ABORTED), ())]
)
def test_who_was_out_of_the_job_stays_out(words: Words) -> None:
    known = {name: Words((PROPOSAL,), ()) for name in SPEC.peers_of("hub")} | {"bob": words}
    actions = coordinator(SPEC).take_up(asked(), known)
    assert EndAttempt("bob", PeerState.GONE) in actions
    assert Retransmit("bob") not in actions
    assert isinstance(coordinator(SPEC).take_up(asked(), known | {"ada": words})[-1], End)  # too few are left


def test_another_party_stands_where_its_own_words_had_brought_it() -> None:
    side, standing = participant(TRAINING, "telco"), Standing({"bank": peer("bank", State.ASKED)})
    proposal, accepted = word("Proposal", TRAINING), word("Acceptance", TRAINING)

    def taken_up(*said: object, heard: tuple[object, ...] = ()) -> list[object]:
        return list(side.take_up(standing, {"bank": Words(said, (proposal, *heard))}))  # type: ignore[arg-type]

    assert taken_up() == []  # it has yet to answer
    assert taken_up(Waiting()) == [AwaitOperator("bank"), Retransmit("bank")]
    agreed, again, *others, timer = taken_up(Waiting(), accepted, heard=(Waiting(),))
    assert (agreed, again, others) == (Agree("bank"), Retransmit("bank"), [AwaitOthers()])
    assert isinstance(timer, StartTimer)
    assert timer.timer is Timer.BEGINNING
