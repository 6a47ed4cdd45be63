"""The coordinator's side of a job: it gathers parties, begins, lets go who leaves and takes back who returns."""

from typing import TYPE_CHECKING, Any

from parties.disclosure import redacted_for_peer
from parties.errors import Failure, JobOver, PeerStorageFailed, StaleAttempt, TooFewParties
from parties.wire.control import (
    Abort,
    Acceptance,
    Begin,
    Control,
    Detach,
    Finish,
    Join,
    Proposal,
    Refusal,
    failure_at,
)
from parties.wire.envelopes import Envelope
from parties.wire.link import Link, PeerState
from vfl.errors import JobError, PeerTimeout, RemoteProtocolError
from vfl.spec.sections import PartyId

if TYPE_CHECKING:
    from parties.jobs.supervisor import Supervisor

NOT_HERE = (PeerState.ASKED, PeerState.AGREED, PeerState.AWAY)


class Coordinator:
    """Its methods run under the supervisor's lock."""

    def __init__(self, job: "Supervisor") -> None:
        self._job = job
        self._shares = {job.me: job.agreement.share}
        self._begun: dict[PartyId, bytes] = {}
        self._impatient = False

    def propose(self) -> None:
        job = self._job
        if not job.needs_all:
            job.later(job.spec.join_timeout_seconds, self._gather_no_longer)
        for link in job.links.values():
            job.send_until_acknowledged(link, Proposal(job.spec.encoded(), job.agreement.commitment))

    def obey(self, link: Link, _attempt: int, control: Control) -> None:
        match control:
            case Acceptance(share) if link.state is PeerState.ASKED:
                self._agree(link, share)
            case Detach(code, message):
                self._lapse(link, failure_at(link.peer, "left", code, message), knows=True)
            case Join(share):
                link.leave(PeerState.ASKED)
                link.watch()
                self._agree(link, share)
            case _:
                raise RemoteProtocolError(f"{link.peer} sent {control.kind} out of turn")

    def hear_last_word(self, link: Link, word: Control) -> None:
        match word:
            case Refusal(code, message, fix) if link.state is PeerState.ASKED:
                self.exclude(link, failure_at(link.peer, "refused", code, message, fix), knows=True)
            case Abort(code, message):
                self.exclude(link, failure_at(link.peer, "ended", code, message), knows=True)
            case Finish() if link.state is PeerState.LIVE:
                link.finished = True
                self._job.run.tell_finished(link.peer)
                self._job.closing.finish_together()
            case Finish() if link.state is PeerState.AWAY:
                self.exclude(
                    link, Failure(JobOver.code, f"{self._job.me} had let go of {link.peer}", side=self._job.me)
                )
            case _:
                raise RemoteProtocolError(f"{link.peer} sent {word.kind} out of turn")

    def begin(self, shares: dict[PartyId, bytes]) -> None:
        """The role starts: whoever agreed is told, and of the others it knows that they are not there."""
        self._begun = shares
        for link in self._job.links.values():
            if link.state is PeerState.AGREED:
                self._begin(link)
            else:
                self._job.run.tell_left(link.peer)

    def on_peer_lost(self, link: Link, error: JobError) -> None:
        """A courier gave up on a peer, or the peer refused what it was sent."""
        unable = isinstance(error, PeerStorageFailed) and link.state is PeerState.ASKED
        silent, ahead = isinstance(error, PeerTimeout) and not unable, isinstance(error, StaleAttempt)
        failure = Failure.of(error, link.peer)
        if link.peer in self._job.spec.required_parties or not (silent or ahead):
            self.exclude(link, failure)
        elif link.state is PeerState.LIVE and not link.finished:
            self._lapse(link, failure)
        elif link.state in {PeerState.ASKED, PeerState.AWAY} and silent:
            link.retransmit()  # else it has been away and is about to join

    def exclude(self, link: Link, failure: Failure, *, knows: bool = False) -> None:
        """A peer is out for good: the job goes on where it can do without."""
        if link.peer in self._job.spec.required_parties:
            self._job.fail(failure, link.peer if knows else None)
        elif link.state is not PeerState.GONE:
            self._leave(link, PeerState.GONE, failure)
            if not knows:
                self._job.closing.let_go(link, failure)
            self._go_on()

    def lose_worker(self, failure: Failure) -> None:
        self._job.fail(failure)

    def detach(self, _failure: Failure) -> bool:
        """A job does not outlive the coordinator's server."""
        return False

    def wait_no_longer(self) -> None:
        """What the job can do without has had its time to finish too."""
        for link in self._job.links.values():
            link.finished = link.finished or link.peer not in self._job.spec.required_parties

    def words_of_return(self) -> dict[PartyId, Envelope | None]:
        """It waits for the others'."""
        return {}

    def words_of_end(self) -> dict[PartyId, Envelope | None]:
        """The job is done: who was not there any more, or not yet, need not come."""
        over = Abort(JobOver.code, f"the job is over at {self._job.me}")
        here: dict[PartyId, Envelope | None]
        here = {link.peer: link.word(Finish()) for link in self._job.links.values() if link.state is PeerState.LIVE}
        away: dict[PartyId, Envelope | None]
        away = {link.peer: link.word(over) for link in self._job.links.values() if link.state in NOT_HERE}
        return here | away

    def _lapse(self, link: Link, failure: Failure, *, knows: bool = False) -> None:
        """The run of a peer ends early; it may join again."""
        if link.state not in {PeerState.LIVE, PeerState.AGREED}:
            return
        reason, attempt = redacted_for_peer(failure), link.newest + 1
        self._leave(link, PeerState.AWAY, failure, attempt=max(self._job.newest, attempt))
        if not knows:
            self._job.send_until_acknowledged(link, Detach(reason.code, reason.message), attempt)
        self._go_on()

    def _agree(self, link: Link, share: bytes) -> None:
        """A peer agrees to the job: in time, too late for its share to matter, or once more."""
        job = self._job
        known = link.peer in self._shares
        self._shares.setdefault(link.peer, share)
        link.state = PeerState.AGREED
        kind, text = ("joined", "is back") if known else ("accepted", "accepted the job")
        # The attempt is stored before anything is sent in it.
        job.journal.record(kind, f"{link.peer} {text}", {"peer": link.peer}, attempt=job.newest)
        if self._begun:
            self._begin(link)
        else:
            self._gather()

    def _begin(self, link: Link) -> None:
        word = Begin(self._begun)
        self._job.journal.sent(link.peer, word.kind, link.begin(word))
        self._job.run.tell_returned(link.peer)

    def _leave(self, link: Link, presence: PeerState, failure: Failure, **values: Any) -> None:
        link.leave(presence)
        self._job.run.tell_left(link.peer)
        data = {"peer": link.peer, "code": failure.code}
        self._job.journal.record("left", failure.message, data, **values)

    def _go_on(self) -> None:
        """Somebody is missing now: that may be enough to end, or too few to begin."""
        if self._begun:
            self._job.closing.finish_together()
        else:
            self._gather()

    def _gather(self) -> None:
        """Begin when everybody has answered, or time is up, and enough have agreed."""
        job = self._job
        if self._begun or job.over:
            return
        here = [link.state for link in job.links.values()]
        agreed = {job.me} | {link.peer for link in job.links.values() if link.state is PeerState.AGREED}
        possible = len(agreed) + here.count(PeerState.ASKED) + here.count(PeerState.AWAY)
        least = job.spec.minimum_parties
        if possible < least or (self._impatient and len(agreed) < least):
            text = f"{len(agreed)} of {len(job.spec.parties)} parties agreed to the job in time, it needs {least}"
            job.fail(Failure.of(TooFewParties(text), job.me))
        elif len(agreed) >= least and (self._impatient or PeerState.ASKED not in here):
            shares = {party: share for party, share in self._shares.items() if party in agreed}
            job.attend(lambda: job.begin(shares))

    def _gather_no_longer(self) -> None:
        self._impatient = True
        self._gather()
