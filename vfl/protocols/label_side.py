"""What the label party does alike in clear and in encrypted training: its table, its top model, its result."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crypto.noise import FRESH, complex_gaussian
from vfl.errors import LocalProtocolError
from vfl.flow import Flow, report, send
from vfl.messages import EpochJudged
from vfl.models.class_weights import class_weights
from vfl.models.halves import PREPARATION, LabelHalf
from vfl.models.metrics import measure
from vfl.models.own_columns import OwnColumnsModel
from vfl.models.polynomial import SHRUNK, Arithmetic, Passes, RowProducts, Top
from vfl.models.preparation import PART_ROWS
from vfl.models.scaling import Scaling
from vfl.models.scorer import Shape
from vfl.models.tensors import load_tensors, save_tensors
from vfl.models.validation import Validation, ended_early
from vfl.notices import Notice
from vfl.planning.training import loss_of
from vfl.protocols.held_out_scores import in_units, judged
from vfl.protocols.prepared_columns import PreparedColumns
from vfl.reports import EpochDone, Outcome
from vfl.schedule import blocks
from vfl.setup import Setup
from vfl.spec.encryption import CkksEncryption
from vfl.spec.training import TrainingSpec

Floats = NDArray[np.float64]
V = TypeVar("V")

ALONE = "own_columns_"
"""What the name of a metric begins with that the model on own columns alone has reached."""


class LabelSide:
    """Own columns and targets, bounded; the top model; what goes back of the cut error; metrics over held-out rows.

    Nothing here ends a job because of a value: a feature party that deviates chooses its embedding and shifts what it
    opens, so an early end would tell it about labels and weights. What leaves the agreed range is left out and counted.
    """

    def __init__(self, setup: Setup[TrainingSpec]) -> None:
        spec, labels = setup.spec, setup.table.labels
        if labels is None:
            raise LocalProtocolError(f"{setup.me} is the label party and brought no labels")
        train = setup.training_rows
        self._setup = setup
        self._labels = labels
        self._class_weights: Floats = np.ones(0)
        self.validation, self._best = Validation(spec.train.stop_early), dict[str, Floats]()
        self.dropped = 0
        """Updates left out so far."""
        self._steps, self._first_drop = 0, ""
        start = LabelHalf.read(spec, setup.model) if setup.model else None
        self._prepared = PreparedColumns(setup, start.preparation if start else None)
        self._label_scaling = Scaling(np.zeros(1), np.ones(1))
        self._names = setup.table.classes or tuple(map(str, range(max(spec.outputs, 2))))
        self._row_weights = self._weights_of_rows()
        self.targets: Floats = labels[:, None]
        if spec.job.task == "multiclass":
            self.targets = (labels[:, None] == np.arange(spec.job.classes)).astype(np.float64)
        elif spec.job.task == "regression":
            self._label_scaling = start.unit if start else Scaling.fit(labels[train][:, None])
            self.targets = self._label_scaling.apply(labels[:, None])
        shape = Shape(
            sum(map(spec.embedding_width, spec.roster.features)),
            spec.data[setup.me].prepared_width,
            spec.hidden,
            spec.outputs,
        )
        optimiser, limit = spec.train.optimiser, spec.train.weight_limit
        self.top = Top(
            shape,
            loss_of(spec),
            optimiser,
            setup.private_seed,
            limit,
            encrypt_labels=isinstance(spec.encryption, CkksEncryption) and spec.encryption.labels == "ciphertext",
        )
        self._alone: OwnColumnsModel | None = None
        if shape.own:
            self._alone = OwnColumnsModel(shape, loss_of(spec), optimiser, setup.private_seed, limit)
        if start:
            self._restore(load_tensors(setup.model))

    def own(self, rows: NDArray[np.int64]) -> Floats:
        """This party's own columns in these rows, prepared."""
        return self._prepared.rows(rows)

    def passes(self, values: Arithmetic[V], embedding: list[V], rows: NDArray[np.int64]) -> Passes[V]:
        """Steps 3 to 6 on these rows."""
        return self.top.passes(values, embedding, *self.trained_on(rows))

    def trained_on(self, rows: NDArray[np.int64]) -> tuple[Floats, Floats, Floats | None]:
        """What steps 3 to 6 take of this party: own columns, targets and weights of these rows. Once for each step, as
        the model on own columns alone is trained on them too."""
        own, targets = self.own(rows), self.targets[rows]
        weights = None if self._row_weights is None else self._row_weights[rows]
        if self._alone is not None:
            self._alone.add(own, targets, weights)
        return own, targets, weights

    def linear_errors(self, rows: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
        """`Top.linear_errors` on these rows, and own columns: the steps 3 of a top model whose errors are linear."""
        own, targets = self.own(rows), self.targets[rows]
        if self._alone is not None:
            self._alone.add(own, targets, None)
        return *self.top.linear_errors(own, targets), own

    def _weights_of_rows(self) -> Floats | None:
        """How much the error of each row counts, at most 1; None where all count alike."""
        wanted = self._setup.spec.train.class_weights
        if wanted == "none":
            return None
        classes = self._labels.astype(np.int64)
        self._class_weights = class_weights(wanted, self._names, classes[self._setup.training_rows])
        return self._class_weights[classes]

    def squared_errors(self, values: Arithmetic[V], embedding: list[V], rows: NDArray[np.int64]) -> RowProducts[V]:
        """Of these validation rows; `measured` takes the sums."""
        weights = np.ones(len(rows)) if self._row_weights is None else self._row_weights[rows]
        return self.top.squared_errors(values, embedding, self.own(rows), self.targets[rows], weights)

    def measure(self, epoch: int, sums: Floats) -> None:
        """Keeps the loss on the validation rows, and the weights if it is the least; `sums` are over these rows."""
        rows = self._setup.validation_rows
        weight = len(rows) if self._row_weights is None else self._row_weights[rows].sum()
        self.validation.add(epoch, float(sums.sum() / SHRUNK / weight))
        if self.validation.best == epoch:
            self._best = self._weights()

    def keep_best(self) -> None:
        """The weights of the best epoch, where early stopping asks for them."""
        if self.validation.best:
            self._restore(self._best)

    def update(self, sums: Floats, rows: NDArray[np.int64], step: int) -> None:
        """Step 10: one step of the top model on sums over these rows, or none where it would leave the agreed range."""
        weight = len(rows) if self._row_weights is None else float(self._row_weights[rows].sum())
        reason = self.top.update(sums, weight)
        if self._alone is not None:
            self._alone.update(weight)
        self._steps = step
        if reason:
            self.dropped += 1
            self._first_drop = self._first_drop or f"step {step}: {reason}"

    def checkpoint(self) -> dict[str, Any]:
        """All that the next steps and the result hang on; `go_on_from` takes it."""
        return {
            "top": self.top.checkpoint(),
            "alone": None if self._alone is None else self._alone.checkpoint(),
            "validation": self.validation.checkpoint(),
            "best": self._best,
            "dropped": self.dropped,
            "steps": self._steps,
            "first_drop": self._first_drop,
        }

    def go_on_from(self, state: Mapping[str, Any]) -> None:
        self.top.go_on_from(state["top"])
        if self._alone is not None:
            self._alone.go_on_from(state["alone"])
        self.validation.go_on_from(state["validation"])
        self._best, self.dropped = dict(state["best"]), state["dropped"]
        self._steps, self._first_drop = state["steps"], state["first_drop"]

    def cut_basis(self) -> Floats:
        """Orthonormal rows that span what a cut error can be: rank x embedding (ckks_training.md).

        It follows from the projector on the row space of the first top layer alone, so it tells that space and no
        weight. Where the rank is no smaller than the embedding, it is the identity.
        """
        from scipy.linalg import qr  # noqa: PLC0415 - as vfl.models.preparation: not every worker needs it

        weights = self.top.embedding_weights
        rank, width = weights.shape
        if rank >= width:
            return np.eye(width)
        directions, _, _ = qr(np.linalg.pinv(weights) @ weights, pivoting=True)
        basis: Floats = directions[:, :rank].T
        return basis

    @property
    def cut_deviation(self) -> float:
        """Of the noise that is added to the coordinates of a cut error before they leave."""
        protection = self._setup.spec.protection
        return protection.cut_noise.scale if protection else 0.0

    def cut_noise(self, rows: int, width: int, draw: Callable[[int], bytes] = FRESH) -> NDArray[np.complex128]:
        """Rows x width, real and imaginary alike."""
        return complex_gaussian((rows, width), self.cut_deviation, draw)

    def state(self) -> bytes:
        """The label party's half of the model: weights and what it needs to apply them."""
        return save_tensors(
            {
                **self._weights(),
                PREPARATION: self._prepared.stored,
                "labels.mean": self._label_scaling.mean,
                "labels.deviation": self._label_scaling.deviation,
            }
        )

    def outcome(self, scores: Floats, operations: dict[str, int]) -> Outcome:
        """The result, judged on scores of the held-out rows: rows x outputs, in scaled units, NaN where unknown."""
        spec = self._setup.spec
        result = judged(self._setup, self._labels, self._names, self._label_scaling, scores, loss_of(spec))
        notices = [*self._prepared.notices, *result.notices]
        if self._row_weights is not None:
            shown = ", ".join(f"{w:.3g} of {name}" for name, w in zip(self._names, self._class_weights, strict=True))
            notices.append(Notice("note", "class_weights", f"how much the error of a row counts by its class: {shown}"))
        epochs, losses = spec.train.epochs, self.validation.losses
        if self.validation.best and (self.validation.best < epochs):
            notices.append(ended_early(max(losses), epochs, self.validation.best))
        if self.dropped:
            text = (
                f"diverged: {self.dropped} of {self._steps} updates of the top model were left out, the first at "
                f"{self._first_drop}. The model is that of the updates that stand. Lower train.optimiser.rate or "
                "momentum, check the columns; with a feature party that deviates this can be its doing. Training went "
                "on to its last step because an early end would tell the feature party about labels and weights."
            )
            notices.append(Notice("warning", "diverged", text))
        if self.top.scaled_back:
            text = (
                f"weights met train.weight_limit = {self._setup.spec.train.weight_limit:g} in "
                f"{self.top.scaled_back} of {self._steps} updates and were scaled back to it"
            )
            notices.append(Notice("note", "weights_at_limit", text))
        metrics = result.metrics | self._measured_alone(self._labels[self._setup.test_rows])
        return Outcome(self.state(), metrics, operations, result.series, notices)

    def _weights(self) -> dict[str, Floats]:
        """Of both models of this party."""
        return self.top.tensors() | ({} if self._alone is None else self._alone.tensors())

    def _restore(self, tensors: Mapping[str, Floats]) -> None:
        self.top.restore(tensors)
        if self._alone is not None:
            self._alone.restore(tensors)

    def _measured_alone(self, labels: Floats) -> dict[str, float]:
        """The metric of the model on own columns alone, over the same held-out rows."""
        if self._alone is None:
            return {}
        parts = blocks(self._setup.test_rows, PART_ROWS)
        scaled = np.concatenate([self._alone.scores(self.own(rows)) for rows in parts])
        task = self._setup.spec.job.task
        scores = in_units(self._label_scaling, scaled)
        return {f"{ALONE}{name}": value for name, value in measure(task, labels, scores).items()}


def judge_epoch(setup: Setup[TrainingSpec], side: LabelSide, epoch: int) -> Flow[bool]:
    """Reports the epoch and tells the feature parties, where the job may end early, whether training goes on."""
    measures, loss = side.top.measures(), side.validation.losses.get(epoch)
    if loss is not None:
        measures["validation_loss"] = loss
    yield from report(EpochDone(epoch, setup.spec.train.epochs, side.state(), measures))
    if loss is None or setup.spec.train.stop_early is None:
        return True
    for feature in setup.spec.roster.features:
        yield from send(feature, EpochJudged(epoch, side.validation.best, side.validation.goes_on))
    return side.validation.goes_on
