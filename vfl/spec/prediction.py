"""The agreement of a prediction: a trained model scores new rows, of which each party holds its own columns.

Operators write it as TOML (job_specification.md). How the model was trained is filled in by the party that proposes,
and each party compares it with what it has stored of that training.
"""

import msgspec

from vfl.errors import ImpossibleJob
from vfl.spec.job import JobSpec
from vfl.spec.joined_rows import AlignedRows, Roster, TrainingRole
from vfl.spec.sections import PartyId, Section, TableUse, require, require_amount
from vfl.spec.training import TrainingSpec

MOST_DECIMALS = 6


class NewRows(Section, frozen=True, kw_only=True):
    """What one party brings: a registered data set with the columns that its half of the model was trained on."""

    dataset: str


class AppliedModel(Section, frozen=True, kw_only=True):
    training: str
    """The id of the job that trained it, which is the same at all parties."""
    specification: TrainingSpec | None = None
    """Of that job; filled in when the prediction is proposed."""


class Scores(Section, frozen=True, kw_only=True):
    decimals: int = 4
    """To which the label party rounds what it stores."""


class Session(Section, frozen=True, kw_only=True):
    """The job scores no row by itself: it stays open, and scores those that the label party asks for."""

    minutes: float = 60.0
    """For how long, from when both parties are ready."""


class PredictionSpec(JobSpec, frozen=True, kw_only=True):
    """The label party coordinates. Raises SpecError when built from something that contradicts itself."""

    learns = False

    roster: Roster
    data: dict[PartyId, NewRows]
    model: AppliedModel
    rows: AlignedRows = AlignedRows()
    scores: Scores = Scores()
    session: Session | None = None

    def __post_init__(self) -> None:
        parties = self.parties
        require(self.job.protocol == "prediction", "job.protocol is prediction where model.training names a model")
        require(bool(self.roster.features), "roster.features names nobody")
        self._check_job()
        require(
            set(self.data) == set(parties),
            f"[data.*] must name exactly the parties of the roster: {', '.join(parties)}",
        )
        require(bool(self.model.training), "model.training is empty: it is the id of the job that trained the model")
        require(0 <= self.scores.decimals <= MOST_DECIMALS, f"scores.decimals must lie between 0 and {MOST_DECIMALS}")
        if self.session is not None:
            require_amount(self.session.minutes, "session.minutes", above_zero=True)
            require(
                self.session_seconds <= self.job.deadline_seconds,
                "session.minutes is longer than job.deadline_seconds, after which the job ends",
            )
        if self.model.specification is not None:
            require(
                self.model.specification.roster == self.roster,
                f"the roster is not that of the training {self.model.training}",
            )

    @property
    def trained(self) -> TrainingSpec:
        """How the model was trained. Raises ImpossibleJob where that is not known yet."""
        if self.model.specification is None:
            raise ImpossibleJob(
                f"how the model of the training {self.model.training} was trained is known to the servers of its "
                "parties alone",
                fix="`vfl job submit` and `vfl doctor PEER --spec FILE` ask the server.",
            )
        return self.model.specification

    def with_training(self, training: TrainingSpec) -> "PredictionSpec":
        """The same with the specification by which the model was trained. Raises ImpossibleJob, SpecError."""
        if self.model.specification not in (None, training):
            raise ImpossibleJob(f"the training {self.model.training} is of another specification than the job names")
        return msgspec.structs.replace(self, model=msgspec.structs.replace(self.model, specification=training))

    @property
    def applied_model(self) -> str:
        return self.model.training

    @property
    def session_seconds(self) -> float:
        return 0.0 if self.session is None else 60 * self.session.minutes

    @property
    def takes_own_values(self) -> bool:
        """The feature parties' part of a score must not depend on them, which it does in encrypted hidden neurons."""
        return not (self.trained.encrypted and self.trained.hidden)

    @property
    def entry(self) -> str:
        """The protocol that runs this job: a key of `vfl.routes.ROUTES`."""
        return "ckks_prediction" if self.trained.encrypted else "split_prediction"

    @property
    def parties(self) -> tuple[PartyId, ...]:
        return (self.roster.label, *self.roster.features)

    def role_of(self, party: PartyId) -> TrainingRole:
        return TrainingRole.LABEL if party == self.roster.label else TrainingRole.FEATURE

    @property
    def private_bottom(self) -> bool:
        return self.trained.private_bottom

    @property
    def checkpoints(self) -> int:
        return 0

    @property
    def disclosure(self) -> str:
        """What the label party reads: scores, or in clear what they are made of."""
        return "scores" if self.trained.encrypted else "none"

    def tables_of(self, party: PartyId) -> dict[str, TableUse]:
        """The columns of the training, and no label; what is done with them is stored with the party's half."""
        training = self.model.specification
        before = TableUse(dataset="") if training is None else training.tables_of(party)["rows"]
        return {
            "rows": TableUse(
                dataset=self.data[party].dataset,
                columns=before.columns,
                words=before.words,
                gaps=before.gaps,
                label_at_peer=before.label_at_peer,
                alignment=self.rows.alignment,
                is_learned_from=False,
                ids_name_results=party == self.roster.label,
                ids_are_counted=party != self.roster.label,
            )
        }

    def steps_on(self, rows: int) -> int:
        """One for each block of rows; the smallest blocks have one row."""
        return max(1, rows)
