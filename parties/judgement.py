"""What a party makes of a job before it agrees: its own policy, its own tables, and what would happen here."""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from parties import limits, policy
from parties.errors import UnknownColumn
from parties.settings import Acceptance
from parties.storage.alignments import alignment
from parties.storage.database import Job, now
from parties.tables import datasets
from parties.tables.registered import Registered
from parties.trust.id_runs import sketch
from parties.trust.predictions import row_digests
from parties.trust.request import Request, data_used
from vfl.kinds import kind_of
from vfl.notices import Notice
from vfl.planning.plan import Plan
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId

_LOG = logging.getLogger("parties")
ESTIMATE = "estimate"
"""Under this name stands in the stored plan of a job what was foreseen of it before it was proposed here."""


@dataclass(frozen=True)
class Judgement:
    spec: JobSpec
    """With the numbers of classes and of held-out rows, which the label party fills in when it proposes."""
    tables: dict[str, datasets.LoadedTable] = field(repr=False)
    """By use."""
    plan: Plan
    relaxed_limits: list[str]
    strangers: tuple[PartyId, ...]
    """Parties whose identity key the specification alone names."""

    @property
    def notices(self) -> list[Notice]:
        """What tables and specification tell this party's operator."""
        of_tables = [notice for table in self.tables.values() for notice in table.notices]
        warnings = kind_of(self.spec).warnings(self.spec, self.plan, classes_held=self._classes_held)
        return [*of_tables, *warnings]

    @property
    def warnings(self) -> list[str]:
        """Those that an operator who must approve the job reads."""
        return [notice.text for notice in self.notices if notice.kind == "warning"] + self.relaxed_limits

    @property
    def _classes_held(self) -> int | None:
        """Of how many classes a client's own rows are; none where it has no rows or they are of no classes."""
        labels = self.tables["rows"].labels if "rows" in self.tables else None
        return None if labels is None or self.spec.job.task == "regression" else len(np.unique(labels))

    def request(self, me: PartyId) -> Request:
        """What grants and this party's operator are asked."""
        columns = {use: table.names for use, table in self.tables.items()}
        digests = {use: table.digest for use, table in self.tables.items()}
        uses = self.spec.tables_of(me)
        sketches = {
            uses[use].dataset: sketch(table.hashed_ids.hashes)
            for use, table in self.tables.items()
            if table.hashed_ids is not None
        }
        used = data_used(self.spec, me, columns, digests)
        counted = [table for use, table in self.tables.items() if uses[use].ids_are_counted]
        digests_of_rows = b"".join(row_digests(table.id_columns, table.ids) for table in counted)
        return Request(self.spec, me, self.plan, used, int(time.time()), sketches, digests_of_rows, self.strangers)

    def log_relaxed_limits(self, job: str) -> None:
        for limit in self.relaxed_limits:
            _LOG.warning("job %s: limit relaxed: %s", job, limit)

    def shown(self) -> dict[str, Any]:
        """The fields of a stored job that follow from it."""
        numbers = asdict(self.plan)
        numbers.pop("reveals")
        return {
            "steps": self.plan.steps,
            "reveals": [msgspec.to_builtins(line) for line in self.plan.reveals],
            "plan": numbers,
            "classes": [name for table in self.tables.values() for name in table.classes],
            "relaxed_limits": self.relaxed_limits,
        }


def judge(
    spec: JobSpec,
    me: PartyId,
    folder: Path,
    registered: Mapping[str, Registered],
    acceptance: Acceptance,
    strangers: tuple[PartyId, ...],
) -> Judgement:
    """The same questions at every party, with its data sets by name; `strangers` are no peers of this one.

    Raises JobError where this one cannot or may not take part.
    """
    if me == spec.coordinator:  # a peer that proposes is not told which data sets there are
        datasets.check_named(registered, spec, me)
    policy.check_agreement(spec, me, acceptance)
    try:
        tables = datasets.load(folder, registered, spec, me, partial(alignment, folder), folder)
    except UnknownColumn as error:
        if me == spec.coordinator:
            raise
        fix = f"{error.fix} {spec.coordinator} wrote the specification: tell its operator which name is right."
        raise UnknownColumn(str(error), fix=fix) from error
    if me == spec.coordinator and spec.job.task == "multiclass" and not spec.job.classes:
        job = msgspec.structs.replace(spec.job, classes=datasets.classes_of(tables["rows"]))
        spec = msgspec.structs.replace(spec, job=job)
    if me == spec.coordinator and "rows" in tables and (keys := tables["rows"].split_keys) is not None:
        spec = spec.with_held_out(keys)
    rows = tables["rows"].rows if "rows" in tables else 0
    limits.check_steps(spec, rows)
    plan = kind_of(spec).plan(spec, me, rows)
    return Judgement(spec, tables, plan, policy.check_plan(plan, me, acceptance), strangers)


def new_job(job: str, spec: JobSpec, me: PartyId, judgement: Judgement | None = None) -> Job:
    """A job as it is stored first; one a peer proposes is judged after that."""
    judged: dict[str, Any] = {}
    if judgement is not None:
        judgement.log_relaxed_limits(job)
        judged = judgement.shown() | {"notices": judgement.notices}
    return Job(
        id=job,
        name=spec.job.name,
        state="proposed",
        role=spec.role_of(me).value,
        party=me,
        peers=list(spec.peers_of(me)),
        spec_digest=spec.digest().hex(),
        created_at=now(),
        epochs=spec.checkpoints,
        **judged,
    )
