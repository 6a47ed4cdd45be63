"""The jobs between a demonstration's servers, each from its grant to its end."""

import time
from collections.abc import Sequence
from typing import Protocol

from api.client import FINAL_STATES, JsonObject
from api.client_problems import RequestRefused, ServerProblem
from api.demo.errors import JobOverdue
from api.demo.servers import Servers, workers

LOOK_SECONDS = 0.2
PEER_SECONDS = 30.0
"""How long the other parties may take to notice that the job is over."""


class Watcher(Protocol):
    """Who is told how far the demonstration is."""

    def phase(self, text: str) -> None:
        """What happens now."""

    def line(self, text: str) -> None:
        """Something worth keeping in view."""

    def job(self, job: JsonObject) -> None:
        """The running job, as its coordinator tells it."""


class JobEnded(Exception):
    """The job did not finish; `job` says why."""

    def __init__(self, job: JsonObject) -> None:
        super().__init__(job["state"])
        self.job = job


class Jobs:
    """The jobs of one demonstration, one after the other; the first party proposes each."""

    def __init__(self, servers: Servers, parties: Sequence[str], deadline_seconds: float, watcher: Watcher) -> None:
        self._servers, self._parties, self._watcher = servers, parties, watcher
        self._deadline_seconds = deadline_seconds
        self.processes = 0
        """How many ran at most."""

    def run(self, specification: str, notices: Sequence[JsonObject] = ()) -> dict[str, JsonObject]:
        """Granted by the others and proposed; each party's view of the job once all are done with it.

        Raises JobEnded when it did not finish, JobOverdue, or ServerEnded.
        """
        self._servers.grant(specification)
        job = self._servers.client(self._parties[0]).submit(specification, notices=notices)["id"]
        return self._follow(job)

    def _follow(self, job_id: str) -> dict[str, JsonObject]:
        servers, (coordinator, *others) = self._servers, self._parties
        deadline = time.monotonic() + self._deadline_seconds
        ended = None
        while True:
            try:
                jobs = self._look(coordinator, others, job_id)
            except ServerProblem:
                servers.check()
                raise
            running = workers(jobs)
            servers.write_processes(running)
            self.processes = max(self.processes, len(self._parties) + sum(1 for pid in running.values() if pid))
            self._watcher.job(jobs[coordinator])
            now = time.monotonic()
            if jobs[coordinator]["state"] in FINAL_STATES:
                if jobs[coordinator]["state"] != "done":
                    raise JobEnded(jobs[coordinator])
                ended = ended or now
                left = [party for party in others if jobs.get(party, {}).get("state") not in FINAL_STATES]
                if not left or now - ended > PEER_SECONDS:
                    return jobs
            if now > deadline:
                raise JobOverdue(
                    f"the job is not done after {self._deadline_seconds:.0f} s", fix="See the servers' logs."
                )
            time.sleep(LOOK_SECONDS)

    def _look(self, coordinator: str, others: Sequence[str], job_id: str) -> dict[str, JsonObject]:
        jobs = {coordinator: self._servers.client(coordinator).job(job_id)}
        for party in others:
            try:
                jobs[party] = self._servers.client(party).job(job_id)
            except RequestRefused as problem:
                # The proposal may still be on its way, or never have left.
                if problem.status != 404:
                    raise
        return jobs
