"""Whether one job could run between this party and a peer: its data, columns, limits and approvals at both sides.

Nothing is proposed and nothing is stored. The peer tells what it would tell to a proposal, and no more.
"""

from collections.abc import Callable, Iterator

import msgspec

from parties import limits
from parties.doctor.call import Blocked, call_peer
from parties.doctor.findings import BETWEEN, FAILED, HERE, JOB, OK, WARNING, Finding, not_checked
from parties.doctor.half import NoView, ask
from parties.doctor.obstacles import meaning
from parties.doctor.peer import no_view
from parties.errors import UnknownPeer
from parties.job_keys import filled_in
from parties.peers import Peers
from parties.readiness import Readiness
from vfl.errors import JobError
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

CALL_SECONDS = 30.0
"""The peer may have to read a large table."""
SPECIFICATION, HERE_FITS, HERE_APPROVES, THERE_FITS, THERE_APPROVES = (
    "specification",
    "data and limits here",
    "approval here",
    "data and limits there",
    "approval there",
)


class JobCheck:
    """One look at one job. Used by one thread."""

    def __init__(
        self,
        peers: Peers,
        name: PartyId,
        resolved: Callable[[JobSpec], JobSpec],
        readiness: Callable[[JobSpec], Readiness],
    ) -> None:
        """`resolved` fills in what a specification leaves open, `readiness` is this party's own half."""
        self._peers, self._name, self._resolved, self._readiness = peers, name, resolved, readiness
        self._me = peers.identity.name

    def findings(self, text: str) -> list[Finding]:
        """`text` is TOML."""
        return list(self._look(text))

    def _look(self, text: str) -> Iterator[Finding]:
        try:
            spec = limits.read_limited(text)
            spec = self._resolved(spec)
            spec = filled_in(spec, self._peers) if spec.coordinator == self._me else spec
        except JobError as error:
            yield Finding(JOB, SPECIFICATION, FAILED, HERE, f"{error}.", error.fix)
            yield from self._left_out(HERE_FITS, HERE_APPROVES, THERE_FITS, THERE_APPROVES)
            return
        strangers = [party for party in (self._me, self._name) if party not in spec.parties]
        if strangers:
            text = (
                f"{strangers[0]} is no party of the job {spec.job.name!r}: its parties are {', '.join(spec.parties)}."
            )
            yield Finding(JOB, SPECIFICATION, FAILED, HERE, text, "Correct [roster] of the specification.")
            yield from self._left_out(HERE_FITS, HERE_APPROVES, THERE_FITS, THERE_APPROVES)
            return
        text = f"The job {spec.job.name!r} can be read; {spec.coordinator} proposes it."
        yield Finding(JOB, SPECIFICATION, OK, HERE, text)
        yield from self._of_this_side(self._readiness(spec))
        yield from self._of_the_peer(spec)

    def _of_this_side(self, own: Readiness) -> Iterator[Finding]:
        if own.failure is not None:
            yield Finding(JOB, HERE_FITS, FAILED, HERE, f"{own.failure.message}.", own.failure.fix)
            yield from self._left_out(HERE_APPROVES)
            return
        yield Finding(JOB, HERE_FITS, OK, HERE, f"The table of {self._me} and its [acceptance] fit the job.")
        if own.approval == "operator":
            text = f"No grant covers the job, so it will wait for this operator: {own.missing}."
            fix = "`vfl grant create` allows such jobs in advance; else `vfl job approve` once it is proposed."
            yield Finding(JOB, HERE_APPROVES, WARNING, HERE, text, fix)
        else:
            text = "Grants cover the job." if own.approval == "grant" else "Whoever proposes the job approves it."
            yield Finding(JOB, HERE_APPROVES, OK, HERE, text)

    def _of_the_peer(self, spec: JobSpec) -> Iterator[Finding]:
        try:
            peer = self._peers.get(self._name)
            with call_peer(self._peers.tls, peer, CALL_SECONDS) as call:
                view = ask(call, peer, self._me, CALL_SECONDS, spec=spec.encoded())
        except UnknownPeer as error:
            yield Finding(JOB, THERE_FITS, FAILED, HERE, f"{error}.", error.fix)
        except Blocked as blocked:
            side, text, fix = meaning(blocked.obstacle, self._me, self._name, self._peers.get(self._name).address)
            yield Finding(JOB, THERE_FITS, FAILED, HERE if side == self._me else side, text, fix)
        except NoView as error:
            yield msgspec.structs.replace(no_view(error.status, self._name, self._me), area=JOB, check=THERE_FITS)
        else:
            if view.readiness is not None:
                yield from self._there(view.readiness)
                return
            yield Finding(JOB, THERE_FITS, WARNING, self._name, f"{self._name} says nothing of the job.", "")
        yield from self._left_out(THERE_APPROVES)

    def _there(self, answer: Readiness) -> Iterator[Finding]:
        if answer.failure is not None:
            fix = answer.failure.fix or f"Run `vfl doctor {self._me} --spec` at {self._name}: it says more there."
            yield Finding(JOB, THERE_FITS, FAILED, self._name, f"{answer.failure.message}.", fix)
            yield from self._left_out(THERE_APPROVES)
            return
        yield Finding(JOB, THERE_FITS, OK, self._name, f"The table of {self._name} and its [acceptance] fit the job.")
        if answer.approval == "operator":
            text = f"No grant of {self._name} covers the job, so it will wait for that operator."
            fix = f"At {self._name}: `vfl grant create` in advance, or `vfl job approve` once it is proposed."
            yield Finding(JOB, THERE_APPROVES, WARNING, self._name, text, fix)
        else:
            by = "Grants cover the job." if answer.approval == "grant" else "Whoever proposes the job approves it."
            yield Finding(JOB, THERE_APPROVES, OK, self._name, by)

    def _left_out(self, *checks: str) -> Iterator[Finding]:
        yield from not_checked(JOB, checks, BETWEEN, "An earlier check failed.")
