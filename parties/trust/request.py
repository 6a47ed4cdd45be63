"""A job as the owner of data is asked for it: what grants are compared with, and what an operator reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from parties.trust.budget import BudgetLine, DataUse, budget_of
from parties.trust.id_runs import IdRun
from vfl.kinds import kind_of
from vfl.planning.plan import Plan
from vfl.spec.job import JobSpec
from vfl.spec.sections import PartyId


@dataclass(frozen=True)
class Request:
    spec: JobSpec
    me: PartyId
    """The owner."""
    plan: Plan
    data: tuple[DataUse, ...]
    """What the job takes of this party's data, once for each data set."""
    now: int
    """Unix seconds."""
    id_sketches: Mapping[str, bytes] = field(default_factory=dict)
    """Of the ids that are compared, by data set."""
    row_digests: bytes = field(default=b"", repr=False)
    """Of the id of each row that is scored, 16 bytes each (predictions.py)."""
    strangers: tuple[PartyId, ...] = ()
    """Parties whose identity key the specification names, and this party has not pinned."""

    @property
    def id_runs(self) -> tuple[IdRun, ...]:
        """Every other party learns something of which ids are here."""
        others = [party for party in self.spec.parties if party != self.me]
        return tuple(
            IdRun(peer, dataset, self.now, sketch) for peer in others for dataset, sketch in self.id_sketches.items()
        )

    @cached_property
    def budget(self) -> tuple[BudgetLine, ...]:
        return budget_of(self.spec, self.plan, self.me, self.data)

    @property
    def counted(self) -> str:
        """What the numbers of the budget count: values, or messages."""
        return kind_of(self.spec).counted

    def opened_values(self, digest: str = "") -> int:
        """How much of the budget comes from the columns of this file, or of any."""
        return sum(line.values for line in self.budget if any(digest in {"", column.digest} for column in line.columns))

    @property
    def rho(self) -> float:
        """What the job adds to the rho of a column of this party, at most."""
        return max((line.charge(line.messages).rho for line in self.budget if line.columns), default=0.0)


def data_used(
    spec: JobSpec, me: PartyId, columns: Mapping[str, tuple[str, ...]], digests: Mapping[str, str]
) -> tuple[DataUse, ...]:
    """One for each data set: `columns` and `digests` are of this party's tables, by use, as they were read."""
    uses: dict[str, DataUse] = {}
    for name, use in spec.tables_of(me).items():
        before = uses.get(use.dataset, DataUse(use.dataset, digests[name], ()))
        uses[use.dataset] = DataUse(
            use.dataset,
            digests[name],
            tuple(dict.fromkeys((*before.columns, *columns[name]))),
            before.label or use.label,
            before.handed_out or use.leaves,
        )
    return tuple(uses.values())
