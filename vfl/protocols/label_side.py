"""What the label party does alike in clear and in encrypted training: its table, its top model, its result."""

import numpy as np
from numpy.typing import NDArray

from vfl.errors import LocalProtocolError
from vfl.metrics import measure
from vfl.models.polynomial import LinearTop, save_tensors
from vfl.planner import loss_of
from vfl.reports import Outcome
from vfl.scaling import Scaling
from vfl.setup import Setup

Floats = NDArray[np.float64]

CLEAR_WEIGHT_LIMIT = 1e3
"""In clear any finite weight works; beyond this the run has diverged."""


class LabelSide:
    """Own columns and targets, bounded; the top model; metrics over held-out rows."""

    def __init__(self, setup: Setup) -> None:
        spec, labels = setup.spec, setup.table.labels
        if labels is None:
            raise LocalProtocolError(f"{setup.me} is the label party and brought no labels")
        train = setup.training_rows
        self._setup = setup
        self._labels = labels
        self._scaling = Scaling.fit(setup.table.columns[train])
        self.own: Floats = self._scaling.apply(setup.table.columns)
        self._label_scaling = Scaling(np.zeros(1), np.ones(1))
        if spec.job.task == "multiclass":
            self.targets = (labels[:, None] == np.arange(spec.job.classes)).astype(np.float64)
        else:
            if spec.job.task == "regression":
                self._label_scaling = Scaling.fit(labels[train][:, None])
            self.targets = labels[:, None]
            if spec.job.task == "regression":
                self.targets = self._label_scaling.apply(self.targets)
        self.top = LinearTop(
            embedding_width=sum(len(spec.data[feature].columns) for feature in spec.roster.features),
            own_width=self.own.shape[1],
            outputs=spec.outputs,
            loss=loss_of(spec),
            optimiser=spec.train.optimiser,
            private_seed=setup.private_seed,
            weight_limit=setup.preset.weight_limit if setup.preset else CLEAR_WEIGHT_LIMIT,
        )

    def state(self) -> bytes:
        """The label party's half of the model: weights and what it needs to apply them."""
        return save_tensors(
            {
                **self.top.tensors(),
                "scaling.mean": self._scaling.mean,
                "scaling.deviation": self._scaling.deviation,
                "labels.mean": self._label_scaling.mean,
                "labels.deviation": self._label_scaling.deviation,
            }
        )

    def outcome(self, scores: Floats, operations: dict[str, int]) -> Outcome:
        """The result, judged on the scores of the held-out rows (rows x outputs, in scaled units)."""
        unscaled = scores * self._label_scaling.deviation + self._label_scaling.mean
        metrics = measure(self._setup.spec.job.task, self._labels[self._setup.test_rows], unscaled)
        return Outcome(self.state(), metrics, operations)
