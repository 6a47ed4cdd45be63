"""What the label party of `one_pass` has and makes: encrypted columns, sums of its own, the solved model."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vfl.errors import LocalProtocolError
from vfl.models import ridge
from vfl.models.halves import OF_OWN_COLUMNS, OF_TOP, PREPARATION
from vfl.models.metrics import measure
from vfl.models.preparation import PART_ROWS
from vfl.models.ridge import Moments
from vfl.models.scaling import Scaling
from vfl.models.scorer import Scorer, Shape
from vfl.models.tensors import save_tensors
from vfl.notices import Notice
from vfl.planning.one_pass import width_of
from vfl.protocols.held_out_scores import in_units, judged
from vfl.protocols.label_side import ALONE
from vfl.protocols.prepared_columns import PreparedColumns
from vfl.reports import Outcome
from vfl.schedule import blocks
from vfl.setup import Setup
from vfl.spec.one_pass import OnePassSpec

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

LINEAR = "linear"
"""The form of the loss error of classes: u / 4 + 1 / 2 - y, which least squares on targets of +-2 has as well."""
CLASS_TARGET = 2.0


class LabelSums:
    """Own columns and targets, bounded; sums of their products by folds; weights once the peer's sums are there too."""

    def __init__(self, setup: Setup[OnePassSpec]) -> None:
        spec, labels = setup.spec, setup.table.labels
        if labels is None:
            raise LocalProtocolError(f"{setup.me} is the label party and brought no labels")
        self._setup, self._labels, self._spec = setup, labels, spec
        self._prepared = PreparedColumns(setup)
        train = setup.training_rows
        self._usable, self._notices = self._prepared.without_rare_values(train, spec.fit.least_rows)
        self._names = setup.table.classes or tuple(map(str, range(max(spec.outputs, 2))))
        self._unit = Scaling(np.zeros(1), np.ones(1))
        self._target_size = CLASS_TARGET
        if spec.job.task == "regression":
            self._unit, self._target_size = Scaling.fit(labels[train][:, None]), 1.0
        self._width, self._own = width_of(spec), spec.data[setup.me].prepared_width
        self._of_columns = [np.zeros((self._own + spec.outputs + 1,) * 2) for _ in range(spec.fit.folds)]
        """By folds: sums of products of own columns, targets and 1."""
        self._folds = list[Moments]()
        self._joint: ridge.Ridge | None = None
        self._alone: ridge.Ridge | None = None

    def own(self, rows: Rows) -> Floats:
        return self._prepared.rows(rows)

    def columns(self, fold: int, rows: Rows) -> Floats:
        """What is encrypted of these rows: own columns, then targets, each of a mean square of 1 at most. Their own
        products are added to the fold's."""
        columns = np.column_stack([self.own(rows) * self._usable, self._targets(rows)])
        whole = np.column_stack([columns, np.ones(len(rows))])
        self._of_columns[fold - 1] += whole.T @ whole
        return columns

    def _targets(self, rows: Rows) -> Floats:
        labels = self._labels[rows]
        match self._spec.job.task:
            case "regression":
                return self._unit.apply(labels[:, None])
            case "multiclass":
                return np.where(labels[:, None] == np.arange(self._spec.outputs), 1.0, -1.0)
            case _:
                return np.where(labels[:, None] == 1, 1.0, -1.0)

    def add(self, fold: int, with_columns: Floats, theirs: Floats) -> None:
        """Of one fold: the feature party's columns x own columns and targets, and its columns and 1 by themselves."""
        own, width, mine = self._own, self._width, self._of_columns[fold - 1]
        inputs = width + own + 1
        products, with_targets = np.zeros((inputs, inputs)), np.zeros((inputs, self._spec.outputs))
        products[:width, :width] = theirs[:-1, :-1]
        products[:width, -1] = products[-1, :width] = theirs[:-1, -1]
        products[:width, width:-1] = with_columns[:, :own]
        products[width:-1, :width] = with_columns[:, :own].T
        places = [*range(own), own + self._spec.outputs]
        products[width:, width:] = mine[np.ix_(places, places)]
        with_targets[:width] = with_columns[:, own:]
        with_targets[width:] = mine[places, own:-1]
        squares = np.diagonal(mine)[own:-1]
        size = self._target_size
        self._folds.append(Moments(round(mine[-1, -1]), products, size * with_targets, size**2 * squares))

    def solve(self) -> None:
        penalties = self._spec.fit.penalties
        self._joint = ridge.fit(self._folds, penalties)
        if self._own:
            mine = range(self._width, self._width + self._own + 1)
            self._alone = ridge.fit([fold.of_inputs(mine) for fold in self._folds], penalties)

    @property
    def scorer(self) -> Scorer:
        """Of the model on the columns of both parties."""
        return Scorer(Shape(self._width, self._own, 0, self._spec.outputs), {"weights": _solved(self._joint).weights})

    def outcome(self, scores: Floats, operations: dict[str, int]) -> Outcome:
        """The result, judged on scores of the held-out rows: rows x outputs, in scaled units, NaN where unknown."""
        result = judged(self._setup, self._labels, self._names, self._unit, scores, LINEAR)
        errors = _solved(self._joint).errors
        series = {"penalty": list(errors), "penalty_error": list(errors.values())} if errors else {}
        if self._spec.job.task == "regression":
            mean, deviation = float(self._unit.mean[0]), float(self._unit.deviation[0])
            series |= _solved(self._joint).coefficients(mean, deviation)
        return Outcome(
            self._state(),
            result.metrics | self._measured_alone(),
            operations,
            result.series | series,
            [*self._prepared.notices, *self._notices, *self._of_penalty(), *result.notices],
        )

    def _state(self) -> bytes:
        """As the label party of `ckks_training` stores its half of a linear model."""
        weights = {f"{OF_TOP}weights": _solved(self._joint).weights}
        if self._alone is not None:
            weights[f"{OF_OWN_COLUMNS}weights"] = self._alone.weights
        unit = {"labels.mean": self._unit.mean, "labels.deviation": self._unit.deviation}
        return save_tensors(weights | unit | {PREPARATION: self._prepared.stored})

    def _of_penalty(self) -> Iterator[Notice]:
        solved, penalties = _solved(self._joint), self._spec.fit.penalties
        text = f"the penalty of the weights is {solved.penalty:g}"
        if solved.errors:
            text += f", by the least error over {self._spec.fit.folds} folds of {len(penalties)} penalties"
        yield Notice("note", "penalty_chosen", text)

    def _measured_alone(self) -> dict[str, float]:
        """The metric of the model on own columns alone, over the same held-out rows."""
        if self._alone is None:
            return {}
        held_out, task = self._setup.test_rows, self._spec.job.task
        shape = Shape(0, self._own, 0, self._spec.outputs)
        scorer = Scorer(shape, {"weights": self._alone.weights})
        parts = blocks(held_out, PART_ROWS)
        scaled = np.concatenate([scorer.own_part(self.own(rows)) for rows in parts])
        scores = in_units(self._unit, scaled)
        return {f"{ALONE}{name}": value for name, value in measure(task, self._labels[held_out], scores).items()}


def _solved(fit: ridge.Ridge | None) -> ridge.Ridge:
    if fit is None:
        raise LocalProtocolError("the model is asked for before the sums are there")
    return fit
