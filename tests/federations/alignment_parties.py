"""Two or more parties that align their ids in one process."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from vfl.flow import Flow, Together, run_together
from vfl.ids import HashedIds, Id, id_hashes
from vfl.kinds import flow_of
from vfl.reports import Outcome
from vfl.setup import Setup, Table
from vfl.spec.alignment import Align, AlignmentRoster, AlignmentSpec, IdColumns
from vfl.spec.sections import Job

FIRST, OTHER = "bank", "telco"


def specification(*parties: str, **rules: Any) -> AlignmentSpec:
    """`rules` are of [align]; without names the parties are FIRST and OTHER."""
    align = msgspec.structs.replace(Align(minimum_ids=0), **rules)
    roster = AlignmentRoster(parties=parties or (FIRST, OTHER))
    columns = tuple(f"id{number}" for number in range(len(align.types)))
    return AlignmentSpec(
        job=Job(name="test", protocol="alignment", task="none"),
        roster=roster,
        data={party: IdColumns(dataset="table", id=columns) for party in roster.parties},
        align=align,
    )


def setup_of(party: str, ids: Sequence[Id], spec: AlignmentSpec | None = None) -> Setup[AlignmentSpec]:
    hashed = HashedIds(id_hashes(ids), np.arange(1, len(ids) + 1))
    table = Table(bytes(32), np.empty((len(ids), 0)), ids=hashed)
    return Setup(spec or specification(), party, {"rows": table}, bytes(32), bytes(32))


def flows(ids: Mapping[str, Sequence[Id]], **rules: Any) -> dict[str, Flow[Outcome]]:
    spec = specification(*ids, **rules)
    return {party: flow_of(setup_of(party, own, spec)) for party, own in ids.items()}


def align(ids: Mapping[str, Sequence[Id]], **rules: Any) -> Together[Outcome]:
    return run_together(flows(ids, **rules))
