"""What this party agreed to: its grants, the decision about each job, the job's budget and its contract.

A job asks, grants or the operator decide, and from then on its budget is open (docs/grants.md). What belongs together
is stored in one commit, with the leaf of the audit log that tells of it.
"""

import time
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sql

from parties.storage import approvals, grants, lifetime
from parties.storage.approvals import Approval, Asked
from parties.storage.database import now
from parties.storage.engine import Database
from parties.storage.grants import StoredGrant
from parties.storage.lifetime import LedgerLine
from parties.storage.passed import AUDIT_LOG
from parties.trust.budget import BudgetLine, check_lifetime, reveals
from parties.trust.contract import Contract, Signed
from parties.trust.errors import GrantInvalid, NotWaiting, RequestChanged
from parties.trust.grants import DEFAULT_DAYS, Uses, coverage, grant_for
from parties.trust.id_runs import USUAL, RunLimits, check_runs
from parties.trust.leaves import Event
from parties.trust.predictions import DAY_SECONDS, Marks, check_predictions, marks_of
from parties.trust.predictions import USUAL as USUAL_PREDICTIONS
from parties.trust.request import Request
from parties.trust.signer import Signer
from parties.trust.summary import Summary, Terms, summarise
from vfl.kinds import decode_spec, sendable
from vfl.spec.sections import PartyId


