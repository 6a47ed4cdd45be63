"""`python -m parties.estimates.main`: counts the work of one job, measures what its operations cost here, and ends."""

import time
import traceback
from pathlib import Path

from parties.estimates.costs import group_of
from parties.estimates.operation_costs import measured
from parties.estimates.process import AskedWork, Counted
from parties.worker.frames import Failed, FrameReader, FrameWriter, take_pipe
from vfl.errors import JobError
from vfl.kinds import decode_spec, kind_of
from vfl.planning.work import SECONDS, operations


def main() -> None:
    incoming, outgoing = take_pipe()
    started = time.process_time()
    reader: FrameReader[AskedWork] = FrameReader(incoming, AskedWork)
    if (asked := reader.read()) is not None:
        FrameWriter(outgoing).write(_counted(asked, started))


def _counted(asked: AskedWork, started: float) -> Counted | Failed:
    try:
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
    except JobError as error:
        return Failed(error.code, str(error), error.safe, error.fix)
    except Exception:  # noqa: BLE001 - a bug is told, and its traceback stands in the server's log
        traceback.print_exc()
        return Failed("", "", "", "")


if __name__ == "__main__":
    main()
