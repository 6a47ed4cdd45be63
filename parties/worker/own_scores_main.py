"""`python -m parties.worker.own_scores_main`: scores rows by the label party's own columns alone, then ends."""

import traceback
from typing import Any

from parties.processes import close_memory
from parties.worker.frames import Failed, Finished, FrameReader, FrameWriter, take_pipe
from parties.worker.main import table_of
from parties.worker.own_scores import OwnRows
from vfl.errors import JobError
from vfl.kinds import decode_spec, kind_of
from vfl.setup import Setup


def main() -> None:
    close_memory()  # it will hold rows and weights
    incoming, outgoing = take_pipe()
    reader: FrameReader[OwnRows] = FrameReader(incoming, OwnRows)
    if (asked := reader.read()) is not None:
        FrameWriter(outgoing).write(_scored(asked))


def _scored(asked: OwnRows) -> Finished | Failed:
    try:
        spec = decode_spec(asked.spec)
        setup: Setup[Any] = Setup(spec, asked.me, {"rows": table_of(asked.table)}, b"", b"", model=asked.model)
        return Finished(kind_of(spec).score_own_columns(setup))
    except JobError as error:
        return Failed(error.code, str(error), error.safe, error.fix)
    except Exception:  # noqa: BLE001 - a bug is told, and its traceback stands in the server's log
        traceback.print_exc()
        return Failed("", "", "", "")


if __name__ == "__main__":
    main()