class Consent:
    """Safe for several threads."""

    def __init__(
        self,
        owner: Signer,
        database: Database,
        maximum_rho: float,
        run_limits: RunLimits = USUAL,
        predictions_per_day: int = USUAL_PREDICTIONS,
    ) -> None:
        """`maximum_rho` is the cap over the life of a file with a peer, `run_limits` are of comparing ids."""
        self._owner, self._database = owner, database
        self._maximum_rho, self._run_limits, self._predictions_per_day = maximum_rho, run_limits, predictions_per_day

    # Grants

    def grant(
        self, request: Request, *, days: int = DEFAULT_DAYS, uses: Uses = 1, changes: Mapping[str, Any] | None = None
    ) -> list[StoredGrant]:
        """The narrowest grants that cover this job, one for each data set, with some terms changed.

        Raises GrantInvalid, StorageFailed.
        """
        if not request.data:
            raise GrantInvalid(f"the job takes no data of {request.me}, so there is nothing to grant")
        made = [grant_for(request, use.dataset, days=days, uses=uses) for use in request.data]
        changed = [msgspec.structs.replace(grant, **(changes or {})) for grant in made]
        with self._database.writing() as connection:
            added = [grants.add(connection, grant.sign(self._owner.current)) for grant in changed]
            for stored in added:
                digest = sha256(stored.signed.encoded).hexdigest()
                _tell(connection, Event.GRANT_CREATED, stored, dataset=stored.grant.dataset, digest=digest)
        return added

    def grants(self) -> list[StoredGrant]:
        """The newest first."""
        with self._database.reading() as connection:
            return grants.all_grants(connection)

    def revoke(self, grant: str) -> StoredGrant:
        """Raises UnknownGrant, StorageFailed."""
        with self._database.writing() as connection:
            stored = grants.revoke(connection, grant, int(time.time()))
            _tell(connection, Event.GRANT_REVOKED, stored)
        return stored

    def revoke_all_of(self, peer: PartyId) -> None:
        """Of a peer that is removed: another party of its name must not inherit them."""
        for stored in self.grants():
            if peer in {stored.grant.peer, *stored.grant.others} and stored.revoked is None:
                self.revoke(stored.grant.id)

    # Jobs

    def ask(self, job: str, request: Request, warnings: Iterable[str]) -> str:
        """Empty where grants approve the job at once; else why they do not, and it waits for the operator.

        Raises PolicyRefused where it would pass the cap of a column, StorageFailed.
        """
        marks = self._marks(request)
        with self._database.writing() as connection:
            check_lifetime(request.me, request.budget, lifetime.used(connection), self._maximum_rho)
            self._check_runs(connection, request, marks)
            self._ask(connection, job, request, warnings)
            covering, missing = coverage(grants.usable(connection, self._owner.current.key), request)
            if not missing:
                grants.count_uses(connection, covering, request.now)
                ids = tuple(grant.id for grant in covering)
                by_grant = Approval(decision="approved", by="grant", time=now(), grants=ids)
                self._approve(connection, job, request, by_grant, marks)
        return missing

    def missing(self, request: Request) -> str:
        """As `ask` would answer, and nothing is stored. Raises PolicyRefused."""
        marks = self._marks(request)
        with self._database.reading() as connection:
            check_lifetime(request.me, request.budget, lifetime.used(connection), self._maximum_rho)
            self._check_runs(connection, request, marks)
            return coverage(grants.usable(connection, self._owner.current.key), request).missing

    def submit(self, connection: sql.Connection, job: str, request: Request, warnings: Iterable[str]) -> None:
        """A job that this party's own operator proposes, in the commit that stores it. Raises PolicyRefused."""
        self._ask(connection, job, request, warnings)
        by_submit = Approval(decision="approved", by="submit", time=now())
        self._approve(connection, job, request, by_submit, self._marks(request))

    def approve(self, job: str, request: Request, warnings: Iterable[str], reason: str) -> None:
        """The operator approves what was shown. Raises NotWaiting, RequestChanged, PolicyRefused, StorageFailed."""
        marks = self._marks(request)
        with self._database.writing() as connection:
            shown = self._waiting(connection, job).terms
            self._ask(connection, job, request, warnings)
            if is_same := shown == Terms.of(request):
                by_hand = Approval(decision="approved", by="operator", time=now(), reason=reason)
                self._approve(connection, job, request, by_hand, marks)
        if not is_same:
            raise RequestChanged(f"what job {job} takes of {request.me} has changed since its operator was shown it")

    def check_unchanged(self, job: str, request: Request) -> None:
        """What was approved is what a run takes that begins later, or again. Raises RequestChanged."""
        with self._database.reading() as connection:
            asked = approvals.asked_by(connection, job)
        if asked is None or asked.terms != Terms.of(request):
            raise RequestChanged(
                f"what job {job} takes of {request.me} has changed since it was approved",
                safe="Nothing was computed.",
                fix=f"Put the files of {request.me} back as they were, or submit the job again.",
            )

    def reject(self, job: str, reason: str) -> None:
        """Raises NotWaiting, StorageFailed."""
        with self._database.writing() as connection:
            asked = self._waiting(connection, job)
            by_hand = Approval(decision="rejected", by="operator", time=now(), reason=reason)
            approvals.decide(connection, job, by_hand)
            AUDIT_LOG.tell(connection, Event.JOB_REJECTED, job, **_decided(asked, by_hand))

    def decision(self, job: str) -> Approval | None:
        with self._database.reading() as connection:
            return approvals.decision(connection, job)

    def summary(self, job: str) -> Summary:
        """What its operator was shown. Raises NotWaiting for a job that was refused before."""
        with self._database.reading() as connection:
            asked = approvals.asked_by(connection, job)
        if asked is None:
            raise NotWaiting(f"job {job} was refused before the operator of {self._owner.name} could be asked")
        return asked.summary

    # The contract, and what leaves

    def keep_contract(self, job: str, signed: Mapping[PartyId, Signed]) -> None:
        """Raises StorageFailed: then nothing may run."""
        with self._database.writing() as connection:
            approvals.keep_contract(connection, job, signed)

    def contract(self, job: str) -> Contract | None:
        with self._database.reading() as connection:
            return approvals.contract(connection, job)

    def accounts(self) -> list[LedgerLine]:
        with self._database.reading() as connection:
            return lifetime.accounts(connection)

    def _ask(self, connection: sql.Connection, job: str, request: Request, warnings: Iterable[str]) -> None:
        parties = request.spec.parties
        last = approvals.last_terms(connection, parties, type(request.spec))
        summary = summarise(request, last, lifetime.used(connection), self._maximum_rho, warnings)
        asked = Asked(terms=Terms.of(request), budget=request.budget, summary=summary)
        approvals.ask(connection, job, parties, asked)

    def _marks(self, request: Request) -> Marks:
        """Of the rows that are scored; made before anything is locked, as it takes a second for a million."""
        return marks_of(request.row_digests, self._owner.current.counting_key)

    def _check_runs(self, connection: sql.Connection, request: Request, marks: Marks) -> None:
        """Raises PolicyRefused."""
        if request.id_runs:
            check_runs(request.me, request.id_runs, lifetime.id_runs(connection), self._run_limits)
        if len(marks):
            earlier = lifetime.scored_rows(connection, request.spec.coordinator, request.now - DAY_SECONDS)
            scored_before = (np.frombuffer(each, "<u8") for each in earlier)
            check_predictions(request, marks, scored_before, self._predictions_per_day)

    def _approve(
        self, connection: sql.Connection, job: str, request: Request, approval: Approval, marks: Marks
    ) -> None:
        """From here on the job may reveal what it asked to."""
        asked = approvals.asked_by(connection, job)
        assert asked is not None  # noqa: S101 - nobody decides about a job that has not asked
        opened = lifetime.open_budget(connection, job, self._owner.name, asked.budget, self._maximum_rho)
        self._check_runs(connection, request, marks)
        lifetime.open_id_runs(connection, job, request.id_runs)
        if len(marks):
            before = request.now - DAY_SECONDS
            lifetime.open_scored_rows(connection, job, request.spec.coordinator, request.now, marks.tobytes(), before)
        approvals.decide(connection, job, approval)
        budget = told_budget(sendable(decode_spec(asked.terms.spec), self._owner.name), opened)
        AUDIT_LOG.tell(connection, Event.JOB_APPROVED, job, **_decided(asked, approval), budget=budget)

    def _waiting(self, connection: sql.Connection, job: str) -> Asked:
        """Raises NotWaiting."""
        asked = approvals.asked_by(connection, job)
        if asked is None or approvals.decision(connection, job) is not None:
            raise NotWaiting(f"job {job} does not wait for a decision of {self._owner.name}'s operator")
        return asked


def _tell(connection: sql.Connection, event: Event, stored: StoredGrant, **detail: str) -> None:
    AUDIT_LOG.tell(connection, event, peer=stored.grant.peer, grant=stored.grant.id, **detail)


def _decided(asked: Asked, approval: Approval) -> dict[str, str]:
    detail = {"by": approval.by, "specification": sha256(asked.terms.spec).hexdigest()}
    return detail | ({"grants": " ".join(approval.grants)} if approval.grants else {})


def told_budget(kinds: Iterable[str], lines: Iterable[BudgetLine]) -> str:
    """For the audit log: of each of these kinds of message how many may leave for one peer.

    "-" stands for any number of a kind that reveals nothing.
    """
    most: dict[str, int | str] = {kind: "-" for kind in kinds if not reveals(kind)}
    for line in sorted(lines, key=lambda line: line.messages):  # of several peers the one that may read most
        most[line.message] = line.messages
    return " ".join(f"{kind}:{messages}" for kind, messages in sorted(most.items()))
