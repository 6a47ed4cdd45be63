"""The coordinator's side of a job: it gathers parties, begins, lets go who leaves and takes back who returns.

Each method looks at how the job stands and answers what is to be done; it changes nothing itself.
"""

from collections.abc import Mapping
from dataclasses import replace

from parties.errors import Failure, JobOver, NoProgress, PeerAway, PeerStorageFailed, StaleAttempt, TooFewParties
from parties.jobs.actions import (
    Actions,
    Agree,
    AwaitOperator,
    BeginPeer,
    BeginRun,
    Done,
    EndAttempt,
    EndGathering,
    Exclude,
    LastWords,
    LeaveRun,
    MarkFinished,
    Record,
    Retransmit,
    Send,
    SendUntilAcknowledged,
    StartTimer,
    TellWorker,
    Timer,
    Watch,
    end_for_all,
    overdue,
)
from parties.jobs.pausing import check_may_pause, check_may_resume, pause_of, paused, resumed, to_resume
from parties.jobs.standing import Standing, Words
from parties.jobs.state_table import AWAY, GONE, RETURNED, Speaker, bond_of, legal, state_of
from parties.pause_errors import JobPaused
from parties.trust.contract import Signatures, Signed
from parties.wire.control import (
    NEGOTIATION,
    Abort,
    Acceptance,
    Agreement,
    Begin,
    CheckpointName,
    Control,
    Detach,
    Finish,
    Join,
    Proposal,
    Refusal,
    Waiting,
    failure_at,
)
from parties.wire.peer_state import Peer, PeerState
from parties.worker.frames import Left, NoMoreRequests, Returned
from vfl.errors import JobError, PeerTimeout
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

FRUITLESS_ATTEMPTS = 5
"""So many attempts in turn may end before their first new checkpoint; then the job fails."""


