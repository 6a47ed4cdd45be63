"""`python -m parties.estimates.main`: counts the work of one job, measures what its operations cost here, and ends."""

import time
from functools import partial
from pathlib import Path

from parties.estimates.costs import group_of
from parties.estimates.operation_costs import measured
from parties.estimates.process import AskedWork, Counted
from parties.worker.one_question import answer
from vfl.kinds import decode_spec, kind_of
from vfl.planning.work import SECONDS, operations


def main() -> None:
    started = time.process_time()
    answer(AskedWork, partial(_counted, started=started))


def _counted(asked: AskedWork, started: float) -> Counted:
    spec = decode_spec(asked.spec)
    measured_before = {group_of(operation) for operation in asked.costs}
    # Before anything else is loaded: a role that is rehearsed would load what a calibration wants to load itself.
    costs: dict[str, float] = {}
    if not measured_before:
        costs = measured("process", Path(asked.folder), started) | measured("server", Path(asked.folder), started)
    turns = tuple(kind_of(spec).work(spec, asked.rows, time.process_time))
    for group in dict.fromkeys(map(group_of, operations(turns))):
        if group != SECONDS and group not in measured_before | {group_of(each) for each in costs}:
            costs |= measured(group, Path(asked.folder), started)
    return Counted(turns, costs)


if __name__ == "__main__":
    main()
