"""How a peer's envelope enters a running job: what it must pass before it counts (the numbers are of envelopes.md)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from parties.errors import Equivocation, IllegalRoute, JobOver, MailboxFull, StaleAttempt
from parties.jobs.state_table import may_send
from parties.wire.control import CONTROLS, LAST_WORDS, Ask
from parties.wire.envelopes import CONTROL_LIMIT, PART_LIMIT, Bytes, Envelope, Header, check_body
from parties.wire.link import Link
from parties.wire.peer_state import PeerState
from parties.wire.receipts import Receipt
from vfl.errors import JobError
from vfl.kinds import allowed
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId


class JobHearing(NamedTuple):
    """What the supervisor makes of what has entered, and what it is asked before that."""

    is_over: Callable[[], bool]
    has_returned: Callable[[], bool]
    """Whether the role of this party has."""
    check_size: Callable[[Header], None]
    """Of a message of the role. Raises EnvelopeTooLarge, MailboxFull."""
    take: Callable[[Link, Header, Bytes], None]
    take_last_word: Callable[[Link, Envelope], None]
    exclude: Callable[[Link, JobError], None]
    """The peer contradicted itself."""
    check_stored: Callable[[], None]
    """Raises StorageFailed while the job is over and its end is not stored."""


class Reception:
    def __init__(
        self, job: str, spec: JobSpec, me: PartyId, links: Mapping[PartyId, Link], hearing: JobHearing
    ) -> None:
        self._job, self._spec, self._me, self._links, self._hearing = job, spec, me, links, hearing
        self._digest = spec.digest()

    def receive(self, envelope: Envelope) -> Receipt:
        """One envelope of a peer of this job. Raises EnvelopeRefused."""
        header = envelope.header
        link = self._link_of(header)
        with link.receiving:
            goes_on = not self._hearing.is_over()
            if header.kind in LAST_WORDS:
                self._receive_last_word(link, envelope)
            elif goes_on and link.state is not PeerState.GONE and header.kind != Ask.__name__:
                return self._receive_in_turn(link, envelope)
            else:
                if goes_on and link.state is PeerState.GONE:
                    link.remind()
                    if header.kind in {"Acceptance", "Join"} and header.sender not in self._spec.required_parties:
                        raise JobOver(f"the job goes on without {header.sender}")
                check_kind(self._spec, header, self._me)
                link.receive_uncounted(envelope)
            self._hearing.check_stored()
            return Receipt(self._job, header.attempt, header.sequence + 1, envelope.digest)

    def wants(self, head: Envelope) -> bool:
        """Whether a body larger than any word about the job is worth keeping; False leaves the rest to `receive`.

        Raises EnvelopeRefused.
        """
        header, link = head.header, self._link_of(head.header)
        ended = self._hearing.is_over() or link.state is PeerState.GONE or not link.is_running(header.attempt)
        if ended or header.kind in CONTROLS or not allowed(self._spec, header.sender, self._me, header.kind):
            return False
        self._hearing.check_size(header)
        return True

    def _receive_in_turn(self, link: Link, envelope: Envelope) -> Receipt:
        header = envelope.header
        try:
            expected, last, body = link.receive(envelope, partial(self._check, link))
        except Equivocation as error:
            self._hearing.exclude(link, error)
            raise
        if body is not None:
            self._hearing.take(link, header, body)
        # (11) the receipt
        return Receipt(self._job, header.attempt, expected, last)

    def _receive_last_word(self, link: Link, envelope: Envelope) -> None:
        """Raises EnvelopeRefused, or StorageFailed: then it must come again."""
        header = envelope.header
        if not may_send(self._spec, header, self._me):
            raise IllegalRoute(f"{header.sender} may not send {header.kind} to {self._me} in this job")
        check_body(envelope, CONTROL_LIMIT)
        link.receive_uncounted(envelope)
        self._hearing.take_last_word(link, envelope)

    def _link_of(self, header: Header) -> Link:
        # (6) the job is this one, its specification the one both signed up to, and the sender in it
        link = self._links.get(header.sender)
        if link is None or header.job_digest != self._digest:
            raise IllegalRoute(f"{header.sender} is not in this job, or means another specification")
        return link

    def _check(self, link: Link, envelope: Envelope) -> None:
        """What a new envelope must pass before it counts. Raises EnvelopeRefused."""
        header = envelope.header
        control = header.kind in CONTROLS
        # (6) may this role send this kind?
        if control:
            legal = may_send(self._spec, header, self._me)
        else:
            legal = allowed(self._spec, header.sender, self._me, header.kind)
            if legal and link.is_about_to_run(header.attempt):
                raise MailboxFull(f"the worker of {self._me} is not ready yet")
            if legal and not link.is_running(header.attempt):  # its end may be on its way to the sender
                raise StaleAttempt(f"attempt {header.attempt} does not run at {self._me}")
        if not legal:
            raise IllegalRoute(f"{header.sender} may not send {header.kind} to {self._me} in this job")
        if header.kind == "Join":
            if self._hearing.has_returned():
                raise JobOver(f"the role of {self._me} has returned")
            link.check_join(header)
        check_body(envelope, CONTROL_LIMIT if control else PART_LIMIT)
        # (9) the worker has room for it
        if not control:
            self._hearing.check_size(header)


def check_kind(spec: JobSpec, header: Header, me: PartyId) -> None:
    """What comes too late for anything to follow of it must still be of this job. Raises IllegalRoute."""
    if header.kind not in CONTROLS and not allowed(spec, header.sender, me, header.kind):
        raise IllegalRoute(f"{header.sender} may not send {header.kind} to {me} in this job")
