"""Where workers do heavy work: on this machine, or on the Dask cluster that party.toml names, reached as they would."""

from pathlib import Path

from parties.doctor.findings import FAILED, HERE, MACHINE, OK, Finding
from parties.errors import ClusterUnreachable, WorkerVanished
from parties.settings import PartySettings
from parties.worker.cluster import Cluster
from parties.worker.pool import cores
from parties.worker_settings import pool_terms


def pool(folder: Path, settings: PartySettings) -> Finding:
    terms = pool_terms(folder, settings.pool)
    if terms.cluster is None:
        text = f"{terms.processes or cores()} processes of this machine may share the heavy work of a worker."
        return Finding(MACHINE, "pool", OK, HERE, text)
    try:
        cluster = Cluster(terms.cluster)
    except (ClusterUnreachable, WorkerVanished) as error:
        fix = "Start its scheduler and workers; compare pool.ca, pool.certificate and pool.key with the cluster's own."
        return Finding(MACHINE, "pool", FAILED, HERE, f"{terms.cluster.scheduler}: {error}", fix)
    cluster.close()
    return Finding(MACHINE, "pool", OK, HERE, f"{cluster.workers} Dask workers at {terms.cluster.scheduler}.")
