"""The side of a party that was asked to a job: it answers, begins when told, and comes back if the job did without.

Each method looks at how the job stands and answers what is to be done; it changes nothing itself.
"""

from collections.abc import Mapping

from parties.errors import Failure, JobOver, NeverBegun, PeerStorageFailed, StaleAttempt
from parties.jobs.actions import (
    Actions,
    Agree,
    AwaitOperator,
    AwaitOthers,
    BeginPeer,
    BeginRun,
    Done,
    End,
    EndAttempt,
    LastWords,
    LeaveRun,
    LoadTables,
    MarkFinished,
    Record,
    RequestEnd,
    Retransmit,
    Send,
    SendUntilAcknowledged,
    StartTimer,
    Timer,
    Watch,
    end_for_all,
    overdue,
)
from parties.jobs.pausing import check_may_pause, check_may_resume, pause_of, paused, resumed
from parties.jobs.standing import Standing, Words
from parties.jobs.state_table import AWAY, GONE, Bond, Speaker, bond_of, legal, state_of
from parties.pause_errors import JobPaused
from parties.trust.contract import Signatures, Signed
from parties.wire.control import (
    NEGOTIATION,
    OFFERED_CHECKPOINTS,
    Abort,
    Acceptance,
    Agreement,
    Begin,
    CheckpointName,
    Control,
    Detach,
    Finish,
    Join,
    Refusal,
    Waiting,
    check_shares,
    failure_at,
)
from parties.wire.peer_state import Peer, PeerState
from vfl.errors import JobError, PeerTimeout, RemoteProtocolError
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

