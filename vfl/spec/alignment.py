"""The agreement of an alignment: which rows the tables of two or more parties have in common, found by their ids.

Operators write it as TOML (job_specification.md). What can be judged without a table is judged when it is built.
"""

from typing import Final, Literal

from vfl.spec.job import JobSpec
from vfl.spec.sections import IdRules, PartyId, Role, Section, TableUse, require

BATCH_IDS: Final = 1 << 14
"""Of one message: a second of one core's work, so that both sides are heard of all the time."""


class AlignmentRole(Role):
    COORDINATOR = "coordinator"
    PARTICIPANT = "participant"


class AlignmentRoster(Section, frozen=True, kw_only=True):
    parties: tuple[PartyId, ...]
    """The first proposes the job."""


class IdColumns(Section, frozen=True, kw_only=True):
    """What one party brings: a registered data set, and which of its columns make an id."""

    dataset: str
    id: tuple[str, ...]


class Align(IdRules, frozen=True, kw_only=True):
    """How ids are read, alike at every party, and what is told of those that all have."""

    reveal: Literal["intersection", "size-only"] = "intersection"


class AlignmentSpec(JobSpec, frozen=True, kw_only=True):
    """Raises SpecError when built from something that contradicts itself."""

    learns = False

    roster: AlignmentRoster
    data: dict[PartyId, IdColumns]
    align: Align = Align()

    def __post_init__(self) -> None:
        parties = self.roster.parties
        require(self.job.protocol == "alignment", "job.protocol is alignment for a roster of parties")
        require(len(parties) >= 2, "roster.parties names fewer than two parties")
        self._check_job()
        require(
            set(self.data) == set(parties),
            f"[data.*] must name exactly the parties of the roster: {', '.join(parties)}",
        )
        for party, own in self.data.items():
            require(len(set(own.id)) == len(own.id), f"data.{party}.id names a column twice")
            require(
                len(own.id) == len(self.align.types),
                f"data.{party}.id names {len(own.id)} columns, and align.types says of {len(self.align.types)} what "
                "they hold",
            )
        self.align.check()

    @property
    def parties(self) -> tuple[PartyId, ...]:
        return self.roster.parties

    @property
    def tells_rows(self) -> bool:
        """Whether each party learns which of its rows are common, and not only how many."""
        return self.align.reveal == "intersection"

    @property
    def entry(self) -> str:
        """The protocol that runs this job: a key of `vfl.routes.ROUTES`."""
        return "alignment" if len(self.parties) == 2 else "alignment_of_many"

    def role_of(self, party: PartyId) -> AlignmentRole:
        return AlignmentRole.COORDINATOR if party == self.coordinator else AlignmentRole.PARTICIPANT

    def tables_of(self, party: PartyId) -> dict[str, TableUse]:
        own = self.data[party]
        return {"rows": TableUse(dataset=own.dataset, columns=own.id, ids=self.align)}

    def steps_on(self, rows: int) -> int:
        return max(1, -(-rows // BATCH_IDS))

    @property
    def checkpoints(self) -> int:
        return 0

    @property
    def disclosure(self) -> str:
        """What is read of each party's ids."""
        return "common_ids" if self.tells_rows else "common_size"