class Coordinator:
    def __init__(self, spec: JobSpec, me: PartyId, agreement: Agreement, signatures: Signatures) -> None:
        self._spec, self._me, self._agreement, self._signatures = spec, me, agreement, signatures
        self._needs_all = spec.required_parties == set(spec.parties)
        self._awaits_all = spec.resumes

    def take_part(self, standing: Standing) -> Actions:
        """Propose the job to everybody."""
        return [*self._gathering(), *(self._propose(peer) for peer in standing.peers)]

    def take_up(self, standing: Standing, words: Mapping[PartyId, Words]) -> Actions:
        """This party's server was away before the run: each peer stands where its words had brought it."""
        actions: Actions = self._gathering()
        for peer in standing.peers:
            exchange = words[peer]
            acceptance = exchange.first_heard(Acceptance)
            if exchange.first_said(Abort) or exchange.first_heard(Abort) or exchange.first_heard(Refusal):
                actions.append(EndAttempt(peer, PeerState.GONE))
                standing = standing.having(peer, state=PeerState.GONE)
                continue
            actions.append(Retransmit(peer) if exchange.said else self._propose(peer))
            if acceptance is not None:
                actions.append(Agree(peer, acceptance.share, acceptance.signed))
                standing = standing.agreed(peer, acceptance.share, acceptance.signed)
                standing = standing.having(peer, state=PeerState.AGREED)
            elif exchange.first_heard(Waiting):
                actions.append(AwaitOperator(peer))
                standing = standing.having(peer, state=PeerState.WAITING)
        return [*actions, *self._gather(standing)]

    # What others say

    def hear(  # noqa: C901, PLR0911 - a line for each word
        self, standing: Standing, sender: PartyId, word: Control, attempt: int
    ) -> Actions:
        """Raises RemoteProtocolError for a word that fits no row of the table."""
        peer = standing.peers[sender]
        state = state_of(peer, returned=peer.finished)
        row = legal(Speaker.OTHER, sender, word, state, bond_of(self._spec, sender))
        match word:
            case Waiting():
                return self._await_operator(standing, sender)
            case Acceptance(share, signed):
                return self._agree(standing, peer, share, signed)
            case Join(share, signed, checkpoints):
                return self._take_back(standing, peer, share, signed, checkpoints)
            case Detach(code) if self._awaits_all and code == JobPaused.code:
                away = Failure(PeerAway.code, pause_of(sender).message, side=sender)  # for the others
                return [*paused(standing, sender), *self._detach(standing.pausing(sender), peer, away, knows=True)]
            case Detach(code, message) if row.then is AWAY:
                return self._detach(standing, peer, failure_at(sender, "left", code, message), knows=True)
            case Refusal(code, message, fix):
                return self.exclude(standing, sender, failure_at(sender, "refused", code, message, fix), knows=True)
            case Abort(code, message):
                return self.exclude(standing, sender, failure_at(sender, "ended", code, message), knows=True)
            case Finish() if self._awaits_all and attempt <= peer.begun:
                return []  # it was on its way when a newer run began
            case Finish() if row.then is RETURNED:
                # After what the peer sent before, there is nothing to wait for.
                finished: Actions = [MarkFinished(sender), TellWorker(Left(sender))]
                return finished + self.conclude(standing.having(sender, finished=True))
            case Finish() if row.then is GONE:
                over = Failure(JobOver.code, f"{self._me} had let go of {sender}", side=self._me)
                return self.exclude(standing, sender, over)
            case _:
                return []

    def on_peer_lost(self, standing: Standing, lost: PartyId, error: JobError) -> Actions:
        """The outbox gave up on a peer, or the peer refused what it was sent."""
        peer = standing.peers[lost]
        unable = isinstance(error, PeerStorageFailed) and (peer.state is PeerState.ASKED or self._awaits_all)
        silent, ahead = isinstance(error, PeerTimeout) and not unable, isinstance(error, StaleAttempt)
        failure = Failure.of(error, lost)
        if silent and not standing.begun and standing.in_state(PeerState.WAITING):
            return [Retransmit(lost)]  # an operator decides meanwhile, so there is time until the deadline
        may_return = self._can_do_without(lost) or (self._awaits_all and bool(standing.begun))
        if not may_return or not (silent or ahead):
            return self.exclude(standing, lost, failure)
        if peer.state is PeerState.LIVE and not peer.finished:
            return self._detach(standing, peer, failure)
        if peer.state in {PeerState.ASKED, PeerState.WAITING, PeerState.AWAY} and silent:
            return [Retransmit(lost)]
        return []  # it has been away and is about to join

    def exclude(self, standing: Standing, excluded: PartyId, failure: Failure, *, knows: bool = False) -> Actions:
        """A peer is out for good: the job goes on where it can do without."""
        if not self._can_do_without(excluded):
            return self.fail(standing, failure, excluded if knows else None)
        if standing.peers[excluded].state is PeerState.GONE:
            return []
        actions = _leave(excluded, PeerState.GONE, failure)
        if not knows:
            actions.append(Exclude(excluded, Abort.of(failure)))
        return actions + self._go_on(standing.having(excluded, state=PeerState.GONE))

    # What happens here

    def begin(self, standing: Standing) -> Actions:
        """The worker is prepared: whoever agreed is told, and of the others the role knows that they are not there."""
        actions: Actions = []
        for peer in standing.peers.values():
            if peer.state is PeerState.AGREED:
                actions += self._begin(standing, peer.name)
            elif not self._awaits_all:
                actions.append(TellWorker(Left(peer.name)))
        if self._spec.session_seconds:
            actions.append(StartTimer(Timer.SESSION, self._spec.session_seconds))
        return actions

    def lose_worker(self, standing: Standing, failure: Failure) -> Actions:
        return self._interrupt(standing, failure)[0] if self._awaits_all else self.fail(standing, failure)

    def detach(self, standing: Standing, failure: Failure) -> Actions | None:
        """The server stops. A job that has begun does not outlive it, unless it can go on from a checkpoint."""
        if standing.begun or standing.newest > NEGOTIATION:
            return self._interrupt(standing, failure)[0] if self._awaits_all else None
        return []

    def resume(self, standing: Standing, failure: Failure) -> Actions:
        """This party's server was away during the run."""
        attempt = standing.newest + 1
        failure = pause_of(self._me) if self._me in standing.paused else failure
        actions: Actions = [Record("left", failure.message, {"peer": self._me, "code": failure.code}, attempt)]
        for peer in standing.peers:
            actions += [EndAttempt(peer, PeerState.AWAY), Watch(peer)]
            actions.append(SendUntilAcknowledged(peer, Detach.of(failure), attempt))
        return [*actions, *self._parked(standing, list(standing.peers), failure)]

    def pause(self, standing: Standing) -> Actions:
        """This party's operator stops the work. Raises CannotPause, AlreadyPaused, PausedByPeer."""
        check_may_pause(self._spec, standing, self._me)
        joined = standing.in_state(PeerState.AGREED)
        said: Actions = [*paused(standing, self._me), *map(self._tell_of_pause, joined)]
        return said + self._interrupt(standing.pausing(self._me), pause_of(self._me))[0]

    def end_pause(self, standing: Standing) -> Actions:
        """Raises NotPaused, PausedByPeer."""
        check_may_resume(standing, self._me)
        away = [peer.name for peer in standing.in_state(PeerState.AWAY)]
        said = resumed(standing, self._me, _to_be_back(away) if away else "")
        return [said, *self._begin_again(standing.resuming(self._me))]

    def time_is_up(self, standing: Standing, timer: Timer) -> Actions:
        match timer:
            case Timer.DEADLINE:
                return self.fail(standing, overdue(self._spec, self._me))
            case Timer.GATHERING:
                return [EndGathering(), *self._gather(replace(standing, gathering_is_over=True))]
            case Timer.SESSION:
                return [TellWorker(NoMoreRequests())]
            case Timer.FINISHING:
                late = [peer for peer in standing.peers if self._can_do_without(peer)]
                for peer in late:
                    standing = standing.having(peer, finished=True)
                return [*map(MarkFinished, late), *self.conclude(standing)]
            case _:
                return []

    # How it ends

    def words_of_return(self, _standing: Standing) -> LastWords:
        """The coordinator waits for the others' word."""
        return {}

    def on_returned(self, standing: Standing) -> Actions:
        """The role of this party has returned, and its result is stored."""
        timer: Actions = [] if self._needs_all else [StartTimer(Timer.FINISHING, self._spec.join_timeout_seconds)]
        return timer + self.conclude(standing)

    def conclude(self, standing: Standing) -> Actions:
        """Done, if the role has returned and every peer that is there has said the same.

        Who is not there any more, or not yet, need not come.
        """
        if not standing.returned or not all(peer.finished for peer in standing.in_state(PeerState.LIVE)):
            return []
        over = Abort(JobOver.code, f"the job is over at {self._me}")
        away = standing.in_state(PeerState.ASKED, PeerState.WAITING, PeerState.AGREED, PeerState.AWAY)
        here = standing.in_state(PeerState.LIVE)
        return [Done({peer.name: Finish() for peer in here} | {peer.name: over for peer in away})]

    def fail(self, standing: Standing, failure: Failure, knowing: PartyId | None = None) -> Actions:
        """End the job here and tell every peer but the one that told us."""
        return end_for_all(standing, failure, knowing)

    # Small things

    def _propose(self, peer: PartyId) -> SendUntilAcknowledged:
        proposal = Proposal(self._spec.encoded(), self._agreement.commitment, self._agreement.signed)
        return SendUntilAcknowledged(peer, proposal)

    def _gathering(self) -> Actions:
        return [] if self._needs_all else [StartTimer(Timer.GATHERING, self._spec.join_timeout_seconds)]

    def _can_do_without(self, peer: PartyId) -> bool:
        return peer not in self._spec.required_parties

    def _await_operator(self, standing: Standing, waiting: PartyId) -> Actions:
        """Those who have agreed hear that the job does not begin soon."""
        text = f"waiting for the approval of {waiting}'s operator: no grant of {waiting} covers the job"
        record = Record("waiting", text, {"peer": waiting}, waits_for=f"the approval of {waiting}'s operator")
        agreed = standing.in_state(PeerState.AGREED)
        return [AwaitOperator(waiting), record, *(Send(peer.name, Waiting()) for peer in agreed)]

    def _take_back(
        self,
        standing: Standing,
        peer: Peer,
        share: bytes,
        signed: Signed,
        checkpoints: tuple[CheckpointName, ...],
    ) -> Actions:
        """A peer asks to be taken back."""
        actions: Actions = []
        if self._awaits_all and standing.runs:
            back = Failure(PeerAway.code, f"{peer.name} was away, and is back", side=peer.name)
            actions, standing = self._interrupt(standing, back, peer.name)
        if peer.name in standing.paused:
            actions.append(resumed(standing, peer.name, ""))
        actions += [EndAttempt(peer.name, PeerState.ASKED), Watch(peer.name)]
        standing = replace(standing, offered={**standing.offered, peer.name: checkpoints}).resuming(peer.name)
        return [*actions, *self._agree(standing, peer, share, signed)]

    def _agree(self, standing: Standing, peer: Peer, share: bytes, signed: Signed) -> Actions:
        """A peer agrees to the job: in time, too late for its share to matter, or once more.

        Raises RemoteProtocolError where it has not signed.
        """
        self._signatures.check(peer.name, signed)
        kind, text = ("joined", "is back") if peer.name in standing.shares else ("accepted", "accepted the job")
        waiting = [other.name for other in standing.in_state(PeerState.WAITING) if other is not peer]
        waits_for = f"the approval of {waiting[0]}'s operator" if waiting else ""
        away = [other.name for other in standing.in_state(PeerState.AWAY) if other.name != peer.name]
        if self._awaits_all and (away or standing.paused):
            waits_for = to_resume(standing.paused) or _to_be_back(away)
        data = {"peer": peer.name}
        record = Record(kind, f"{peer.name} {text}", data, attempt=standing.newest, waits_for=waits_for)
        actions: Actions = [Agree(peer.name, share, signed, standing.offered.get(peer.name, ())), record]
        shares, signatures = {peer.name: share, **standing.shares}, {peer.name: signed, **standing.signed}
        agreed = replace(standing, shares=shares, signed=signatures).having(peer.name, state=PeerState.AGREED)
        if standing.begun and self._awaits_all:
            said = [self._tell_of_pause(peer)] if self._me in standing.paused else []
            return [*actions, *said, *self._begin_again(agreed)]
        if standing.begun:
            return actions + self._begin(agreed, peer.name)
        return [*actions, *([Send(peer.name, Waiting())] if waiting else []), *self._gather(agreed)]

    def _begin(self, standing: Standing, peer: PartyId) -> Actions:
        signed = {self._me: self._agreement.signed, **standing.signed}
        checkpoint = standing.checkpoints[standing.step][peer] if standing.step else None
        return [BeginPeer(peer, Begin(dict(standing.begun), signed, checkpoint)), TellWorker(Returned(peer))]

    def _begin_again(self, standing: Standing) -> Actions:
        """Once all have joined again and nobody's pause holds: from the newest checkpoint that all of them hold."""
        if standing.paused or len(standing.in_state(PeerState.AGREED)) < len(standing.peers):
            return []
        step = standing.common_checkpoint()
        if step <= standing.step and standing.fruitless >= FRUITLESS_ATTEMPTS:
            text = f"{standing.fruitless} attempts in turn ended after step {standing.step}, before another checkpoint"
            return self.fail(standing, Failure.of(NoProgress(text), self._me))
        return [BeginRun(standing.begun, {self._me: self._agreement.signed, **standing.signed}, step)]

    def _interrupt(
        self, standing: Standing, failure: Failure, knowing: PartyId | None = None
    ) -> tuple[Actions, Standing]:
        """Where all are needed the runs of all end, so that all go on from the same step. Each peer joins again."""
        actions: Actions = []
        attempt = standing.newest + 1
        for peer in standing.in_state(PeerState.LIVE):
            actions.append(EndAttempt(peer.name, PeerState.AWAY))
            if peer.name != knowing:
                actions.append(SendUntilAcknowledged(peer.name, Detach.of(failure), attempt))
                actions.append(Watch(peer.name))
            standing = standing.having(peer.name, state=PeerState.AWAY)
        if knowing is not None and standing.peers[knowing].state is not PeerState.AWAY:
            actions.append(EndAttempt(knowing, PeerState.AWAY))
            standing = standing.having(knowing, state=PeerState.AWAY)
        if standing.runs:
            actions.append(LeaveRun(failure, attempt))
        away = [peer.name for peer in standing.in_state(PeerState.AWAY)]
        return [*actions, *self._parked(standing, away, failure)], replace(standing, runs=False)

    def _tell_of_pause(self, peer: Peer) -> Send:
        """A peer that has joined stays so: like a Detach that its Join has crossed, this one ends no attempt."""
        return Send(peer.name, Detach.of(pause_of(self._me)), peer.newest)

    def _parked(self, standing: Standing, away: list[PartyId], failure: Failure) -> Actions:
        if standing.paused:
            return []  # that is said already, and for that it waits
        text, data = f"waiting for {_to_be_back(away)}: {failure.message}", {"code": failure.code}
        return [Record("parked", text, data, waits_for=_to_be_back(away))]

    def _detach(self, standing: Standing, peer: Peer, failure: Failure, *, knows: bool = False) -> Actions:
        """The run of a peer ends early; it may join again."""
        if peer.state not in {PeerState.LIVE, PeerState.AGREED}:
            return []
        if self._awaits_all:
            return self._interrupt(standing, failure, peer.name if knows else None)[0]
        attempt = peer.newest + 1
        actions = _leave(peer.name, PeerState.AWAY, failure, max(standing.newest, attempt))
        if not knows:
            actions.append(SendUntilAcknowledged(peer.name, Detach.of(failure), attempt))
        return actions + self._go_on(standing.having(peer.name, state=PeerState.AWAY))

    def _go_on(self, standing: Standing) -> Actions:
        """Somebody is missing now: that may be enough to end, or too few to begin."""
        return self.conclude(standing) if standing.begun else self._gather(standing)

    def _gather(self, standing: Standing) -> Actions:
        """Begin when everybody has answered, or time is up, and enough have agreed.

        While too few have, an operator who must approve the job first is waited for until the deadline of the job.
        """
        if standing.begun:
            return []
        agreed = {self._me} | {peer.name for peer in standing.in_state(PeerState.AGREED)}
        asked, waiting = standing.in_state(PeerState.ASKED), standing.in_state(PeerState.WAITING)
        possible = len(agreed) + len(asked) + len(waiting) + len(standing.in_state(PeerState.AWAY))
        least, time_is_up = self._spec.minimum_parties, standing.gathering_is_over
        if possible < least or (time_is_up and not waiting and len(agreed) < least):
            text = f"{len(agreed)} of {len(self._spec.parties)} parties agreed to the job in time, it needs {least}"
            return self.fail(standing, Failure.of(TooFewParties(text), self._me))
        if len(agreed) >= least and (time_is_up or not (asked or waiting)):
            shares = {self._me: self._agreement.share, **standing.shares}
            signed = {self._me: self._agreement.signed, **standing.signed}
            return [BeginRun({party: share for party, share in shares.items() if party in agreed}, signed)]
        return []


def _to_be_back(parties: list[PartyId]) -> str:
    return f"{' and '.join(parties)} to be back"


def _leave(peer: PartyId, state: PeerState, failure: Failure, attempt: int | None = None) -> Actions:
    data = {"peer": peer, "code": failure.code}
    return [EndAttempt(peer, state), TellWorker(Left(peer)), Record("left", failure.message, data, attempt)]
