"""One demonstration from two tables to a result: servers, alignment, training, new rows, comparisons, report."""

import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec

from api.client import JsonObject
from api.demo.audit import export_and_verify
from api.demo.errors import DemoError
from api.demo.folder import DATA_FILE, REPORT, SPECIFICATION, drawn_seed, write_parties, write_text
from api.demo.job import Jobs, Watcher
from api.demo.servers import Servers, free_ports
from api.demo.training.agreement import DEADLINE_SECONDS, Demonstration, alignment_of, prediction_of
from api.demo.training.baselines import compare
from api.demo.training.curves import curves
from api.demo.training.joined_rows import JoinedRows
from api.demo.training.new_scores import ScoredRows, new_scores
from api.demo.training.report import render
from api.demo.training.result import Finished, result_data
from api.demo.training.tables import DATASET, FEATURE_PARTY, LABEL_PARTY, NEW_ROWS
from parties.storage.alignments import alignment
from parties.tables.datasets import load
from parties.tables.registered import Registered
from parties.wire.control import joint_seed
from vfl.spec.joined_rows import JoinedRowsSpec
from vfl.spec.training import TrainingSpec

PARTIES = (LABEL_PARTY, FEATURE_PARTY)


def run(demonstration: Demonstration, watcher: Watcher) -> JsonObject:
    """Run it all and leave the report in the folder; answers the result.

    Raises JobEnded when a job fails, DemoError when a server does. Whatever happens, no process is left.
    """
    started = time.monotonic()
    folder, table = demonstration.folder, demonstration.table
    guesses = [msgspec.to_builtins(guess) for guess in table.guesses]
    ports = free_ports(PARTIES)
    write_parties(folder, table, demonstration.agreement, demonstration.seed, ports)
    watcher.phase("starting two party servers")
    with Servers(folder, ports, LABEL_PARTY) as servers:
        jobs = Jobs(servers, PARTIES, DEADLINE_SECONDS, watcher)
        watcher.phase("finding the rows that both files have")
        aligned = jobs.run(alignment_of(table, DATASET))
        agreement = demonstration.agreement.aligned(_result_of(aligned))
        write_text(folder / SPECIFICATION, agreement.text)
        watcher.phase("the parties agree on the training")
        trained = jobs.run(agreement.text, guesses)
        training = trained[LABEL_PARTY]
        scored = _scored_rows(demonstration, servers, jobs, training["id"], watcher) if table.new_rows else None
        watcher.phase("exporting and verifying both audit logs")
        audit = export_and_verify(servers, PARTIES, folder)
    watcher.phase("comparing with models trained in clear")
    rows = _joined_rows(demonstration, agreement.spec)
    # A party keeps no metric that is not defined, as the AUC over held-out rows of one class.
    measures = compare(agreement.spec, rows, training["metrics"])
    epochs = (folder / party / "models" / training["id"] / "epochs" for party in PARTIES)
    points = curves(agreement.spec, rows, *epochs) if isinstance(agreement.spec, TrainingSpec) else []
    finished = Finished(aligned, trained, scored, jobs.processes, audit)
    result = result_data(demonstration, finished, measures, points, time.monotonic() - started)
    watcher.phase("writing the report")
    write_text(folder / REPORT, render(result, agreement.text))
    return result


def _scored_rows(
    demonstration: Demonstration, servers: Servers, jobs: Jobs, training: str, watcher: Watcher
) -> ScoredRows:
    table = demonstration.table
    watcher.phase("finding the new rows that both files have")
    aligned = jobs.run(alignment_of(table, NEW_ROWS))
    watcher.phase("scoring these new rows")
    predicted = jobs.run(prediction_of(training, NEW_ROWS, _result_of(aligned)))
    files = {party: files[NEW_ROWS] for party, files in table.files.items()}
    with tempfile.TemporaryDirectory() as room:
        scores = new_scores(servers, training, predicted[LABEL_PARTY]["id"], files, table.id, Path(room))
    return ScoredRows(aligned, predicted, scores)


def _result_of(aligned: Mapping[str, JsonObject]) -> str:
    """The digest of an alignment's result, by which later jobs name it."""
    digest: str = aligned[LABEL_PARTY]["result_digest"]
    return digest


def _joined_rows(demonstration: Demonstration, spec: JoinedRowsSpec) -> JoinedRows:
    """The aligned rows of both files, read as their parties read them, and the seeds they ran with."""
    folder = demonstration.folder
    datasets = {DATASET: Registered(source=DATA_FILE, id=(demonstration.table.id,))}
    loaded = {
        party: load(folder / party, datasets, spec, party, partial(alignment, folder / party))["rows"]
        for party in PARTIES
    }
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
