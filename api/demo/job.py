"""The one job between a demonstration's servers, from proposal to end."""

import time
from collections.abc import Sequence
from typing import Protocol

from api.client import FINAL_STATES, JsonObject, RequestRefused, ServerProblem
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


def follow(
    servers: Servers, parties: Sequence[str], job_id: str, deadline_seconds: float, watcher: Watcher
) -> tuple[dict[str, JsonObject], int]:
    """Each party's view of the job once all are done with it, and how many processes ran at most.

    The first party proposed it. Raises JobEnded when it did not finish there, JobOverdue, or ServerEnded.
    """
    coordinator, *others = parties
    deadline = time.monotonic() + deadline_seconds
    ended = None
    processes = 0
    while True:
        try:
            jobs = _look(servers, coordinator, others, job_id)
        except ServerProblem:
            servers.check()
            raise
        running = workers(jobs)
        servers.write_processes(running)
        processes = max(processes, len(parties) + sum(1 for pid in running.values() if pid))
        watcher.job(jobs[coordinator])
        now = time.monotonic()
        if jobs[coordinator]["state"] in FINAL_STATES:
            if jobs[coordinator]["state"] != "done":
                raise JobEnded(jobs[coordinator])
            ended = ended or now
            if all(jobs.get(party, {}).get("state") in FINAL_STATES for party in others) or now - ended > PEER_SECONDS:
                return jobs, processes
        if now > deadline:
            raise JobOverdue(f"the job is not done after {deadline_seconds:.0f} s", fix="See the servers' logs.")
        time.sleep(LOOK_SECONDS)


def _look(servers: Servers, coordinator: str, others: Sequence[str], job_id: str) -> dict[str, JsonObject]:
    jobs = {coordinator: servers.client(coordinator).job(job_id)}
    for party in others:
        try:
            jobs[party] = servers.client(party).job(job_id)
        except RequestRefused as problem:
            # The proposal may still be on its way, or never have left.
            if problem.status != 404:
                raise
    return jobs
