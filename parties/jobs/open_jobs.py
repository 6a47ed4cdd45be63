"""The jobs that are not over at this party, each with its supervisor."""

import threading

from parties.jobs.supervisor import Supervisor
from vfl.spec.sections import PartyId


class OpenJobs:
    """Safe for several threads."""

    def __init__(self) -> None:
        self._supervisors: dict[str, Supervisor] = {}
        self._lock = threading.Lock()

    def get(self, job: str) -> Supervisor | None:
        return self._supervisors.get(job)

    def add(self, supervisor: Supervisor) -> None:
        with self._lock:
            self._supervisors[supervisor.job] = supervisor

    def drop(self, job: str) -> None:
        """Its end is stored: tables, mailboxes and keys go, and the database answers its peers."""
        with self._lock:
            self._supervisors.pop(job, None)

    def all(self) -> list[Supervisor]:
        with self._lock:
            return list(self._supervisors.values())

    def proposed_by(self, peer: PartyId) -> int:
        """How many jobs of this coordinator are not over."""
        return sum(not supervisor.over and supervisor.spec.coordinator == peer for supervisor in self.all())
