"""The side of a party that was asked to a job: it answers, begins when told, and comes back if the job did without."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from parties.disclosure import redacted_for_peer
from parties.errors import Failure, JobOver, NeverBegun, StaleAttempt
from parties.tables.datasets import Table
from parties.wire.control import (
    NEGOTIATION,
    Abort,
    Acceptance,
    Begin,
    Control,
    Detach,
    Finish,
    Join,
    Refusal,
    check_shares,
    failure_at,
)
from parties.wire.envelopes import Envelope
from parties.wire.link import Link, PeerState
from vfl.errors import JobError, PeerTimeout, RemoteProtocolError
from vfl.spec.sections import PartyId

if TYPE_CHECKING:
    from parties.jobs.supervisor import Supervisor

BEGIN_SECONDS = 600.0
"""For so long an accepted job waits to be begun, beyond the time it gives everybody to answer."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
"""Before it comes back: twice as long each time."""


class Participant:
    """Its methods run under the supervisor's lock.

    `bring` loads this party's tables anew. Raises JobError where they or its policy no longer fit the job.
    """

    def __init__(self, job: "Supervisor", bring: Callable[[], dict[str, Table]]) -> None:
        self._job, self._bring = job, bring
        (self._link,) = job.links.values()
        self._pause = FIRST_PAUSE_SECONDS

    def accept(self) -> None:
        job = self._job
        job.journal.record("accepted", f"{job.me} accepted the job")
        self._link.state = PeerState.AGREED
        job.send_until_acknowledged(self._link, Acceptance(job.agreement.share))
        gathering = 0.0 if job.needs_all else job.spec.join_timeout_seconds
        job.later(BEGIN_SECONDS + gathering, self._wait_no_longer_to_begin)

    def _wait_no_longer_to_begin(self) -> None:
        """A table is held meanwhile, and one of the jobs that the coordinator may have open here."""
        if self._link.begun == NEGOTIATION:
            text = f"{self._link.peer} did not begin the job that {self._job.me} had accepted"
            self._job.fail(Failure.of(NeverBegun(text), self._link.peer))

    def refuse(self, failure: Failure) -> None:
        """It tells why, and no value of its table."""
        reason = redacted_for_peer(failure)
        self._link.leave(PeerState.GONE)
        word = self._link.word(Refusal(reason.code, reason.message, reason.fix))
        self._job.closing.end(failure, {self._link.peer: word})

    def resume(self) -> None:
        """The server was away."""
        self._link.leave(PeerState.AWAY)
        self._job.attend(self._join)

    def obey(self, link: Link, attempt: int, control: Control) -> None:
        job = self._job
        match control:
            case Begin(shares) if link.state is PeerState.AGREED and attempt == link.next_run:
                check_shares(shares, job.spec, job.agreement.commitment, job.me, job.agreement.share)
                job.attend(lambda: job.begin(shares))
            case Detach(code, message):
                if self._waits_or_runs and attempt > link.attempt:  # else this party has left already
                    self._come_back(failure_at(link.peer, "let go of", code, message))
            case _:
                raise RemoteProtocolError(f"{link.peer} sent {control.kind} out of turn")

    def hear_last_word(self, link: Link, word: Control) -> None:
        match word:
            case Abort(code, message):
                self.exclude(link, failure_at(link.peer, "ended", code, message), knows=True)
            case Finish() if self._job.closing.awaits_word:
                link.finished = True
            case Finish() if self._needed:
                raise RemoteProtocolError(f"{link.peer} said the job is done while the role of {self._job.me} ran")
            case Finish() if link.state is PeerState.LIVE:
                link.finished = True  # the job is done, and this party has not caught up yet
            case Finish():
                self.exclude(link, Failure.of(JobOver(f"the job is over at {link.peer}"), link.peer), knows=True)
            case _:
                raise RemoteProtocolError(f"{link.peer} sent {word.kind} out of turn")

    def begin(self, _shares: dict[PartyId, bytes]) -> None:
        self._link.begin(None)

    def on_peer_lost(self, link: Link, error: JobError) -> None:
        """The courier gave up on the coordinator, or the coordinator refused what it was sent."""
        silent, ahead = isinstance(error, PeerTimeout), isinstance(error, StaleAttempt)
        failure = Failure.of(error, link.peer)
        if self._job.closing.awaits_word:
            if not silent:
                self.exclude(link, failure, knows=True)
        elif self._needed or not (silent or ahead):
            self.exclude(link, failure)
        elif link.state is PeerState.AGREED and silent:
            link.retransmit()
        elif self._waits_or_runs:
            self._come_back(failure)

    def exclude(self, link: Link, failure: Failure, *, knows: bool = False) -> None:
        """Without the coordinator there is no job."""
        self._job.fail(failure, link.peer if knows else None)

    def lose_worker(self, failure: Failure) -> None:
        if self._needed:
            self._job.fail(failure)
        else:
            self._come_back(failure)

    def detach(self, failure: Failure) -> bool:
        """The server stops; answers whether the job may be taken up when it is back."""
        if self._job.closing.awaits_word:
            return True
        if self._needed or self._job.closing.result is not None:
            return False
        self._leave(failure)
        return True

    def wait_no_longer(self) -> None:
        """The coordinator is waited for until the job's deadline."""

    def words_of_return(self) -> dict[PartyId, Envelope | None]:
        """From here on only the coordinator ends the job, which may have said already that it is done."""
        return {} if self._link.finished else {self._link.peer: self._link.word(Finish())}

    def words_of_end(self) -> dict[PartyId, Envelope | None]:
        return {self._link.peer: None}

    @property
    def _needed(self) -> bool:
        return self._job.me in self._job.spec.required_parties

    @property
    def _waits_or_runs(self) -> bool:
        return self._link.state in {PeerState.AGREED, PeerState.LIVE}

    def _come_back(self, failure: Failure) -> None:
        if self._job.closing.result is not None:
            self._job.fail(failure, self._link.peer)
        elif self._link.state is not PeerState.AWAY:
            self._leave(failure)
            self._job.later(self._pause, lambda: self._job.attend(self._join))
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _leave(self, failure: Failure) -> None:
        job, link, reason = self._job, self._link, redacted_for_peer(failure)
        link.leave(PeerState.AWAY)
        job.end_run()
        text = f"{job.me} is away: {failure.message}"
        job.journal.pause(
            "left", text, {"peer": job.me, "code": failure.code}, attempt=link.newest + 1, worker_pid=None
        )
        job.say(link, Detach(reason.code, reason.message), link.newest + 1)

    def _join(self) -> None:
        """Ask to be taken back, until that is answered or the job's time is up. Takes the lock after reading tables."""
        job, link = self._job, self._link
        tables = self._bring()
        with job.lock:
            if job.over or link.state is not PeerState.AWAY:
                return
            attempt = link.newest + 1
            job.journal.record("joining", f"{job.me} asks {link.peer} to be taken back", attempt=attempt)
            link.leave(PeerState.AGREED)
            job.tables = tables
            link.watch()
            job.send_until_acknowledged(link, Join(job.agreement.share), attempt)
