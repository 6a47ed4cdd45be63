"""What jobs that learn from a label party's and feature parties' columns of the same rows have in common.

Which columns each party brings, which rows they are and which are held out: alike for every way of learning from them.
"""

from typing import Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from vfl.spec.job import JobSpec
from vfl.spec.preparation import PreparationStep, check_preparation, steps_of
from vfl.spec.sections import PartyId, Role, Section, TableUse, require
from vfl.spec.split import Split


class TrainingRole(Role):
    LABEL = "label"
    FEATURE = "feature"


class Roster(Section, frozen=True, kw_only=True):
    label: PartyId
    features: tuple[PartyId, ...]


class Columns(Section, frozen=True, kw_only=True):
    """What one party brings: a registered data set and the columns of it that enter the job."""

    dataset: str
    columns: tuple[str, ...] = ()
    label: str = ""
    positive: str | int = ""
    """Of a binary label, the value that counts as 1; empty: the greater of two numbers."""
    prepare: tuple[PreparationStep, ...] = ()
    """What the owner does with its columns, fitted on its own training rows; a column that no entry is for is
    standardised and clipped to three standard deviations."""

    @property
    def steps(self) -> tuple[PreparationStep, ...]:
        """What is done with each column, in order."""
        return steps_of(self.columns, self.prepare)

    @property
    def prepared_width(self) -> int:
        """How many numbers a row of all columns becomes."""
        return sum(step.width for step in self.steps)

    @property
    def prepared_names(self) -> tuple[str, ...]:
        """What each of these numbers is."""
        named = zip(self.columns, self.steps, strict=True)
        return tuple(name for column, step in named for name in step.names(column))


class AlignedRows(Section, frozen=True, kw_only=True):
    alignment: str = ""
    """The digest of its result, or the id of its job; empty where the files hold the same rows in the same order."""


class JoinedRowsSpec(JobSpec, frozen=True, kw_only=True):
    """The label party coordinates. Raises SpecError when built from something that contradicts itself."""

    roster: Roster
    data: dict[PartyId, Columns]
    rows: AlignedRows = AlignedRows()
    split: Split = Split()

    def _check_joined_rows(self) -> None:
        """Raises SpecError."""
        parties = self.parties
        require(bool(self.roster.features), "roster.features names nobody")
        self._check_job()
        require(
            set(self.data) == set(parties),
            f"[data.*] must name exactly the parties of the roster: {', '.join(parties)}",
        )
        for party, own in self.data.items():
            at = f"data.{party}"
            require(own.positive == "" or self.job.task == "binary", f"{at}.positive is for a binary task")
            require(len(set(own.columns)) == len(own.columns), f"{at}.columns names a column twice")
            if party == self.roster.label:
                require(bool(own.label), f"{at}.label is missing: {party} is the label party")
                require(own.label not in own.columns, f"{at}: the label is among the columns")
                require(
                    not self.split.time or self.split.time not in {*own.columns, own.label},
                    f"{at}: split.time names {self.split.time!r}, which is among the inputs or is the label",
                )
            else:
                require(not own.label, f"{at}.label is set, but {party} is a feature party")
                require(own.positive == "", f"{at}.positive is set, but {party} is a feature party")
                require(bool(own.columns), f"{at}.columns is empty: a feature party brings at least one")
            binary_labels = party == self.roster.label and self.job.task == "binary"
            check_preparation(own.columns, own.prepare, at, binary_labels=binary_labels)
        self.split.check()
        require(not self.split.stratify or self.job.task != "regression", "split.stratify is for classes")

    @property
    def parties(self) -> tuple[PartyId, ...]:
        return (self.roster.label, *self.roster.features)

    def role_of(self, party: PartyId) -> TrainingRole:
        return TrainingRole.LABEL if party == self.roster.label else TrainingRole.FEATURE

    @property
    def outputs(self) -> int:
        """Scores of a row: one for each class of a multiclass job, else one."""
        return self.job.classes if self.job.task == "multiclass" else 1

    def with_held_out(self, keys: NDArray[np.float64]) -> Self:
        return msgspec.structs.replace(self, split=self.split.filled_in(keys))

    def tables_of(self, party: PartyId) -> dict[str, TableUse]:
        of, label, is_label_party = self.data[party], self.data[self.roster.label].label, party == self.roster.label
        return {
            "rows": TableUse(
                dataset=of.dataset,
                columns=of.columns,
                label=of.label,
                positive=of.positive,
                class_values=self._class_values() if is_label_party else (),
                words=tuple(column for column, step in zip(of.columns, of.steps, strict=True) if step.reads_words),
                gaps=tuple(column for column, step in zip(of.columns, of.steps, strict=True) if step.takes_gaps),
                label_at_peer="" if is_label_party else label,
                alignment=self.rows.alignment,
                split_by_id=is_label_party and self.split.by == "hash",
                split_by_time=self.split.time if is_label_party else "",
            )
        }

    def _class_values(self) -> tuple[str, ...]:
        """Values of the label that the job names."""
        return ()
