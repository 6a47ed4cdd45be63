"""One demonstration of rounds from dealt rows to a result: folders, servers, the job, comparisons, report."""

import time

from api.client import JsonObject
from api.demo.audit import export_and_verify
from api.demo.folder import REPORT, SPECIFICATION, write_party, write_text
from api.demo.job import Jobs, Watcher
from api.demo.rounds.agreement import DEADLINE_SECONDS, RoundsDemonstration
from api.demo.rounds.baselines import averaged, compare, whole_model_bytes
from api.demo.rounds.report import render
from api.demo.rounds.result import Beside, rounds_result
from api.demo.rounds.tables import AGGREGATOR, PARTIES
from api.demo.servers import Servers, free_ports


def run_rounds(demonstration: RoundsDemonstration, watcher: Watcher) -> JsonObject:
    """Run it all and leave the report in the folder; answers the result.

    Raises JobEnded when the job fails, DemoError when a server does. Whatever happens, no process is left.
    """
    started = time.monotonic()
    folder, agreement = demonstration.folder, demonstration.agreement
    ports = free_ports(PARTIES)
    for party in PARTIES:
        write_party(folder, agreement.folder_of(party), demonstration.seed, ports)
    write_text(folder / SPECIFICATION, agreement.text)
    watcher.phase(f"starting {len(PARTIES)} party servers")
    with Servers(folder, ports, AGGREGATOR) as servers:
        watcher.phase("the parties agree on the job")
        demonstrated = Jobs(servers, PARTIES, DEADLINE_SECONDS, watcher)
        jobs = demonstrated.run(agreement.text)
        watcher.phase("exporting and verifying all audit logs")
        audit = export_and_verify(servers, PARTIES, folder)
    watcher.phase("training the same network without a federation")
    compared = compare(agreement.spec, folder)
    if agreement.mode.averaging:
        watcher.phase("averaging with the same draws, without the part")
        averaging = averaged(agreement.spec, folder, demonstration.seed)
    else:
        averaging = []
    whole_model = whole_model_bytes(agreement.spec)
    seconds = time.monotonic() - started
    result = rounds_result(
        demonstration, jobs, Beside(compared, averaging, whole_model), demonstrated.processes, seconds, audit
    )
    watcher.phase("writing the report")
    write_text(folder / REPORT, render(result, agreement.text))
    return result
