"""`python -m parties.worker.own_scores_main`: scores rows by the label party's own columns alone, then ends."""

from typing import Any

from parties.processes import close_memory
from parties.worker.frames import Finished
from parties.worker.main import table_of
from parties.worker.one_question import answer
from parties.worker.own_scores import OwnRows
from vfl.kinds import decode_spec, kind_of
from vfl.setup import Setup


def main() -> None:
    close_memory()  # it will hold rows and weights
    answer(OwnRows, _scored)


def _scored(asked: OwnRows) -> Finished:
    spec = decode_spec(asked.spec)
    setup: Setup[Any] = Setup(spec, asked.me, {"rows": table_of(asked.table)}, b"", b"", model=asked.model)
    return Finished(kind_of(spec).score_own_columns(setup))


if __name__ == "__main__":
    main()
