"""Where a party's estimates are made: how many rows there are, what is guessed, by what the machine was measured."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

from parties import limits
from parties.estimates.calibration import Calibration, load, store
from parties.estimates.estimate import Estimate, cores, estimated
from parties.estimates.process import counted
from parties.judgement import Judgement
from vfl.errors import ImpossibleJob, JobError
from vfl.kinds import kind_of
from vfl.planning.plan import Plan
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

GUESSED_ROWS = 1000
"""Of a table that this party cannot see, where nothing says how many it has."""
REMEMBERED = 64
"""Estimates, the newest: the one of a specification is stored with the job that is made of it."""
ROWS = "rows"

Rows = dict[PartyId, dict[str, int]]


class Estimator:
    """Of one party. Safe for several threads, which count and measure one after the other."""

    def __init__(
        self,
        folder: Path,
        me: PartyId,
        resolved: Callable[[JobSpec], JobSpec],
        judge: Callable[[JobSpec], Judgement],
    ) -> None:
        self._folder, self._me, self._resolved, self._judge = folder, me, resolved, judge
        self._made: OrderedDict[bytes, Estimate] = OrderedDict()

    def estimate(self, text: str, rows: int | None = None, *, together: bool = False) -> Estimate:
        """What a job of this specification would take; nothing is stored of it, and no peer hears of it.

        `rows` are those of each party, where they should not be read from this party's own table; `together` says that
        all parties run on this machine. Raises what a submit raises of the specification and of own tables, and
        WorkerVanished.
        """
        spec = self._resolved(limits.read_limited(text))
        spec, plan, own_rows = self._planned(spec, rows)
        guesses: list[str] = []
        of_tables = self._rows(spec, own_rows, rows, guesses)
        made = measured_estimate(self._folder, spec, plan, of_tables, guesses, together=together)
        self._made[sha256(text.encode(errors="surrogatepass")).digest()] = made
        while len(self._made) > REMEMBERED:
            self._made.popitem(last=False)
        return made

    def made_of(self, text: str) -> Estimate | None:
        """What was last foreseen of this specification."""
        return self._made.get(sha256(text.encode(errors="surrogatepass")).digest())

    def _planned(self, spec: JobSpec, rows: int | None) -> tuple[JobSpec, Plan, dict[str, int]]:
        """With the rows of own tables, by use."""
        takes_part = self._me in spec.parties
        if rows is None:
            if not takes_part:
                raise ImpossibleJob(
                    f"{self._me} is no party of this job, and has no table that says how many rows there are",
                    fix="Say it: `vfl estimate --rows N`, or `rows` in the request.",
                )
            judgement = self._judge(spec)
            return judgement.spec, judgement.plan, {use: each.rows for use, each in judgement.tables.items()}
        own_rows: dict[str, int] = {}
        with contextlib.suppress(JobError):  # a table that does not fit yet is none, where rows are said
            own_rows = {use: each.rows for use, each in self._judge(spec).tables.items()} if takes_part else {}
        own_rows.pop(ROWS, None)
        me = self._me if takes_part else spec.coordinator
        return spec, kind_of(spec).plan(spec, me, rows if ROWS in spec.tables_of(me) else 0), own_rows

    def _rows(self, spec: JobSpec, own_rows: dict[str, int], rows: int | None, guesses: list[str]) -> Rows:
        """Of every table, as far as this party knows; what it does not know is guessed, and said."""
        of_peers = [party for party in spec.parties if party != self._me and spec.tables_of(party)]
        own, named = rows or own_rows.get(ROWS, 0), ", ".join(of_peers)
        if rows is not None:
            guesses.append(f"Every table has {rows:,} rows, as was said.")
        elif of_peers and not own:
            guesses.append(f"{named}: {GUESSED_ROWS:,} rows each, a guess; `--rows N` says how many.")
        elif of_peers and not spec.tables_of(self._me)[ROWS].alignment:
            guesses.append(f"{named}: as many rows as {self._me}, {own:,}; `--rows N` says another number.")
        sizes = {party: own_rows if party == self._me else {} for party in spec.parties}
        return {
            party: {use: size.get(use, own or GUESSED_ROWS) for use in spec.tables_of(party)}
            for party, size in sizes.items()
        }


_MEASURING = threading.Lock()
"""Two processes that measure at once would disturb each other."""


def measured_estimate(
    folder: Path, spec: JobSpec, plan: Plan, rows: Rows, guesses: list[str], *, together: bool
) -> Estimate:
    """Costs that are not known yet are measured, and stored in the folder.

    Raises ImpossibleJob, WorkerVanished, StorageFailed.
    """
    with _MEASURING:
        calibration = load(folder)
        work = counted(spec, rows, calibration.costs, folder)
        if work.costs:
            calibration = Calibration(calibration.machine, calibration.costs | work.costs)
            store(folder, calibration)
    assumed = (*_assumed(spec, together=together), *guesses)
    return estimated(spec, plan, rows, work.turns, calibration.costs, assumed, together=together)


def _assumed(spec: JobSpec, *, together: bool) -> Iterator[str]:
    if together:
        yield f"All {len(spec.parties)} parties run on this machine and share its {cores()} cores."
    else:
        yield (
            f"Each other party has a machine as fast as this one, with {cores()} cores, and the network costs as "
            "little as between two processes here: a slow line adds its own time for the bytes."
        )
    yield "The machines do nothing else meanwhile, and every party answers at once."
