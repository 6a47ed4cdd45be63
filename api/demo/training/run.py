"""One demonstration from two tables to a result: folders, servers, the job, comparisons, report."""

import time

import msgspec

from api.client import JsonObject
from api.demo.audit import export_and_verify
from api.demo.errors import DemoError
from api.demo.folder import DATA_FILE, REPORT, drawn_seed, write_parties, write_text
from api.demo.job import Watcher, follow
from api.demo.servers import Servers, free_ports
from api.demo.training.agreement import DEADLINE_SECONDS, Demonstration
from api.demo.training.baselines import JoinedRows, compare
from api.demo.training.curves import curves
from api.demo.training.report import render
from api.demo.training.result import result_data
from api.demo.training.tables import DATASET, FEATURE_PARTY, LABEL_PARTY
from parties.tables.datasets import load
from parties.tables.registered import Registered
from parties.wire.control import joint_seed

PARTIES = (LABEL_PARTY, FEATURE_PARTY)


def run(demonstration: Demonstration, watcher: Watcher) -> JsonObject:
    """Run it all and leave the report in the folder; answers the result.

    Raises JobEnded when the job fails, DemoError when a server does. Whatever happens, no process is left.
    """
    started = time.monotonic()
    folder, agreement = demonstration.folder, demonstration.agreement
    guesses = [msgspec.to_builtins(guess) for guess in demonstration.table.guesses]
    ports = free_ports(PARTIES)
    write_parties(folder, demonstration.table, agreement, demonstration.seed, ports)
    watcher.phase("starting two party servers")
    with Servers(folder, ports, LABEL_PARTY) as servers:
        servers.grant(agreement.text)
        job_id = servers.client(LABEL_PARTY).submit(agreement.text, notices=guesses)["id"]
        watcher.phase("the parties agree on the job")
        jobs, most_processes = follow(servers, PARTIES, job_id, DEADLINE_SECONDS, watcher)
        watcher.phase("exporting and verifying both audit logs")
        audit = export_and_verify(servers, PARTIES, folder)
    watcher.phase("comparing with models trained in clear")
    rows = _joined_rows(demonstration)
    # A party keeps no metric that is not defined, as the AUC over held-out rows of one class.
    scores = compare(agreement.spec, rows, jobs[LABEL_PARTY]["metrics"])
    points = curves(agreement.spec, rows, *(folder / party / "models" / job_id / "epochs" for party in PARTIES))
    result = result_data(demonstration, jobs, scores, points, most_processes, time.monotonic() - started, audit)
    watcher.phase("writing the report")
    write_text(folder / REPORT, render(result, agreement.text))
    return result


def _joined_rows(demonstration: Demonstration) -> JoinedRows:
    """Both parties' files read as they read them, and the seeds they ran with."""
    spec, folder = demonstration.agreement.spec, demonstration.folder
    datasets = {DATASET: Registered(source=DATA_FILE, id=(demonstration.table.id,))}
    loaded = {party: load(folder / party, datasets, spec, party)["rows"] for party in PARTIES}
    labels = loaded[LABEL_PARTY].labels
    if labels is None:
        raise DemoError(f"{LABEL_PARTY} holds no labels")
    return JoinedRows(
        own=loaded[LABEL_PARTY].columns,
        features=loaded[FEATURE_PARTY].columns,
        labels=labels,
        joint_seed=joint_seed(spec, {}),
        private_seeds={party: drawn_seed(demonstration.seed, party) for party in PARTIES},
    )
