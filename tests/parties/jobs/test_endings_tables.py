"""The two tables of docs/protocols/job.md on how a job ends: each of their cells is what the rules do."""

import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from identities import acquaint, identity_of
from one_side import FAILURE, TRAINING, Heard, other_of
from played_peers import BOUND_SECONDS, PlayedPeer

from parties.errors import Failure, JobCancelled
from parties.jobs.actions import Actions, End, RequestEnd, Retransmit
from parties.jobs.endings import state_of
from parties.jobs.state_table import COORDINATOR, OTHER, Bond, Speaker, State
from parties.party import Party
from parties.settings import PartySettings
from parties.storage.database import Job, Store, now
from parties.wire.control import Abort, Control, Finish
from vfl.errors import Diverged, PeerTimeout, RemoteProtocolError

PAGE = (Path(__file__).parents[3] / "docs" / "protocols" / "job.md").read_text("utf-8")
CANCELLED = Failure.of(JobCancelled("the operator cancelled it"), "telco")


def table(first: str) -> dict[str, list[str]]:
    """The cells of the table whose first heading this is, by row."""
    _, _, below = PAGE.partition(f"| {first} |")
    lines = itertools.takewhile(lambda line: line.startswith("|"), below.splitlines()[2:])
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return {row[0]: row[1:] for row in rows}


OF_OTHER, OF_COORDINATOR = table("the other party"), table("the coordinator")
UNDER_WAY = [
    (COORDINATOR, "proposed: asked, waiting or agreed", State.ASKED),
    (COORDINATOR, "proposed: asked, waiting or agreed", State.WAITING),
    (COORDINATOR, "proposed: asked, waiting or agreed", State.AGREED),
    (COORDINATOR, "running, role at work", State.LIVE),
    (COORDINATOR, "running, has said Finish", State.RETURNED),
    (OTHER, "proposed", State.ASKED),
    (OTHER, "proposed", State.AGREED),
    (OTHER, "proposed, an operator has to approve", State.WAITING),
    (OTHER, "running", State.LIVE),
    (OTHER, "running", State.RETURNED),
]
"""Who speaks, the row of the page, and the state of the other party that is meant."""


def hears(side: Heard, kind: str) -> str:
    try:
        actions = side.hear(kind)
    except RemoteProtocolError:
        return f"refused: the {'coordinator' if side.speaker is COORDINATOR else 'other'} broke the rules"
    after = side.state_after(actions)
    if after is State.GONE:
        return ended(side, actions)
    return {State.DONE: "done", State.RETURNED: "waits for its own role and the rest, then done"}[after]


def ended(side: Heard, actions: Actions) -> str:
    """What becomes of a job at this side."""
    last = actions[-1] if actions else None
    if last is None or isinstance(last, Retransmit):
        return "waits and asks"
    if isinstance(last, RequestEnd):
        assert set(last.words) == {side.sender}
        return "asks the coordinator to end it"
    assert isinstance(last, End)
    owed = last.words[side.sender]
    assert owed is None or isinstance(owed, Abort)
    return "failed or cancelled" if owed is None else f"{state_of(last.failure)}, Abort is owed"


def restarted(side: Heard) -> str:
    kept = side.side.detach(side.standing, FAILURE)
    return ended(side, side.side.fail(side.standing, FAILURE) if kept is None else kept)


@pytest.mark.parametrize(("speaker", "row", "state"), UNDER_WAY)
def test_a_job_under_way_ends_as_the_page_says(speaker: Speaker, row: str, state: State) -> None:
    side = Heard(speaker, state, Bond.NEEDED)
    lost = side.side.on_peer_lost(side.standing, side.sender, PeerTimeout(f"{side.sender} stopped answering"))
    happens = [ended(side, lost), ended(side, side.side.fail(side.standing, CANCELLED)), restarted(side)]
    shown = (OF_OTHER if speaker is COORDINATOR else OF_COORDINATOR)[row]
    assert shown[1:] == [hears(side, "Abort"), *happens]
    if (speaker, state) == (OTHER, State.RETURNED):
        assert side.hear("Finish") == []  # it comes again
    else:
        assert shown[0] == hears(side, "Finish")
    if (speaker, state) == (OTHER, State.ASKED):
        assert shown[1] == hears(side, "Refusal")


# Jobs that are over, at a real party whose database holds them