BEGIN_SECONDS = 600.0
"""For so long an accepted job waits to be begun, beyond the time it gives everybody to answer."""
SESSION_END_SECONDS = 60.0
"""Beyond its agreed time, which the coordinator keeps, a session is not waited for longer."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
"""Before it comes back: twice as long each time."""


class Participant:
    """Its only peer is the coordinator."""

    def __init__(self, spec: JobSpec, me: PartyId, agreement: Agreement, signatures: Signatures) -> None:
        self._spec, self._me, self._agreement, self._signatures = spec, me, agreement, signatures
        self._bond = bond_of(spec, me)
        self._may_return = self._bond is not Bond.NEEDED

    def wait(self, standing: Standing, missing: str) -> Actions:
        """No grant covers the job, and why: this party's operator decides, and may have done so already."""
        if standing.peers[self._spec.coordinator].state is not PeerState.ASKED:
            return []
        text = f"waiting for the approval of {self._me}'s operator: {missing}"
        coordinator = self._spec.coordinator
        record = Record("waiting", text, {"peer": self._me}, waits_for="approval")
        return [record, AwaitOperator(coordinator), SendUntilAcknowledged(coordinator, Waiting())]

    def take_part(self, _standing: Standing) -> Actions:
        """Agree to the job."""
        coordinator = self._spec.coordinator
        return [
            Record("accepted", f"{self._me} accepted the job", waits_for=""),
            Agree(coordinator),
            SendUntilAcknowledged(coordinator, Acceptance(self._agreement.share, self._agreement.signed)),
            self._await_beginning(),
        ]

    def take_up(self, _standing: Standing, words: Mapping[PartyId, Words]) -> Actions:
        """This party's server was away before the run: it stands where its own words had brought it."""
        coordinator = self._spec.coordinator
        exchange = words[coordinator]
        others: Actions = [AwaitOthers()] if exchange.first_heard(Waiting) else []
        if exchange.first_said(Acceptance):
            return [Agree(coordinator), Retransmit(coordinator), *others, self._await_beginning()]
        return (
            [AwaitOperator(coordinator), Retransmit(coordinator), *others] if exchange.first_said(Waiting) else others
        )

    def refuse(self, _standing: Standing, failure: Failure) -> Actions:
        """It tells why, and no value of its table."""
        coordinator = self._spec.coordinator
        return [EndAttempt(coordinator, PeerState.GONE), End(failure, {coordinator: Refusal.of(failure)})]

    def resume(self, standing: Standing, _failure: Failure) -> Actions:
        """The server was away."""
        if self._me in standing.paused:
            return self._leave_paused(standing)
        return [EndAttempt(self._spec.coordinator, PeerState.AWAY), LoadTables()]

    # What the coordinator says

    def hear(  # noqa: PLR0911 - a line for each word
        self, standing: Standing, sender: PartyId, word: Control, attempt: int
    ) -> Actions:
        """Raises RemoteProtocolError for a word that fits no row of the table, or Begin on other terms than agreed."""
        coordinator = standing.peers[sender]
        state = state_of(coordinator, returned=standing.returned)
        row = legal(Speaker.COORDINATOR, sender, word, state, self._bond)
        match word:
            case Waiting():
                return [AwaitOthers()]
            case Begin(shares, signed, checkpoint):
                if attempt != coordinator.next_run:
                    raise RemoteProtocolError(
                        f"{sender} sent Begin in attempt {attempt}, {coordinator.next_run} was agreed"
                    )
                check_shares(shares, self._spec, self._agreement.commitment, self._me, self._agreement.share)
                if standing.begun and self._bond is Bond.AWAITED and dict(standing.begun) != shares:
                    raise RemoteProtocolError(f"{sender} goes on with other shares of the seed than it began with")
                self._check_signed(sender, shares, signed)
                ended = [resumed(standing, party, "") for party in sorted(standing.paused)]
                return [*ended, BeginRun(shares, signed, self._agreed_step(standing, sender, checkpoint))]
            case Detach():
                # It may have crossed this party's own leaving or coming back.
                ends = row.then in {AWAY, GONE} and attempt > coordinator.attempt
                return self._let_go(standing, coordinator, word, ends=ends)
            case Abort(code, message):
                return self.exclude(standing, sender, failure_at(sender, "ended", code, message), knows=True)
            case Finish() if row.then is GONE:
                over = Failure.of(JobOver(f"the job is over at {sender}"), sender)
                return self.exclude(standing, sender, over, knows=True)
            case Finish():
                return [MarkFinished(sender)]
            case _:
                return []

    def on_peer_lost(  # noqa: PLR0911 - a line for each way
        self, standing: Standing, lost: PartyId, error: JobError
    ) -> Actions:
        """The outbox gave up on the coordinator, or the coordinator refused what it was sent."""
        coordinator, failure = standing.peers[lost], Failure.of(error, lost)
        unable = isinstance(error, PeerStorageFailed) and self._bond is Bond.AWAITED
        silent, ahead = isinstance(error, PeerTimeout) and not unable, isinstance(error, StaleAttempt)
        if silent and coordinator.newest == NEGOTIATION:
            return [Retransmit(lost)]  # nothing runs yet
        if self._me in standing.paused and (silent or ahead):
            return [Retransmit(lost)] if silent else self._leave_paused(standing)
        if standing.returned:
            return [] if silent else self.exclude(standing, lost, failure, knows=True)
        if not self._may_return or not (silent or ahead):
            return self.exclude(standing, lost, failure)
        if coordinator.state is PeerState.AGREED and silent:
            return [Retransmit(lost)]
        if coordinator.state in {PeerState.AGREED, PeerState.LIVE}:
            return self._come_back(standing, coordinator, failure)
        return []

    def exclude(self, standing: Standing, excluded: PartyId, failure: Failure, *, knows: bool = False) -> Actions:
        """Without the coordinator there is no job."""
        return self.fail(standing, failure, excluded if knows else None)

    # What happens here

    def begin(self, _standing: Standing) -> Actions:
        """The worker is prepared."""
        begin: Actions = [BeginPeer(self._spec.coordinator)]
        if self._spec.session_seconds:
            begin.append(StartTimer(Timer.SESSION, self._spec.session_seconds + SESSION_END_SECONDS))
        return begin

    def lose_worker(self, standing: Standing, failure: Failure) -> Actions:
        if not self._may_return:
            return self.fail(standing, failure)
        return self._come_back(standing, standing.peers[self._spec.coordinator], failure)

    def detach(self, standing: Standing, failure: Failure) -> Actions | None:
        """The server stops; None where the job cannot be taken up when it is back."""
        coordinator = standing.peers[self._spec.coordinator]
        if standing.returned or coordinator.newest == NEGOTIATION or self._me in standing.paused:
            return []
        return self._leave(coordinator, failure) if self._may_return else None

    def pause(self, standing: Standing) -> Actions:
        """This party's operator stops the work: it leaves, and does not come back by itself.

        Raises CannotPause, AlreadyPaused, PausedByPeer.
        """
        check_may_pause(self._spec, standing, self._me)
        coordinator = standing.peers[self._spec.coordinator]
        attempt, failure = coordinator.newest + 1, pause_of(self._me)
        leave: Actions = [] if coordinator.state is PeerState.AWAY else [LeaveRun(failure, attempt)]
        said = paused(standing, self._me, attempt)
        return [*said, EndAttempt(coordinator.name, PeerState.AWAY), *leave, self._tell_of_pause(attempt)]

    def end_pause(self, standing: Standing) -> Actions:
        """It comes back. Raises NotPaused, PausedByPeer."""
        check_may_resume(standing, self._me)
        return [resumed(standing, self._me, f"{self._spec.coordinator} to begin again"), LoadTables()]

    def join(self, standing: Standing) -> Actions:
        """Its tables are here again: ask to be taken back, until that is answered or the job's time is up."""
        coordinator = standing.peers[self._spec.coordinator]
        if coordinator.state is not PeerState.AWAY or self._me in standing.paused:
            return []
        attempt = coordinator.newest + 1
        return [
            Record("joining", f"{self._me} asks {coordinator.name} to be taken back", attempt=attempt),
            EndAttempt(coordinator.name, PeerState.AGREED),
            Watch(coordinator.name),
            SendUntilAcknowledged(coordinator.name, self._asking(standing), attempt),
        ]

    def time_is_up(self, standing: Standing, timer: Timer) -> Actions:
        coordinator = standing.peers[self._spec.coordinator]
        match timer:
            case Timer.DEADLINE | Timer.SESSION if not standing.returned:
                return self.fail(standing, overdue(self._spec, self._me))
            case Timer.BEGINNING if coordinator.begun == NEGOTIATION and not standing.others_wait:
                # A table is held meanwhile, and one of the open jobs.
                text = f"{coordinator.name} did not begin the job that {self._me} had accepted"
                return self.fail(standing, Failure.of(NeverBegun(text), coordinator.name))
            case Timer.RETURNING:
                return [LoadTables()]
            case _:
                return []

    # How it ends

    def words_of_return(self, standing: Standing) -> LastWords:
        """From here on only the coordinator ends the job, which may have said already that it is done."""
        return {} if self._coordinator_is_done(standing) else {self._spec.coordinator: Finish()}

    def on_returned(self, standing: Standing) -> Actions:
        """The role of this party has returned, and its result is stored: the coordinator is waited for."""
        return self.conclude(standing)

    def conclude(self, standing: Standing) -> Actions:
        """Done, if the role has returned and the coordinator has said so."""
        if not standing.returned or not self._coordinator_is_done(standing):
            return []
        return [Done({self._spec.coordinator: None})]

    def fail(self, standing: Standing, failure: Failure, knowing: PartyId | None = None) -> Actions:
        """End the job here; a party that has said Finish asks the coordinator to end it, unless that has done so."""
        if not standing.returned or knowing is not None:
            return end_for_all(standing, failure, knowing)
        coordinator = self._spec.coordinator
        text = f"{failure.message}; {self._me} has trained, so {coordinator} says how the job ends"
        return [RequestEnd(text, failure, {coordinator: Abort.of(failure)})]

    # Small things

    def _check_signed(
        self, coordinator: PartyId, shares: Mapping[PartyId, bytes], signed: Mapping[PartyId, Signed]
    ) -> None:
        """All that begin have signed. Raises RemoteProtocolError."""
        if not {*shares, self._me} <= set(signed) <= set(self._spec.parties):
            raise RemoteProtocolError(f"{coordinator} began the job without the signature of every party in it")
        for party, each in signed.items():
            if party != self._me:
                self._signatures.check(party, each)
            elif each != self._agreement.signed:
                raise RemoteProtocolError(f"{coordinator} holds another signature of {self._me} than it has given")

    def _agreed_step(self, standing: Standing, coordinator: PartyId, checkpoint: CheckpointName | None) -> int:
        """After which the run goes on. Raises RemoteProtocolError for a checkpoint that this party does not hold."""
        if checkpoint is None:
            return 0
        if standing.checkpoints.get(checkpoint.step, {}).get(coordinator) != checkpoint:
            raise RemoteProtocolError(
                f"{coordinator} goes on from a checkpoint after step {checkpoint.step} that {self._me} does not hold"
            )
        return checkpoint.step

    def _asking(self, standing: Standing) -> Join:
        coordinator = self._spec.coordinator
        names = [standing.checkpoints[step][coordinator] for step in sorted(standing.checkpoints)]
        return Join(self._agreement.share, self._agreement.signed, tuple(names[-OFFERED_CHECKPOINTS:]))

    def _await_beginning(self) -> StartTimer:
        needs_all = self._spec.required_parties == set(self._spec.parties)
        return StartTimer(Timer.BEGINNING, BEGIN_SECONDS + (0.0 if needs_all else self._spec.join_timeout_seconds))

    def _coordinator_is_done(self, standing: Standing) -> bool:
        return standing.peers[self._spec.coordinator].finished

    def _let_go(self, standing: Standing, coordinator: Peer, word: Detach, *, ends: bool) -> Actions:
        """The coordinator says Detach, which `ends` the attempt or only tells why."""
        said: Actions = []
        if self._bond is Bond.AWAITED and word.code == JobPaused.code:
            said = paused(standing, coordinator.name)
            standing = standing.pausing(coordinator.name)
        failure = failure_at(coordinator.name, "let go of", word.code, word.message)
        return said + self._come_back(standing, coordinator, failure) if ends else said

    def _come_back(self, standing: Standing, coordinator: Peer, failure: Failure) -> Actions:
        if standing.returned and self._bond is not Bond.AWAITED:
            return self.fail(standing, failure, coordinator.name)
        if coordinator.state is PeerState.AWAY:
            return []
        pause = min(FIRST_PAUSE_SECONDS * 2**standing.departures, LONGEST_PAUSE_SECONDS)
        parked = self._parked(standing, failure)
        return [*self._leave(coordinator, failure), *parked, StartTimer(Timer.RETURNING, pause)]

    def _leave_paused(self, standing: Standing) -> Actions:
        """Say once more, in a newer attempt, that this party's operator has paused the job."""
        coordinator = standing.peers[self._spec.coordinator]
        attempt, failure = coordinator.newest + 1, pause_of(self._me)
        data = {"peer": self._me, "code": failure.code}
        left = Record("left", failure.message, data, attempt)
        return [left, EndAttempt(coordinator.name, PeerState.AWAY), self._tell_of_pause(attempt)]

    def _tell_of_pause(self, attempt: int) -> SendUntilAcknowledged:
        return SendUntilAcknowledged(self._spec.coordinator, Detach.of(pause_of(self._me)), attempt)

    def _parked(self, standing: Standing, failure: Failure) -> Actions:
        """Where the job itself waits meanwhile."""
        if self._bond is not Bond.AWAITED or standing.paused:
            return []
        waits_for = f"{self._spec.coordinator} to begin again"
        return [Record("parked", f"waiting for {waits_for}: {failure.message}", waits_for=waits_for)]

    def _leave(self, coordinator: Peer, failure: Failure) -> Actions:
        attempt = coordinator.newest + 1
        leave: Actions = [EndAttempt(coordinator.name, PeerState.AWAY), LeaveRun(failure, attempt)]
        return [*leave, Send(coordinator.name, Detach.of(failure), attempt)]
