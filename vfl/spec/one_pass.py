"""The agreement of a linear model that is solved from sums over all rows: each row is touched once (one_pass.md)."""

from typing import ClassVar

import msgspec

from vfl.errors import NotAvailable
from vfl.spec.encryption import CkksEncryption
from vfl.spec.joined_rows import JoinedRowsSpec
from vfl.spec.sections import PartyId, Section, require, require_amount
from vfl.spec.training import Train, TrainingSpec

MOST_FOLDS, MOST_PENALTIES = 20, 50


class Fit(Section, frozen=True, kw_only=True):
    """How the weights follow from the sums."""

    penalties: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    """What the square of every weight but the bias adds to the mean squared error; the one of least error over the
    folds is taken."""
    folds: int = 5
    """Parts of the training rows, each with sums of its own: the penalty is chosen on the parts that a fit left out."""
    least_rows: int = 30
    """Training rows that every bin, category and other rare value of a column needs; a column that has a rarer one is
    left out, because its sums would tell of single rows."""


class OnePassSpec(JoinedRowsSpec, frozen=True, kw_only=True):
    """The label party coordinates. Raises SpecError when built from something that contradicts itself."""

    entry: ClassVar[str] = "one_pass"
    """The protocol that runs this job: a key of `vfl.routes.ROUTES`."""

    fit: Fit = Fit()

    def __post_init__(self) -> None:
        fit = self.fit
        require(self.job.protocol == "one_pass", "job.protocol is one_pass for a job with [fit]")
        self._check_joined_rows()
        require(not self.split.validation, "split.validation is for training in steps: fit.folds choose the penalty")
        require(1 <= fit.folds <= MOST_FOLDS, f"fit.folds must lie between 1 and {MOST_FOLDS}")
        require(
            1 <= len(fit.penalties) <= MOST_PENALTIES, f"fit.penalties must be between 1 and {MOST_PENALTIES} in number"
        )
        for penalty in fit.penalties:
            require_amount(penalty, "fit.penalties", above_zero=True)
        require(
            fit.folds > 1 or len(fit.penalties) == 1, "fit.penalties are several, and without folds none can be chosen"
        )
        require(fit.least_rows >= 1, "fit.least_rows must be at least 1")
        if len(self.roster.features) > 1:
            raise NotAvailable(
                "job specification: a job of one_pass takes one feature party in this release",
                fix="Name one feature party, or train in clear with job.protocol = training.",
            )

    @classmethod
    def instead_of(cls, spec: TrainingSpec) -> "OnePassSpec | None":
        """The same model in one pass; None where the training is of another one, or asks for what one pass has not."""
        has_all = (
            spec.encrypted
            and not spec.hidden
            and spec.model.layout == "features"
            and not spec.model.start_from
            and not spec.split.validation
            and spec.train.class_weights == "none"
            and spec.encryption.loss_error == "linear"
        )
        if not has_all:
            return None
        job = msgspec.structs.replace(spec.job, protocol="one_pass")
        return cls(job=job, roster=spec.roster, data=spec.data, rows=spec.rows, split=spec.split)

    @property
    def as_training(self) -> TrainingSpec:
        """The encrypted training whose linear model is scored as that of this job: the halves are stored alike."""
        return TrainingSpec(
            job=msgspec.structs.replace(self.job, protocol="training"),
            roster=self.roster,
            data=self.data,
            rows=self.rows,
            split=self.split,
            train=Train(epochs=1, batch_rows=1),
            encryption=CkksEncryption(),
        )

    @property
    def encrypted_columns(self) -> int:
        """Own columns of the label party and its targets, which it encrypts."""
        return self.data[self.roster.label].prepared_width + self.outputs

    @property
    def inputs(self) -> tuple[tuple[PartyId, str], ...]:
        """Owner and name of each input of the model, in the order of its weights; the last is the constant."""
        owners = (*self.roster.features, self.roster.label)
        of_parties = [(party, name) for party in owners for name in self.data[party].prepared_names]
        return (*of_parties, ("", "constant"))

    @property
    def checkpoints(self) -> int:
        """None: an attempt that was cut off begins anew, which takes as long as the first one."""
        return 0

    @property
    def disclosure(self) -> str:
        """What the label party reads."""
        return "row_sums"

    def steps_on(self, rows: int) -> int:
        return max(1, rows)