class Over:
    """A party with one job that has ended as `state`; `peer` is the other side, played."""

    def __init__(self, folder: Path, me: str, state: str) -> None:
        self.peer = PlayedPeer(next(party for party in TRAINING.parties if party != me))
        self._folder, self._me, self.job, self.state = folder, me, "job", state
        store = Store(folder)
        digest, role = TRAINING.digest().hex(), TRAINING.role_of(me).value
        made: dict[str, Any] = {
            "role": role,
            "party": me,
            "peers": [self.peer.name],
            "spec_digest": digest,
        }
        store.add(Job(id=self.job, name="n", state="running", created_at=now(), **made), TRAINING.encoded())
        failure = {"failed": FAILURE, "cancelled": CANCELLED}.get(state)
        error = None if failure is None else failure.as_stored()
        store.record(self.job, state, "over", error, state=state, error=error)
        store.close()
        self.start()

    def start(self) -> None:
        acquaint(self._folder, {self.peer.name: "127.0.0.1:9"})
        self.party = Party(self._folder, PartySettings(name=self._me), identity_of(self._me), lambda _name: self.peer)
        self.peer.party = self.party

    def restart(self) -> None:
        self.party.close()
        self.start()

    def hear(self, word: Control) -> None:
        assert self.peer.say(self.job, word, 2) == ""

    def is_told_again(self) -> bool:
        """Whether the peer hears how the job ended."""
        kind = "Finish" if self.state == "done" else "Abort"
        deadline = time.monotonic() + BOUND_SECONDS
        while kind not in [heard for heard, _ in self.peer.heard(self.job)]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return True


Opened = Callable[[str, str], Over]


@pytest.fixture
def over(tmp_path: Path) -> Iterator[Opened]:
    opened: list[Over] = []

    def make(me: str, state: str) -> Over:
        folder = tmp_path / f"{len(opened)}"
        folder.mkdir()
        opened.append(Over(folder, me, state))
        return opened[-1]

    yield make
    for each in opened:
        each.party.close()


WORDS: tuple[Control, ...] = (Finish(), Abort("cancelled", "never mind"), Abort(Diverged.code, "too large"))


def became(party: Over, happen: Callable[[], object]) -> str:
    happen()
    return "nothing changes" if party.party.job(party.job).state == party.state else "takes over"


@pytest.mark.parametrize("state", ["failed", "cancelled", "done"])
def test_at_the_other_party_a_job_that_is_over_changes_as_the_page_says(over: Opened, state: str) -> None:
    shown = OF_OTHER["done" if state == "done" else "failed or cancelled"]
    me = other_of(TRAINING)
    found = []
    for word in WORDS:
        party = over(me, state)
        found.append(became(party, partial(party.hear, word)))
    finish, *aborts = found
    assert finish == shown[0] == "nothing changes"
    if state == "done":
        assert shown[1] == "nothing changes, logged"
        assert aborts == ["nothing changes"] * 2
    else:
        assert shown[1] == "takes over failed or cancelled, once"
        assert sorted(aborts) == ["nothing changes", "takes over"]  # the one that is as its own, and the other
    party = over(me, state)
    party.peer.out_of_reach = True
    assert shown[2:] == [became(party, happen) for happen in (party.restart, partial(cancel, party), party.restart)]


@pytest.mark.parametrize("state", ["failed", "cancelled", "done"])
def test_at_the_coordinator_a_job_that_is_over_changes_as_the_page_says(over: Opened, state: str) -> None:
    shown = OF_COORDINATOR["over"]
    for word in WORDS:
        party = over(TRAINING.coordinator, state)
        assert became(party, partial(party.hear, word)) == "nothing changes"
        assert party.is_told_again()
    assert shown[:2] == ["says again how it ended"] * 2
    party = over(TRAINING.coordinator, state)
    party.peer.out_of_reach = True
    assert shown[2:4] == [became(party, happen) for happen in (party.restart, partial(cancel, party))]
    assert shown[4] == "goes on telling it"
    party.peer.out_of_reach = False
    party.restart()
    party.hear(Finish())
    assert party.is_told_again()


def cancel(party: Over) -> None:
    party.party.cancel(party.job)


def test_each_row_of_the_page_has_its_test() -> None:
    tested = {speaker: {row for of, row, _ in UNDER_WAY if of is speaker} for speaker in Speaker}
    assert set(OF_OTHER) == tested[COORDINATOR] | {"failed or cancelled", "done"}
    assert set(OF_COORDINATOR) == tested[OTHER] | {"over"}
