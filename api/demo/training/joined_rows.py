"""Both parties' rows in one place, as only a demonstration has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vfl.schedule import held_out, stratified
from vfl.spec.joined_rows import JoinedRowsSpec

Floats = NDArray[np.float64]
Metrics: TypeAlias = Mapping[str, float]


@dataclass(frozen=True)
class JoinedRows:
    """Both parties' rows as numbers, with the seeds of the job that ran on them."""

    own: Floats
    """rows x the label party's own columns."""
    features: Floats
    """rows x the feature party's columns."""
    labels: Floats
    """rows."""
    joint_seed: bytes
    private_seeds: dict[str, bytes]
    words: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Of the feature party's columns of categories."""

    def split(self, spec: JoinedRowsSpec) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(training rows, held-out rows) of the job."""
        if spec.split.stratify:
            test = stratified(self.private_seeds[spec.roster.label], self.labels, spec.split.test)
            return np.setdiff1d(np.arange(len(self.labels)), test), test
        return held_out(self.joint_seed, len(self.labels), spec.split.test)
