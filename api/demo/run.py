"""One demonstration from two tables to a result: folders, servers, the job, comparisons, report."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from api.client import FINAL_STATES, JsonObject, RequestRefused, ServerProblem
from api.demo.agreement import DEADLINE_SECONDS, Agreement
from api.demo.baselines import JoinedRows, compare
from api.demo.curves import curves
from api.demo.errors import DemoError, JobOverdue
from api.demo.folder import DATA_FILE, REPORT, private_seed, write_parties, write_text
from api.demo.report import render
from api.demo.result import result_data
from api.demo.servers import Servers, free_ports, workers
from api.demo.tables import DATASET, FEATURE_PARTY, LABEL_PARTY, DividedTable
from parties.datasets import load
from parties.negotiation import joint_seed
from parties.settings import DatasetSettings
from vfl.metrics import METRIC

PARTIES = (LABEL_PARTY, FEATURE_PARTY)
LOOK_SECONDS = 0.2
PEER_SECONDS = 30.0
"""How long the feature party may take to notice that the job is over."""


class Watcher(Protocol):
    """Who is told how far the demonstration is."""

    def phase(self, text: str) -> None:
        """What happens now."""

    def line(self, text: str) -> None:
        """Something worth keeping in view."""

    def job(self, job: JsonObject) -> None:
        """The running job, as its label party tells it."""


class JobEnded(Exception):
    """The job did not finish; `job` says why."""

    def __init__(self, job: JsonObject) -> None:
        super().__init__(job["state"])
        self.job = job


@dataclass(frozen=True)
class Demonstration:
    """What was agreed, and where it is kept."""

    table: DividedTable
    agreement: Agreement
    seed: int
    folder: Path


def run(demonstration: Demonstration, watcher: Watcher) -> JsonObject:
    """Run it all and leave the report in the folder; answers the result.

    Raises JobEnded when the job fails, DemoError when a server does. Whatever happens, no process is left.
    """
    started = time.monotonic()
    folder, agreement = demonstration.folder, demonstration.agreement
    ports = free_ports(PARTIES)
    write_parties(folder, demonstration.table, agreement, demonstration.seed, ports)
    watcher.phase("starting two party servers")
    with Servers(folder, ports) as servers:
        job_id = servers.client(LABEL_PARTY).submit(agreement.text)["id"]
        watcher.phase("the parties agree on the job")
        jobs, most_processes = _follow(servers, job_id, watcher)
    if jobs[LABEL_PARTY]["state"] != "done":
        raise JobEnded(jobs[LABEL_PARTY])
    watcher.phase("comparing with models trained in clear")
    rows = _joined_rows(demonstration)
    metric = METRIC[agreement.spec.job.task]
    # A party keeps no metric that is not defined, as the AUC over held-out rows of one class.
    scores = compare(agreement.spec, rows, jobs[LABEL_PARTY]["metrics"].get(metric))
    points = curves(agreement.spec, rows, *(folder / party / "models" / job_id / "epochs" for party in PARTIES))
    result = result_data(demonstration, jobs, scores, points, most_processes, time.monotonic() - started)
    watcher.phase("writing the report")
    write_text(folder / REPORT, render(result, agreement.text))
    return result


def _follow(servers: Servers, job_id: str, watcher: Watcher) -> tuple[dict[str, JsonObject], int]:
    """Both sides' views of the job once both are done with it, and how many processes ran at most."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    ended = None
    processes = 0
    while True:
        try:
            jobs = _look(servers, job_id)
        except ServerProblem:
            servers.check()
            raise
        running = workers(jobs)
        servers.write_processes(running)
        processes = max(processes, len(PARTIES) + sum(1 for pid in running.values() if pid))
        watcher.job(jobs[LABEL_PARTY])
        now = time.monotonic()
        if jobs[LABEL_PARTY]["state"] in FINAL_STATES:
            ended = ended or now
            both = all(jobs.get(party, {}).get("state") in FINAL_STATES for party in PARTIES)
            if both or jobs[LABEL_PARTY]["state"] != "done" or now - ended > PEER_SECONDS:
                return jobs, processes
        if now > deadline:
            raise JobOverdue(f"the job is not done after {DEADLINE_SECONDS} s", fix="See the servers' logs.")
        time.sleep(LOOK_SECONDS)


def _look(servers: Servers, job_id: str) -> dict[str, JsonObject]:
    jobs = {LABEL_PARTY: servers.client(LABEL_PARTY).job(job_id)}
    try:
        jobs[FEATURE_PARTY] = servers.client(FEATURE_PARTY).job(job_id)
    except RequestRefused as problem:
        # The proposal may still be on its way, or never have left.
        if problem.status != 404:
            raise
    return jobs


def _joined_rows(demonstration: Demonstration) -> JoinedRows:
    """Both parties' files read as they read them, and the seeds they ran with."""
    spec, folder = demonstration.agreement.spec, demonstration.folder
    datasets = {DATASET: DatasetSettings(path=DATA_FILE, id=demonstration.table.id)}
    loaded = {party: load(folder / party, datasets, spec, party)["rows"] for party in PARTIES}
    labels = loaded[LABEL_PARTY].labels
    if labels is None:
        raise DemoError(f"{LABEL_PARTY} holds no labels")
    return JoinedRows(
        own=loaded[LABEL_PARTY].columns,
        features=loaded[FEATURE_PARTY].columns,
        labels=labels,
        joint_seed=joint_seed(spec, {}),
        private_seeds={party: _private_seed(private_seed(demonstration.seed, party)) for party in PARTIES},
    )


def _private_seed(fixed: str) -> bytes:
    """As a party turns acceptance.private_seed into its private seed."""
    return hashlib.sha256(f"vfl private seed {fixed}".encode()).digest()
